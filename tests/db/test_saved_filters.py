"""Filters of the worklist that users keep under a name."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from db.database import Database
from db.errors import RecordNotFoundError
from db.saved_filters import MOST, SavedFilterError, delete_filter, save_filter, saved_filters
from db.user_tables import Role
from db.users import Accounts
from tests.db.examples import NOW


def test_a_user_saves_replaces_and_deletes_filters_of_their_own(database: Database, engine: Engine) -> None:
    accounts = Accounts(engine)
    ada, eva = (accounts.add_user(name, None, Role.VIEWER, NOW, actor="test").id for name in ("ada", "eva"))
    database.write(save_filter, ada, " ward  3 ", "q=ward3", NOW)
    database.write(save_filter, ada, "Ambulance", "show=critical", NOW)
    database.write(save_filter, ada, "ward 3", "q=ward3&rows=100", NOW)
    assert [(one.name, one.query) for one in database.read(saved_filters, ada)] == [
        ("Ambulance", "show=critical"),
        ("ward 3", "q=ward3&rows=100"),
    ]
    assert database.read(saved_filters, eva) == ()
    first = database.read(saved_filters, ada)[0].id
    with pytest.raises(RecordNotFoundError):
        database.write(delete_filter, eva, first)
    database.write(delete_filter, ada, first)
    assert [one.name for one in database.read(saved_filters, ada)] == ["ward 3"]


def test_names_and_numbers_of_filters_are_limited(database: Database, engine: Engine) -> None:
    ada = Accounts(engine).add_user("ada", None, Role.VIEWER, NOW, actor="test").id
    for name in ("", "  ", "x" * 61):
        with pytest.raises(SavedFilterError, match="1 to 60"):
            database.write(save_filter, ada, name, "", NOW)
    for number in range(MOST):
        database.write(save_filter, ada, f"filter {number}", "", NOW)
    with pytest.raises(SavedFilterError, match="delete one first"):
        database.write(save_filter, ada, "one more", "", NOW)
    database.write(save_filter, ada, "filter 7", "q=other", NOW)
