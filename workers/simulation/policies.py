"""Policies: the orders in which a worklist may be read.

A policy returns the positions of a study over time: pairs of a minute and a sort key. The study with the smallest key
is read next. Policies differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from config.triage import Triage
from db.records import FindingRecord, StudyFacts
from db.states import Priority
from workers.simulation.cases import Case
from workers.simulation.scenario import Scenario
from workers.triage import decide

Key = tuple[float, float, int]
Position = tuple[float, Key]
Policy = Callable[[Case], tuple[Position, ...]]

FIRST_COME = "first come, first served"
PRIORITY = "priority"
MAXIMUM_WAIT = "priority, maximum wait"
DUE_TIME = "due time"

# Any Monday: only differences matter.
_MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def policies(scenario: Scenario, rules: Triage) -> dict[str, Policy]:
    """The policies to compare, by name. ``rules`` are the triage settings of the site."""

    def _first_come(case: Case) -> tuple[Position, ...]:
        return ((case.arrives, (0.0, case.arrives, case.number)),)

    def _priority(case: Case) -> tuple[Position, ...]:
        known_at = case.arrives + scenario.analysis_minutes
        priority = decide(_facts(case, waiting=False), rules, _MONDAY).priority
        unknown = (case.arrives, (-float(Priority.ROUTINE.rank), case.arrives, case.number))
        return (unknown, (known_at, (-float(priority.rank), case.arrives, case.number)))

    def _maximum_wait(case: Case) -> tuple[Position, ...]:
        highest = (-float(Priority.CRITICAL.rank), case.arrives, case.number)
        return (*_priority(case), (case.arrives + scenario.maximum_wait_minutes, highest))

    def _due(case: Case) -> tuple[Position, ...]:
        known_at = case.arrives + scenario.analysis_minutes
        before, after = (_due_key(case, rules, waiting=waiting) for waiting in (True, False))
        return ((case.arrives, before), (known_at, after))

    return {FIRST_COME: _first_come, PRIORITY: _priority, MAXIMUM_WAIT: _maximum_wait, DUE_TIME: _due}


def _due_key(case: Case, rules: Triage, *, waiting: bool) -> Key:
    """Sort key of the node's own worklist: ``due_at``, then the order of arrival."""
    facts = _facts(case, waiting=waiting)
    due_at = decide(facts, rules, facts.first_received_at).due_at
    return ((due_at - _MONDAY).total_seconds() / 60, case.arrives, case.number)


def _facts(case: Case, *, waiting: bool) -> StudyFacts:
    """The input of the node's triage: one image, before or after its analysis."""
    not_analysed = case.detected is None and not waiting
    return StudyFacts(
        study_id=case.number,
        first_received_at=_MONDAY + timedelta(minutes=case.arrives),
        stat=False,
        hospital_priority=None,
        findings=() if waiting or case.detected is None else tuple(map(_finding, sorted(case.detected))),
        jobs_waiting=int(waiting),
        jobs_done=int(not waiting),
        jobs_failed=0,
        images_not_eligible=0,
        images_not_analysed=int(not_analysed),
    )


def _finding(label: str) -> FindingRecord:
    return FindingRecord(label, "simulated", "1", None, 0.5, present=True, shadow=False)
