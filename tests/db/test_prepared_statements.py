"""Prepared statements mean what SQLAlchemy's own execution means: values, errors and transactions."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, bindparam, cast, insert, null, select, union_all
from sqlalchemy.exc import IntegrityError, ProgrammingError, StatementError
from sqlalchemy.exc import OperationalError as DatabaseOperationalError

from db import tables
from db.database import Database
from db.engine import writing
from db.prepared_statements import Prepared, is_among
from db.queries.worklist_rows import rows_of
from db.tables import NAMED, NAMES, UTCDateTime
from tests.db.examples import NOW, record, study_of

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


def test_a_statement_brings_values_with_it(engine: Engine) -> None:
    named = Prepared(
        lambda _: select(MODEL.c.name).where(MODEL.c.name != "two", MODEL.c.version == bindparam("version"))
    )
    with writing(engine).begin() as connection:
        INSERT.run(connection, VALUES, VALUES | {"name": "two"})
        assert [row.name for row in named.rows(connection, {"version": "1.0"})] == ["one"]


def test_a_list_of_any_length_is_one_statement(database: Database, engine: Engine) -> None:
    for study in (1, 2, 3):
        record(database, study=study)
    row_id = tables.Study.__table__.c.id
    among = Prepared(lambda dialect: select(row_id).where(is_among(row_id, "ids", dialect)).order_by(row_id))
    with engine.connect() as connection:
        for ids in ([], [2], [3, 1], [3, 99, 2, 1]):
            assert [row.id for row in among.rows(connection, {"ids": ids})] == sorted({*ids} - {99})


def test_postgresql_keeps_the_plan_for_a_list_of_one(database: Database, engine: Engine) -> None:
    """It planned anew each time, for one row looked cheaper than the plan for any number of rows."""
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite makes no plan for certain values")
    record(database)
    study_id = study_of(database)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")  # as with many rows
        for _ in range(20):
            assert len(rows_of(connection, [study_id])) == 1
        kept = dict(connection.exec_driver_sql("SELECT statement, generic_plans FROM pg_prepared_statements").all())
    plans = [
        generic for statement, generic in kept.items() if "FROM studies" in statement or "FROM findings" in statement
    ]
    assert len(plans) == 2
    assert all(plans), kept


def test_what_is_null_is_converted_and_no_dictionary_is_shared(engine: Engine) -> None:
    nothing = [
        cast(null(), kind).label(name) for name, kind in (("names", NAMES), ("named", NAMED), ("at", UTCDateTime))
    ]
    with engine.connect() as connection:
        once, twice = (Prepared(lambda _: union_all(select(*nothing), select(*nothing)))).rows(connection, {})
    assert tuple(once) == tuple(twice) == ((), {}, None)
    assert once.named is not twice.named


def test_several_reads_are_of_one_state_of_the_database(engine: Engine) -> None:
    with engine.connect() as connection:
        assert FIND.rows(connection, {"name": "one"}) == []
        assert connection.in_transaction()
        if engine.dialect.name == "sqlite":
            with writing(engine).begin() as other:
                INSERT.run(other, VALUES)
            assert FIND.rows(connection, {"name": "one"}) == []


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
