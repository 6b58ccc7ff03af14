"""Prepared statements mean what SQLAlchemy's own execution means: values, errors and transactions."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, bindparam, insert, select
from sqlalchemy.exc import IntegrityError, ProgrammingError, StatementError
from sqlalchemy.exc import OperationalError as DatabaseOperationalError

from db import tables
from db.engine import writing
from db.prepared_statements import Prepared
from tests.db.examples import NOW

MODEL: Any = tables.Model.__table__
INSERT = Prepared(
    lambda _: insert(MODEL).values({column.name: bindparam(column.name, type_=column.type) for column in MODEL.c})
)
FIND = Prepared(lambda _: select(MODEL).where(MODEL.c.name == bindparam("name")))
VALUES = {"name": "one", "version": "1.0", "first_used_at": NOW}


def test_values_are_converted_on_both_ways(engine: Engine) -> None:
    with writing(engine).begin() as connection:
        INSERT.run(connection, VALUES, VALUES | {"name": "two"})
    with engine.connect() as connection:
        assert FIND.first(connection, {"name": "one"})._asdict() == VALUES
        assert FIND.first(connection, {"name": "three"}) is None
        assert tuple(connection.execute(select(MODEL).where(MODEL.c.name == "two")).one()) == ("two", "1.0", NOW)


def test_it_is_part_of_the_transaction(engine: Engine) -> None:
    with writing(engine).begin() as connection:
        INSERT.run(connection, VALUES)
        connection.rollback()
    with engine.connect() as connection:
        assert FIND.rows(connection, {"name": "one"}) == []


def test_errors_are_those_of_sqlalchemy_and_name_no_value(engine: Engine) -> None:
    with pytest.raises(IntegrityError) as caught, writing(engine).begin() as connection:
        INSERT.run(connection, VALUES | {"name": "Miller^Ann"}, VALUES | {"name": "Miller^Ann"})
    if engine.dialect.name == "postgresql":
        assert getattr(caught.value.orig, "sqlstate", None) == "23505"
    assert "parameters" not in str(caught.value)


def test_a_value_that_its_column_refuses_is_a_statement_error(engine: Engine) -> None:
    with pytest.raises(StatementError), writing(engine).begin() as connection:
        INSERT.run(connection, VALUES | {"first_used_at": NOW.replace(tzinfo=None)})


def test_a_table_that_is_not_there(engine: Engine) -> None:
    with writing(engine).begin() as connection:
        connection.exec_driver_sql("DROP TABLE models")
        with pytest.raises((ProgrammingError, DatabaseOperationalError)):
            FIND.rows(connection, {"name": "one"})
        connection.rollback()
