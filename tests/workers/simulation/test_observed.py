"""A scenario from what a node has seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from db.queries.turnaround import Observation
from tests.workers.simulation.rooms import scenario
from workers.simulation.observed import scenario_from
from workers.simulation.scenario import ScenarioError

BASE = scenario()


MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def _seen(**changes: Any) -> Observation:
    """Two weeks: each day 20 studies between 10 and 11 o'clock, of which two are positive."""
    arrivals = [MONDAY + timedelta(days=day, hours=10, minutes=3 * minute) for day in range(14) for minute in range(20)]
    values: dict[str, Any] = {
        "since": MONDAY,
        "until": MONDAY + timedelta(days=14),
        "arrivals": tuple(arrivals),
        "analysed": 270,
        "not_analysed": 10,
        "positives": {"pneumothorax": 54},
        "reports": (),
    }
    return Observation(**(values | changes))


def test_arrivals_and_findings() -> None:
    found = scenario_from(_seen(), BASE, UTC)
    assert found.arrivals.weekday[10] == found.arrivals.weekend[10] == 20
    assert sum(found.arrivals.weekday) == 20
    assert found.not_analysed == pytest.approx(10 / 280)
    # 54 of 270 positive at sensitivity and specificity of 0.9: (0.2 + 0.9 - 1) / 0.8.
    assert found.findings[0].prevalence == pytest.approx(0.125)
    assert found.readers == BASE.readers
    assert found.reading == BASE.reading
    assert "2026-01-05" in found.title


def test_hours_are_those_of_the_hospital_also_where_the_machine_s_clock_is_in_utc() -> None:
    found = scenario_from(_seen(), BASE, ZoneInfo("Asia/Kolkata"))
    assert (found.arrivals.weekday[15], found.arrivals.weekday[16]) == (10, 10), "10:00 UTC is 15:30 there"


def test_fewer_positives_than_the_specificity_allows_are_none() -> None:
    assert scenario_from(_seen(positives={}), BASE, UTC).findings[0].prevalence == 0


def test_readers_and_reading_times() -> None:
    reports = [
        (reader, MONDAY + timedelta(days=day, hours=11, minutes=4 * number))
        for day in range(14)
        for reader in ("a", "b")
        for number in range(5)
    ]
    reports += [("hl7", at) for _, at in reports]
    found = scenario_from(_seen(reports=tuple(sorted(reports, key=lambda one: one[1]))), BASE, UTC)
    assert found.readers.weekday[11] == 2
    assert sum(found.readers.weekday) == 2
    assert found.reading.mean_minutes == pytest.approx(4)
    assert found.reading.deviation_minutes == pytest.approx(0)


def test_too_little_is_told() -> None:
    with pytest.raises(ScenarioError, match="observed-days"):
        scenario_from(_seen(arrivals=()), BASE, UTC)
