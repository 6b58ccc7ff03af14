"""A clock that differs from the database server's is told once, and again when it agrees."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from sqlalchemy import create_engine

from db.engine import connect
from db.server_clock import TOLERANCE, ahead_of_server, difference_in_words
from tests.postgres import PostgresServer, postgres_server
from workers.clock import utc_now
from workers.clock_watch import ClockWatch

__all__ = ["postgres_server"]

SECOND = timedelta(seconds=1)


@pytest.mark.peer("postgres")
@pytest.mark.parametrize("ahead", [0, 61, -7200])
def test_how_far_our_clock_is_from_that_of_a_real_server(postgres_server: PostgresServer, ahead: int) -> None:
    found = ahead_of_server(connect(postgres_server.create_database()), lambda: utc_now() + ahead * SECOND)
    assert found is not None
    assert found.total_seconds() == pytest.approx(ahead, abs=1)


def test_sqlite_is_on_this_machine() -> None:
    assert ahead_of_server(create_engine("sqlite://"), utc_now) is None


def test_the_words() -> None:
    assert difference_in_words(TOLERANCE) == difference_in_words(-TOLERANCE) == ""
    assert difference_in_words(61 * SECOND).endswith("61 s ahead of the database server's")
    assert difference_in_words(-7200 * SECOND).endswith("7200 s behind the database server's")


def test_each_change_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    times, differences = [0.0], [0.0]
    asked: list[float] = []

    def differs(*_: object) -> timedelta:
        asked.append(times[0])
        return differences[0] * SECOND

    monkeypatch.setattr("workers.clock_watch.ahead_of_server", differs)
    watch = ClockWatch(create_engine("sqlite://"), utc_now, lambda: times[0])
    caplog.set_level(logging.INFO)
    for minute, seconds in enumerate((0, 50, 51, 0, 0)):
        times[0], differences[0] = 60.0 * minute, seconds
        watch.look()
        watch.look()
    assert asked == [0, 60, 120, 180, 240], "once a minute"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "50 s ahead of the database server's" in caplog.messages[0]
