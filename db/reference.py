"""``docs/database.md``, made from the tables, the views and the state machines themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, Enum, Index, Table, UniqueConstraint
from sqlalchemy.dialects import registry

import db.audit_tables
import db.order_tables
import db.user_tables  # noqa: F401  (each puts its tables into the metadata)
from db.tables import Base
from db.transitions import TRANSITIONS
from db.views import VIEWS, View

_HEAD = """# The database

Made by `pleura db schema`; a test keeps it true. [reporting.md](reporting.md) answers questions with the views, and
says how to make a role that can only read. PostgreSQL keeps the same comments (`\\d+ studies` in psql).

The database is the truth of a node: what is not here has not happened. Reading it is safe at any time. Do not write to
it: states move by rules, and each move leaves a row in `events`. Tables and columns may change with any version; the
views change seldom, and the changelog then says so.

Times are UTC. SQLite keeps them as text (`2026-01-31 12:00:00.000000`), truth values as 0 and 1. Texts are empty, not
NULL, where nothing is known.
"""

_RELATIONS = """## What belongs to what

A row of a table on the left may have any number of rows of each table on its right, by a foreign key that the section
of that table names. (or none): a row there may also belong to none.

"""


def markdown() -> str:
    """The whole page."""
    tables = Base.metadata.sorted_tables
    parts = [
        _HEAD,
        _RELATIONS + _relations(tables),
        "## Views\n",
        *(_view(view) for view in VIEWS),
        "## Tables\n",
        *(_table(table) for table in tables),
        "## States\n",
        *(_states(name, transitions) for name, transitions in TRANSITIONS.items()),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _relations(tables: Iterable[Table]) -> str:
    """One line a table that others refer to."""
    found: dict[str, set[str]] = {}
    for table in tables:
        for column in table.columns:
            optional = " (or none)" if column.nullable else ""
            for key in column.foreign_keys:
                found.setdefault(key.column.table.name, set()).add(f"`{table.name}`{optional}")
    return _rows(("one row of", "has rows of"), [(f"`{name}`", ", ".join(sorted(of))) for name, of in found.items()])


def _view(view: View) -> str:
    rows = [(f"`{name}`", meaning) for name, meaning in view.columns.items()]
    personal = " It may name patients." if view.personal else ""
    return f"### `{view.name}`\n\n{view.comment}{personal}\n\n" + _rows(("column", "meaning"), rows)


def _table(table: Table) -> str:
    secret = " It holds secrets: a reader role cannot read it." if table.info.get("secret") else ""
    rows = [(f"`{one.name}`", _type(one), _key(one), _plain(one.comment or "")) for one in table.columns]
    text = f"### `{table.name}`\n\n{_plain(table.comment or '')}{secret}\n\n"
    text += _rows(("column", "type", "", "meaning"), rows)
    indexes = [*_unique(table), *(_index(one) for one in sorted(table.indexes, key=lambda one: str(one.name)))]
    return text + ("\n" + "\n".join(f"- {line}" for line in indexes) + "\n" if indexes else "")


def _type(column: Column[Any]) -> str:
    """The type on PostgreSQL, or the words that a state may be."""
    if isinstance(column.type, Enum):
        return ", ".join(f"`{word}`" for word in column.type.enums)
    return column.type.compile(dialect=registry.load("postgresql.psycopg")()).lower()


def _key(column: Column[Any]) -> str:
    keys = ["primary key"] if column.primary_key else []
    keys += [f"→ `{key.target_fullname}`" for key in column.foreign_keys]
    keys += ["may be NULL"] if column.nullable else []
    return ", ".join(keys)


def _unique(table: Table) -> Iterator[str]:
    found = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    for constraint in sorted(found, key=lambda one: [column.name for column in one.columns]):
        yield "unique: " + ", ".join(f"`{column.name}`" for column in constraint.columns)


def _index(index: Index) -> str:
    where = index.dialect_options["postgresql"]["where"]
    columns = ", ".join(f"`{column.name}`" for column in index.columns)
    return f"index `{index.name}`: {columns}" + (f", rows with `{where}`" if where is not None else "")


def _states(name: str, transitions: Mapping[StrEnum, Iterable[StrEnum]]) -> str:
    kind = type(next(iter(transitions)))
    rows = [
        (f"`{state}`", ", ".join(f"`{one}`" for one in sorted(after)) or "nothing: it stays")
        for state, after in transitions.items()
    ]
    meaning = " ".join(inspect.cleandoc(kind.__doc__ or "").replace("``", "`").split())
    return f"### {name}\n\n{meaning}\n\n" + _rows(("state", "may become"), rows)


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing to format."""
    return text.replace("\\", "\\\\").replace("^", "\\^").replace("_", "\\_").replace("|", "\\|")
