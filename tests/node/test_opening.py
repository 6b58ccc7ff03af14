"""A part that starts opens its database, whatever happens to it at any moment of that."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url

from config.settings import Settings, load
from db.engine import connect, look_at_schema
from node.opening import ServeError, open_database, store_problem
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]
pytestmark = pytest.mark.peer("postgres")


def settings_for(tmp_path: Path, url: str) -> Settings:
    config = tmp_path / "pleura.toml"
    config.write_text(f'[database]\nurl = "{url}"\n[store]\nfolder = "{tmp_path / "store"}"\n')
    return load(config)


class Outage:
    """A database that goes away when it is spoken to for the ``moment``-th time, until it is let in again."""

    def __init__(self, server: PostgresServer, url: str, moment: int) -> None:
        self._server, self._name, self._left = server, str(make_url(url).database), moment

    def spoken_to(self, connection: Any, *_arguments: Any) -> None:
        if connection.engine.url.database != self._name:
            return
        self._left -= 1
        if self._left == 0:
            self._server.execute(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS false")
            self._server.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self._name}'"
            )

    @property
    def happened(self) -> bool:
        return self._left <= 0

    def ends(self) -> None:
        self._server.execute(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS true")

    @contextmanager
    def coming(self) -> Iterator[None]:
        names = ("before_cursor_execute", "begin", "commit")
        for name in names:
            event.listen(Engine, name, self.spoken_to)
        try:
            yield
        finally:
            for name in names:
                event.remove(Engine, name, self.spoken_to)


@pytest.mark.parametrize("migrated", [False, True])
def test_a_database_that_goes_away_at_any_moment_of_the_start_is_waited_for(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated: bool
) -> None:
    monkeypatch.setattr("node.opening._PAUSE_SECONDS", 0.05)
    url = postgres_server.create_database()
    if migrated:
        open_database(settings_for(tmp_path, url), threading.Event(), pytest.fail)
    moments = (*range(1, 12), 40, 100) if not migrated else range(1, 6)
    reached = 0
    for moment in moments:
        here = url if migrated else postgres_server.create_database()
        outage, shown = Outage(postgres_server, here, moment), list[str]()

        def show(sentence: str, outage: Outage = outage, shown: list[str] = shown) -> None:
            shown.append(sentence)
            outage.ends()

        with outage.coming():
            assert open_database(settings_for(tmp_path, here), threading.Event(), show)
        assert bool(shown) is outage.happened
        reached += outage.happened
        engine = connect(here)
        assert look_at_schema(engine) is None
        engine.dispose()
    assert reached >= len(moments) - 3


def test_a_standby_is_waited_for_until_it_can_be_written(postgres_server: PostgresServer, tmp_path: Path) -> None:
    url = postgres_server.create_database()
    name = make_url(url).database
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    shown = []

    def show(sentence: str) -> None:
        shown.append(sentence)
        postgres_server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")

    assert open_database(settings_for(tmp_path, url), threading.Event(), show)
    assert [sentence for sentence in shown if "can only be read: it is a standby" in sentence] == shown != []


def test_whoever_waits_for_another_process_that_migrates_can_be_stopped(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    from db.engine import MIGRATION_LOCK

    url, stop = postgres_server.create_database(), threading.Event()
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        threading.Timer(1, stop.set).start()
        assert not open_database(settings_for(tmp_path, url), stop, lambda _sentence: None)


def test_a_wrong_password_and_a_database_that_is_not_there_end_the_start(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    for wrong in ("no_such_database", "no_such_user"):
        user = wrong if wrong.endswith("user") else "postgres"
        url = f"postgresql+psycopg://{user}@/{wrong}?host={postgres_server.folder}"
        with pytest.raises(ServeError, match=r"has no (database|user) no_such_") as raised:
            open_database(settings_for(tmp_path, url), threading.Event(), pytest.fail)
        assert raised.value.exit_code == os.EX_CONFIG


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, os.EX_UNAVAILABLE), (errno.ESTALE, os.EX_UNAVAILABLE), (errno.EACCES, os.EX_CONFIG)],
)
def test_a_store_whose_disk_is_full_or_away_is_tried_again(number: int, code: int) -> None:
    problem = store_problem(Path("/srv/pleura"), OSError(number, os.strerror(number)))
    assert problem.exit_code == code
    assert os.strerror(number) in str(problem)


def test_a_database_of_before_the_first_release_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """Its parts ended and were started again without end, and the listener took images that nobody could analyse."""
    settings = settings_for(tmp_path, f"sqlite:///{tmp_path / 'old.sqlite'}")
    assert open_database(settings, threading.Event(), print)
    assert open_database(settings, threading.Event(), print), "one of today is opened"
    engine = connect(settings.database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE findings DROP COLUMN lungs_by")
    with pytest.raises(ServeError) as refused:
        open_database(settings, threading.Event(), print)
    assert refused.value.exit_code == os.EX_CONFIG
    for words in ("old.sqlite", "findings.lungs_by", "keep it aside", "send the studies again"):
        assert words in str(refused.value)
    assert look_at_schema(engine) is None, "nothing was changed"
