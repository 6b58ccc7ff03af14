"""Figures an interval: the same on both databases, and read from an index."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from db.database import Database
from db.queries import trends as queries
from db.queries.metrics import ended_jobs
from db.queries.statistics import Statistics
from db.queries.trends import Intervals, trends
from tests.db.examples import HOUR, MINUTE, NOW, SECOND
from tests.db.test_views import analysed
from tests.rules import NO_RULES

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


@pytest.mark.parametrize(
    ("ask", "number"),
    [
        (lambda engine: Database(engine, NO_RULES).read(trends, HOURS), 5),
        (lambda engine: Database(engine, NO_RULES).read(ended_jobs, NOW), 1),
        (lambda engine: Statistics(engine).finished_jobs(NOW), 1),
    ],
    ids=["trends", "metrics", "statistics"],
)
def test_no_query_reads_a_whole_table(engine: Engine, ask: Callable[[Engine], object], number: int) -> None:
    statements: list[tuple[str, Any]] = []

    def remember(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", remember)
    ask(engine)
    event.remove(engine, "before_cursor_execute", remember)
    asked = [one for one in statements if any(f"FROM {table}" in one[0] for table in INDEXES)]
    assert len(asked) == number
    with engine.connect() as connection:
        explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET enable_seqscan = off"))  # the tables are empty
        for statement, parameters in asked:
            plan = " ".join(map(str, connection.exec_driver_sql(f"{explain} {statement}", parameters).all()))
            (index,) = (name for table, name in INDEXES.items() if f"FROM {table}" in statement)
            assert index in plan, plan
