"""Figures for pages and monitors: what may still move is exact, what is complete is not counted at each call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from db.database import Database
from db.queries.statistics import REMEMBERED_SECONDS, TABLE_REST, Remembered, Statistics
from tests.db.examples import HOUR, NOW, finished, record
from tests.db.recorded import queue_counts


@contextmanager
def statements(engine: Engine) -> Iterator[list[tuple[str, str]]]:
    """What is asked of the database in the block: statement and values."""
    asked: list[tuple[str, str]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        asked.append((statement, str(values)))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_counts_are_those_of_the_worklist(database: Database, engine: Engine) -> None:
    finished(database, study=1)
    record(database, study=2)
    statistics = Statistics(engine)
    assert statistics.queue_counts() == database.read(queue_counts)
    assert statistics.destinations()["pacs"].counts == {"pending": 2}
    assert [row.findings for row in statistics.models()] == [1]
    assert len(statistics.arrivals(NOW - HOUR)) == 2
    assert statistics.arrivals(NOW + HOUR) == ()
    assert len(statistics.arrivals(NOW - HOUR, limit=1)) == 1
    assert statistics.notifications(["email"]) == {"email": {}}


def test_what_has_come_to_rest_is_not_counted_at_each_call(database: Database, engine: Engine) -> None:
    seconds = [0.0]
    statistics = Statistics(engine, lambda: seconds[0])
    finished(database, study=1)

    def look() -> None:
        statistics.queue_counts()
        statistics.destinations()
        statistics.models()
        statistics.notifications(["email"])
        statistics.unreported()

    look()
    finished(database, study=2)
    record(database, study=3)
    with statements(engine) as asked:
        look()
    whole = [
        text
        for text, values in asked
        if "findings" in text or "studies" in text or "done" in values or "sent" in values
    ]
    assert whole == []
    assert statistics.queue_counts() == {"jobs.queued": 1, "jobs.done": 1, "deliveries.pending": 4}
    seconds[0] = REMEMBERED_SECONDS
    assert statistics.queue_counts() == database.read(queue_counts)
    assert [row.findings for row in statistics.models()] == [2]


def test_what_takes_long_to_count_is_counted_seldom() -> None:
    """The findings of a million studies took 2.4 s of processor time, 13 on the clock, in each minute."""
    seconds, counted = [0.0], [0]

    def count() -> int:
        seconds[0] += 13
        counted[0] += 1
        return counted[0]

    figure = Remembered(count, lambda: seconds[0], rest=TABLE_REST)
    assert figure.get() == 1
    seconds[0] = 20 * 13 - 1
    assert figure.get() == 1
    seconds[0] = 20 * 13
    assert figure.get() == 2
