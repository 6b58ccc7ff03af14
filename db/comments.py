"""The comments of tables, views and columns, as PostgreSQL keeps them; SQLite has none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from sqlalchemy import Connection
from sqlalchemy.dialects import registry
from sqlalchemy.schema import SetColumnComment, SetTableComment

from db.tables import Base
from db.views import VIEWS


def write_comments(connection: Connection) -> None:
    """Write every comment on PostgreSQL, in one way to the server."""
    if connection.dialect.name == "postgresql":
        connection.execution_options(no_parameters=True).exec_driver_sql(_statements())


@cache
def _statements() -> str:
    return ";\n".join((*_of_tables(), *_of_views()))


def _of_tables() -> Iterator[str]:
    dialect = registry.load("postgresql.psycopg")()
    for table in Base.metadata.sorted_tables:
        yield str(SetTableComment(table).compile(dialect=dialect))
        for column in table.columns:
            yield str(SetColumnComment(column).compile(dialect=dialect))


def _of_views() -> Iterator[str]:
    for view in VIEWS:
        yield f"COMMENT ON VIEW {view.name} IS {_quoted(view.comment)}"
        for column, comment in view.columns.items():
            yield f"COMMENT ON COLUMN {view.name}.{column} IS {_quoted(comment)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
