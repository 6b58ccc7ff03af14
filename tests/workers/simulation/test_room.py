"""The reading room: small cases by hand, and laws of queues."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.triage import Triage
from tests.workers.simulation.rooms import case, scenario
from workers.simulation.cases import Case, draw_cases, is_counted
from workers.simulation.policies import DUE_TIME, FIRST_COME, MAXIMUM_WAIT, PRIORITY, policies
from workers.simulation.reading_room import turnarounds
from workers.simulation.scenario import Scenario

RULES = Triage()
ROOM = scenario()


def _turnarounds(policy: str, *cases: Case, room: Scenario = ROOM, rules: Triage = RULES) -> list[float]:
    return [round(one, 6) for one in turnarounds(cases, policies(room, rules)[policy], room)]


def test_one_after_the_other() -> None:
    assert _turnarounds(FIRST_COME, case(0, 0), case(1, 4), case(2, 30)) == [10, 16, 10]


def test_the_critical_one_goes_before_those_that_wait() -> None:
    waiting = (case(0, 0), case(1, 1), case(2, 2, 10.0, "pneumothorax"))
    assert _turnarounds(FIRST_COME, *waiting) == [10, 19, 28]
    assert _turnarounds(PRIORITY, *waiting) == [10, 29, 18]
    assert _turnarounds(DUE_TIME, *waiting) == [10, 29, 18]


def test_nothing_is_known_before_the_analysis() -> None:
    slow = scenario(analysis_minutes=15.0)
    waiting = (case(0, 0), case(1, 1), case(2, 2, 10.0, "pneumothorax"))
    assert _turnarounds(PRIORITY, *waiting, room=slow) == [10, 19, 28]


def test_a_long_wait_goes_first_under_the_maximum_wait_and_under_due_times() -> None:
    rules = Triage(critical_minutes=10, routine_minutes=60)
    critical = [case(number, number * 10 - 15.0, 10.0, "pneumothorax") for number in range(2, 20)]
    cases = (case(0, 0), case(1, 1), *critical)
    assert _turnarounds(PRIORITY, *cases, rules=rules)[1] == 189 + 10
    assert _turnarounds(MAXIMUM_WAIT, *cases, rules=rules)[1] < 80
    assert _turnarounds(DUE_TIME, *cases, rules=rules)[1] < 80


def test_two_readers_work_at_once_and_one_goes_home() -> None:
    hours = [2.0] + [1.0] * 23
    room = scenario(readers={"weekday": hours, "weekend": hours})
    # Both read until after the full hour; what came in the meantime waits for the one who stays.
    assert _turnarounds(FIRST_COME, case(0, 50, 20), case(1, 50, 30), case(2, 61, 5), room=room) == [20, 30, 24]


def test_nobody_reads_at_night() -> None:
    hours = [0.0] * 8 + [1.0] * 16
    room = scenario(readers={"weekday": hours, "weekend": hours})
    assert _turnarounds(FIRST_COME, case(0, 60), case(1, 70), room=room) == [430, 430]


def test_other_work_keeps_a_reader_away() -> None:
    half = {"weekday": [0.5] * 24, "weekend": [0.5] * 24}
    # Mean reading time 2: after each study two minutes of other work where half of the time is for this list.
    assert _turnarounds(FIRST_COME, case(0, 0), case(1, 0), room=scenario(attention=half)) == [10, 22]


rooms = st.lists(
    st.tuples(st.floats(0, 3000), st.floats(0.5, 30), st.booleans(), st.booleans()), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(rooms, st.sampled_from([FIRST_COME, PRIORITY, MAXIMUM_WAIT, DUE_TIME]), st.floats(1, 500))
def test_everything_is_read_once_and_no_reader_is_idle_while_something_waits(
    drawn: list[tuple[float, float, bool, bool]], policy: str, routine: float
) -> None:
    cases = [
        case(number, arrives, minutes, *(["pneumothorax"] if positive else []), **({} if fit else {"detected": None}))
        for number, (arrives, minutes, positive, fit) in enumerate(sorted(drawn))
    ]
    rules = Triage(routine_minutes=routine)
    found = turnarounds(cases, policies(ROOM, rules)[policy], ROOM)
    first = turnarounds(cases, policies(ROOM, rules)[FIRST_COME], ROOM)
    assert all(minutes >= one.minutes - 1e-6 for minutes, one in zip(found, cases, strict=True))
    # One reader without other work is busy at the same times under every order (work conservation).
    ends = sorted(one.arrives + minutes for one, minutes in zip(cases, found, strict=True))
    assert ends[-1] == pytest.approx(max(one.arrives + minutes for one, minutes in zip(cases, first, strict=True)))


def test_a_queue_with_one_reader_waits_as_the_formula_says() -> None:
    """M/G/1, Pollaczek and Khinchine: mean wait = rate * E[S^2] / (2 * (1 - load))."""
    room = scenario(
        days=60,
        arrivals={"weekday": [18.0] * 24, "weekend": [18.0] * 24},
        reading={"mean_minutes": 2.0, "deviation_minutes": 1.0},
    )
    waits: list[float] = []
    for generator in np.random.default_rng(3).spawn(4):
        cases = draw_cases(room, generator)
        minutes = turnarounds(cases, policies(room, RULES)[FIRST_COME], room)
        waits.extend(one - each.minutes for one, each in zip(minutes, cases, strict=True))
    rate, second_moment = 18 / 60, 2.0**2 + 1.0**2
    assert np.mean(waits) == pytest.approx(rate * second_moment / (2 * (1 - rate * 2)), rel=0.1)


def test_drawn_cases_are_as_the_scenario_says() -> None:
    room = scenario(days=200, warm_up_days=2, not_analysed=0.1)
    cases = draw_cases(room, np.random.default_rng(1))
    positive = [one for one in cases if one.shows]
    assert len(cases) / (202 * 24) == pytest.approx(6, rel=0.03)
    assert len(positive) / len(cases) == pytest.approx(0.2, rel=0.05)
    assert np.mean([one.detected is None for one in cases]) == pytest.approx(0.1, rel=0.1)
    assert np.mean([bool(one.detected) for one in positive if one.detected is not None]) == pytest.approx(0.9, rel=0.03)
    assert np.mean(
        [bool(one.detected) for one in cases if not one.shows and one.detected is not None]
    ) == pytest.approx(0.1, rel=0.1)
    assert np.mean([one.minutes for one in cases]) == pytest.approx(2.0, rel=0.03)
    assert np.std([one.minutes for one in cases]) == pytest.approx(1.0, rel=0.05)
    assert [one.number for one in cases] == list(range(len(cases)))
    assert not is_counted(cases[0], room)
    assert is_counted(cases[-1], room)
