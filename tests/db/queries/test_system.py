"""What the system page asks, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from db import deliveries
from db.database import Database
from db.queries.system import (
    DeliveryPace,
    DeliveryQueue,
    Growth,
    database_server,
    delivery_paces,
    delivery_queue,
    growth,
)
from db.states import DeliveryState
from tests.db.examples import HOUR, MINUTE, NOW, finished, received, result

DAY = timedelta(days=1)
ATTEMPT = timedelta(seconds=40)


def test_the_database_says_its_version_and_start(database: Database) -> None:
    server = database.read(database_server)
    assert server.version.startswith(("SQLite 3.", "PostgreSQL 1"))
    if server.version.startswith("PostgreSQL"):
        assert server.started_at
        assert server.started_at.tzinfo is UTC
        assert timedelta(0) < datetime.now(UTC) - server.started_at < DAY


def test_a_destination_without_deliveries_has_no_figures(database: Database) -> None:
    assert database.read(delivery_paces, NOW - DAY) == {}
    assert database.read(delivery_queue, "pacs") == DeliveryQueue(0, None, ())
    assert DeliveryPace(0, 0, ()).success is None


def test_attempts_count_whether_they_succeeded_or_not(database: Database) -> None:
    first, second, *others = finished(database)[1]
    later = NOW + ATTEMPT
    assert database.write(deliveries.claim, first, "w1", NOW, MINUTE) is not None
    assert database.write(deliveries.retry, first, "w1", "refused", NOW, ATTEMPT)
    assert database.write(deliveries.claim, first, "w1", later, MINUTE) is not None
    assert database.write(deliveries.sent, first, "w1", later)
    assert database.read(delivery_paces, NOW - DAY) == {"pacs": DeliveryPace(1, 2, (ATTEMPT.total_seconds(),))}
    assert database.write(deliveries.claim, second, "w1", NOW, MINUTE) is not None
    assert database.write(deliveries.retry, second, "w1", "refused", NOW, HOUR)
    assert database.read(delivery_paces, NOW - DAY)["pacs"].success == 1 / 3
    # What was sent before is not of this range; what waits was made before it, too.
    assert database.read(delivery_paces, NOW + HOUR) == {}
    queue = database.read(delivery_queue, "pacs")
    assert (queue.count, queue.oldest, len(queue.first)) == (len(others) + 1, NOW, len(others) + 1)
    assert (queue.first[0].id, queue.first[0].state, queue.first[0].attempts, queue.first[0].due_at) == (
        second,
        DeliveryState.PENDING,
        1,
        NOW + HOUR,
    )


def test_growth_is_bytes_a_day_of_files_and_results(database: Database) -> None:
    assert database.read(growth, NOW) == Growth(None, 0)
    finished(database)
    assert database.read(growth, NOW + HOUR).bytes_per_day is None
    number = received().byte_count + sum(result(kind, 1).byte_count for kind in ("seg", "sr"))
    assert database.read(growth, NOW + 2 * DAY).bytes_per_day == pytest.approx(number / 2)
    week = database.read(growth, NOW + 6 * DAY)
    assert week.bytes_per_day == pytest.approx(number / 6)
    assert week == Growth(week.bytes_per_day, 6)
    assert database.read(growth, NOW + 8 * DAY) == Growth(0, 8)
