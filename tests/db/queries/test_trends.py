"""Figures an interval: the same on both databases, and read from an index."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from db.database import Database
from db.queries import trends as queries
from db.queries.trends import Intervals, trends
from tests.db.examples import HOUR, MINUTE, NOW, SECOND
from tests.db.test_views import analysed

INDEXES = {
    "instances": "ix_instances_received_at",
    "jobs": "ix_jobs_finished_at",
    "deliveries": "ix_deliveries_sent_at",
}
HOURS = Intervals(NOW - 2 * HOUR, HOUR, 4)


def test_each_interval_has_what_happened_in_it(database: Database) -> None:
    analysed(database, 1, 30 * MINUTE - SECOND)
    analysed(database, 2, HOUR + 90 * SECOND)
    found = database.read(trends, HOURS)
    assert found.images == (0, 0, 2, 0), "the first moment of an interval belongs to it"
    assert (found.analysed, found.failed) == ((0, 0, 1, 1), (0, 0, 0, 0))
    assert found.waited == ((), (), (1799.0,), (3690.0,))
    assert found.sent == ((), (), (1.0, 1.0), (1.0, 1.0))


def test_nothing_outside_of_the_span_counts(database: Database) -> None:
    analysed(database, 1, MINUTE)
    found = database.read(trends, Intervals(NOW + HOUR, timedelta(minutes=2), 30))
    assert sum(found.images) == sum(found.analysed) == sum(map(len, found.sent)) == 0


def test_latencies_of_many_jobs_are_those_of_a_sample(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "SAMPLE", 2)
    for study in range(1, 6):
        analysed(database, study, MINUTE)
    found = database.read(trends, HOURS)
    assert sum(found.analysed) == 5
    assert 1 <= sum(map(len, found.waited)) <= 2


def test_no_query_reads_a_whole_table(engine: Engine) -> None:
    statements: list[tuple[str, Any]] = []

    def remember(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    with engine.connect() as connection:
        event.listen(engine, "before_cursor_execute", remember)
        trends(connection, HOURS)
        event.remove(engine, "before_cursor_execute", remember)
        assert len(statements) == 5
        explain = "EXPLAIN"
        if engine.dialect.name == "sqlite":
            explain = "EXPLAIN QUERY PLAN"
        else:
            connection.execute(text("SET enable_seqscan = off"))  # the tables are empty
        for statement, parameters in statements:
            plan = " ".join(map(str, connection.exec_driver_sql(f"{explain} {statement}", parameters).all()))
            (index,) = (name for table, name in INDEXES.items() if f"FROM {table}" in statement)
            assert index in plan, plan
