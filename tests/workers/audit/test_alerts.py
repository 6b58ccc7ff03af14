"""Security alerts are bounded: anybody who reaches a port can cause them, and entries of the trail stay."""

from __future__ import annotations

from workers.audit.alerts import MOST_AN_HOUR, AlertLimit


def test_the_first_of_a_kind_is_told_at_once_and_the_rest_once_an_hour() -> None:
    now = 100.0
    limit = AlertLimit(lambda: now)
    assert limit.admit("eve", 1) == 1
    assert limit.admit("eve", 5) == 0
    assert limit.admit("mallory", 2) == 2
    now += 3600
    assert limit.admit("eve", 1) == 6


def test_no_more_than_some_an_hour_are_told_whatever_is_made_up() -> None:
    now = 0.0
    limit = AlertLimit(lambda: now)
    assert sum(limit.admit(number, 1) for number in range(100_000)) == MOST_AN_HOUR
    assert len(limit._kinds) < 1000
    now += 3600
    assert limit.admit("a modality", 1) == 1
