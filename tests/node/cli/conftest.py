"""The database of the node whose configuration file a command is given."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from config.settings import load
from db.database import Database
from db.engine import connect
from tests.migrated import migrate
from tests.rules import NO_RULES


@pytest.fixture
def engine(config: Path) -> Engine:
    settings = load(config)
    settings.store.folder.mkdir()
    engine = connect(settings.database_url)
    migrate(engine)
    return engine


@pytest.fixture
def database(engine: Engine) -> Database:
    return Database(engine, NO_RULES)
