"""A store whose file system is not mounted: nothing is begun in its place, and nothing of it is given up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.settings import Settings, load
from db.database import Database
from db.engine import connect
from node.dicom.receiver_tools import open_receiver_tools
from node.monitoring.health import check_store_is_there
from node.opening import ServeError
from node.supervisor import Node
from tests.commands import record_instance
from tests.db.examples import PIPELINE, received
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.stores import store_away
from tests.workers.builders import NOON
from workers.store_files import INSTANCES


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A node whose database lies elsewhere, as PostgreSQL's does."""
    config = tmp_path / "pleura.toml"
    config.write_text(
        f'[database]\nurl = "sqlite:///{tmp_path}/pleura.sqlite"\n[store]\nfolder = "{tmp_path / "store"}"\n'
        "[listener]\nport = 0\n[admin]\nenabled = false\n"
    )
    made = load(config)
    made.store.folder.mkdir()
    engine = connect(made.database_url)
    migrate(engine)
    engine.dispose()
    return made


def _receive(settings: Settings) -> None:
    engine = connect(settings.database_url)
    record_instance(Database(engine, NO_RULES), received(1), None, PIPELINE, NOON)
    engine.dispose()


def test_a_first_start_makes_the_store_and_a_later_one_finds_it(settings: Settings) -> None:
    with open_receiver_tools(settings):
        pass
    _receive(settings)
    with open_receiver_tools(settings):
        pass


def test_no_second_store_is_begun_where_the_first_is_not_mounted(settings: Settings) -> None:
    """What was received into it would be hidden as soon as the first is back, and it was acknowledged."""
    with open_receiver_tools(settings):
        pass
    _receive(settings)
    with store_away(settings.store.folder):
        with pytest.raises(ServeError, match="mount its file system") as found, open_receiver_tools(settings):
            pass
        assert found.value.exit_code == os.EX_UNAVAILABLE, "a service manager tries it again"
        with pytest.raises(ServeError, match="mount its file system"):
            Node(settings).start()
        assert not (settings.store.folder / INSTANCES).exists()
        [told] = check_store_is_there(settings)
        assert not told.ok
        assert told.found.endswith("is its file system mounted?")
    assert list(check_store_is_there(settings)) == []
