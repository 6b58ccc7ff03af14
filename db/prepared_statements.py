"""Statements that are compiled once and then go straight to the driver.

SQLAlchemy takes 100 µs for a statement that SQLite executes in 2. That is nothing where a person waits for a page, and
most of the time where eight such statements lie between a C-STORE and its answer, or fifty on an image's further way.
A :class:`Prepared` is written like any other statement and converts values by the same column types, so that only the
way to the driver is shorter.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Connection,
    Dialect,
    Enum,
    Float,
    any_,
    bindparam,
    func,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from db.engine import begins_nothing
from db.kept_cursors import put_back, take
from db.tables import UTCDateTime

_REMEMBERED = 64
_MADE_ANEW = object()  # a dictionary: two rows must not share it

Convert = Callable[[Any], Any] | None
"""Converts a value on its way to or from the driver; None where it may pass as it is."""

_MOMENTS: dict[str, Callable[[Any], Any]] = {}


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement for one kind of database: its text, its values (by place or by name) and the columns it returns.

    ``pick`` gives the values in their places, of which ``converters`` change some; ``constants`` are values that the
    statement brings with it. ``readers`` convert a column, and say what its NULL is. ``row`` makes a named tuple of a
    row of ``width`` values.
    """

    text: str
    constants: Mapping[str, Any]
    binders: tuple[tuple[str, Convert], ...]
    positional: bool
    pick: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    converters: tuple[tuple[int, Callable[[Any], Any]], ...]
    row: Callable[[Sequence[Any]], Any]
    width: int
    readers: tuple[tuple[int, Callable[[Any], Any], Any], ...]

    def parameters(self, values: Mapping[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
        if self.constants:
            values = {**self.constants, **values}
        if self.positional:
            picked = list(self.pick(values))
            for place, convert in self.converters:
                picked[place] = convert(picked[place])
            return picked
        return {name: bind(values[name]) if bind else values[name] for name, bind in self.binders}

    def columns(self, found: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        if not found:
            return [()] * self.width
        columns: list[Sequence[Any]] = list(zip(*found, strict=True))
        for place, convert, of_null in self.readers:
            column = columns[place]
            if of_null is _MADE_ANEW or None not in column:
                columns[place] = list(map(convert, column))
            else:
                columns[place] = [of_null if value is None else convert(value) for value in column]
        return columns

    def rows(self, found: Sequence[Sequence[Any]]) -> list[Any]:
        return list(map(self.row, zip(*self.columns(found), strict=True) if self.readers else found))


class Prepared:
    """A statement with named values (``bindparam``); ``make`` builds it for a dialect's name.

    Expressions that grow with their values (``IN`` with a list; see :func:`is_among`) cannot be prepared, nor can
    defaults that are made in Python: a table of this schema has none.
    """

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = make
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Execute in the transaction of ``connection``; gives named tuples.

        Raises:
            DBAPIError: as SQLAlchemy raises it.
        """
        compiled = self._for(connection.dialect)
        return compiled.rows(self._found(connection, compiled, values))

    def columns(self, connection: Connection, values: Mapping[str, Any]) -> list[Sequence[Any]]:
        """The same, a sequence for each column: without a step for each row. All are empty where there is no row."""
        compiled = self._for(connection.dialect)
        return compiled.columns(self._found(connection, compiled, values))

    def _found(self, connection: Connection, compiled: _Compiled, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        cursor = self._execute(connection, compiled, values)
        try:
            found: Sequence[Sequence[Any]] = cursor.fetchall()
        except BaseException:
            cursor.close()
            raise
        put_back(connection, compiled.text, cursor, len(found))
        return found

    def first(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Execute and give the first row, or None."""
        found = self.rows(connection, values)
        return found[0] if found else None

    def insert(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Execute an INSERT of one row (:func:`giving_id`) and give its id; 0 where it left a row that was there."""
        compiled = self._for(connection.dialect)
        if compiled.width:
            found = self._found(connection, compiled, values)
            return int(found[0][0]) if found else 0
        cursor = self._execute(connection, compiled, values)
        try:
            return int(cursor.lastrowid) if cursor.rowcount else 0
        finally:
            cursor.close()

    def run(self, connection: Connection, *several: Mapping[str, Any]) -> None:
        """Execute for each of ``several`` sets of values, in one call of the driver; the statement returns nothing."""
        if several:
            compiled = self._for(connection.dialect)
            put_back(connection, compiled.text, self._execute(connection, compiled, *several), 0)

    def _execute(self, connection: Connection, compiled: _Compiled, *several: Mapping[str, Any]) -> Any:
        errors: Any = connection.dialect.loaded_dbapi.Error
        if not (connection.in_transaction() or begins_nothing(connection)):
            connection.begin()  # as SQLAlchemy does: several reads are of one state of the database
        cursor = take(connection, compiled.text)
        try:
            if len(several) == 1:
                cursor.execute(compiled.text, compiled.parameters(several[0]))
            else:
                every: list[Any] = [compiled.parameters(values) for values in several]
                cursor.executemany(compiled.text, every)
        except (errors, ValueError, TypeError) as error:
            cursor.close()
            # A StatementError where a value was refused. The values stay out of the message: they name patients.
            raise DBAPIError.instance(
                compiled.text, None, error, errors, hide_parameters=True, dialect=connection.dialect
            ) from error
        return cursor

    def _for(self, dialect: Dialect) -> _Compiled:
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _compile(self._make(dialect.name), dialect)
        return compiled


def giving_id(statement: Any, dialect: str) -> Any:
    """An INSERT for :meth:`Prepared.insert`.

    The driver of SQLite knows the id of a row that was inserted. What ``RETURNING`` gives is kept in a table of its own
    and read by two calls more, at each of which another thread may take the interpreter.
    """
    return statement if dialect == "sqlite" else statement.returning(statement.table.c.id)


def is_among(column: Any, name: str, dialect: str) -> ColumnElement[bool]:
    """Condition that a column of integers or texts has one of the values in the list of this name.

    ``IN`` would write each value into the text, so that the statement were another one for each number of values.
    PostgreSQL must not count the values when it plans: a plan for one looks cheaper than the plan for any number that
    it would keep, so it would plan anew each time, which takes longer than to look up a row.
    """
    if dialect == "postgresql":
        kind = ARRAY(column.type)
        uncounted = func.array(select(func.unnest(bindparam(name, type_=kind))).scalar_subquery(), type_=kind)
        condition: ColumnElement[bool] = column == any_(uncounted)
        return condition
    listed = func.json_each(bindparam(name, type_=JSON)).table_valued("value")
    among: ColumnElement[bool] = column.in_(select(listed.c.value))
    return among


def _compile(statement: Any, dialect: Dialect) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect)
    binds = {name: bind for bind, name in compiled.bind_names.items()}
    names = compiled.positiontup if compiled.positional else tuple(binds)
    columns = tuple(getattr(statement, "exported_columns", ()))
    binders = tuple((name, _binder(binds[name].type, dialect)) for name in names)
    return _Compiled(
        text=str(compiled),
        constants={name: bind.value for name, bind in binds.items() if not bind.required},
        binders=binders,
        positional=compiled.positional,
        pick=_picker(names),
        converters=tuple((place, convert) for place, (_, convert) in enumerate(binders) if convert),
        row=_row(tuple(column.key for column in columns)),
        width=len(columns),
        readers=tuple(_readers((column.type for column in columns), dialect)),
    )


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Gives the values of these names; an itemgetter of a single one would give no tuple."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def _row(names: tuple[str, ...]) -> Callable[[Sequence[Any]], Any]:
    # What _make of a named tuple does, without a function in Python for each row.
    return partial(tuple.__new__, namedtuple("Row", names))


def _binder(kind: TypeEngine[Any], dialect: Dialect) -> Convert:
    if isinstance(kind, ARRAY):
        return _array_text  # the driver would look at the type of each number
    if isinstance(kind, UTCDateTime):
        return _moments(dialect)
    convert = kind.dialect_impl(dialect).bind_processor(dialect)
    if convert is not None and isinstance(kind, Enum):
        return lru_cache(_REMEMBERED, typed=True)(convert)  # there are few states
    return convert


def _moments(dialect: Dialect) -> Convert:
    """Converts moments: all columns share it, for one moment is written into ten of a received image."""
    converted = _MOMENTS.get(dialect.name)
    if converted is None:
        convert: Any = UTCDateTime().dialect_impl(dialect).bind_processor(dialect)
        converted = _MOMENTS[dialect.name] = lru_cache(_REMEMBERED, typed=True)(convert)
    return converted


def _array_text(numbers: Iterable[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def _readers(kinds: Iterable[TypeEngine[Any]], dialect: Dialect) -> Iterable[tuple[int, Callable[[Any], Any], Any]]:
    for place, kind in enumerate(kinds):
        if isinstance(kind, Float):
            continue  # both drivers give floats; SQLAlchemy would ask for the type that PostgreSQL names
        if isinstance(kind, Enum) and kind.enum_class is not None:
            states: dict[str | None, Any] = {None: None, **{state.value: state for state in kind.enum_class}}
            yield place, states.__getitem__, None
            continue
        reader = kind.dialect_impl(dialect).result_processor(dialect, None)
        if reader is not None:
            of_null = reader(None)
            yield place, reader, of_null if of_null in (None, ()) else _MADE_ANEW
