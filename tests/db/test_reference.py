"""Every table, view and column is described: in docs/database.md, and in PostgreSQL itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, Table, text

from db.reference import markdown
from db.tables import Base
from db.views import VIEWS

ROOT = Path(__file__).resolve().parents[2]
TABLES = Base.metadata.sorted_tables


def test_the_page_is_current() -> None:
    """If it is not: `make reference`."""
    assert (ROOT / "docs/database.md").read_text(encoding="utf-8") == markdown()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_and_column_has_a_comment(table: Table) -> None:
    """A comment is a sentence; without one nobody who reads the database knows what a column means."""
    comments: dict[str | None, str | None] = {
        None: table.comment,
        **{column.name: column.comment for column in table.columns},
    }
    assert [name for name, comment in comments.items() if not (comment or "").endswith((".", ")"))] == []


@pytest.mark.parametrize("url", [pytest.param("postgresql", marks=pytest.mark.peer("postgres"))], indirect=True)
def test_postgresql_keeps_the_comments(engine: Engine) -> None:
    query = text("SELECT obj_description(to_regclass(:name)), col_description(to_regclass(:name), 1)")
    with engine.connect() as connection:
        for name, comment, first in [
            *((table.name, table.comment, next(iter(table.columns)).comment) for table in TABLES),
            *((view.name, view.comment, next(iter(view.columns.values()))) for view in VIEWS),
        ]:
            assert tuple(connection.execute(query, {"name": name}).one()) == (comment, first)
