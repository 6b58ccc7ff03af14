"""The reading room: a discrete-event simulation of readers who always read the first study of the list.

Events are a new position of a study in the list, a reader who becomes free, and the full hour, when the number of
readers on duty may change. A reader who has started a study finishes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from workers.simulation.cases import Case
from workers.simulation.policies import Key, Policy
from workers.simulation.scenario import Scenario

_HOUR = 60.0


def turnarounds(cases: Sequence[Case], policy: Policy, scenario: Scenario) -> tuple[float, ...]:
    """Minutes from arrival to report of each of ``cases`` when they are read under ``policy``."""
    room = _Room(cases, scenario)
    events = sorted((minute, case.number, key) for case in cases for minute, key in policy(case))
    for minute, number, key in events:
        room.simulate_until(minute)
        room.set_position(number, key)
        room.assign(minute)
    while room.unreported:
        room.simulate_until(room.now + _HOUR)
        room.assign(room.now)
    return tuple(reported - case.arrives for reported, case in zip(room.reported, cases, strict=True))


class _Room:
    """The list and the busy readers; ``now`` never decreases."""

    def __init__(self, cases: Sequence[Case], scenario: Scenario) -> None:
        self._cases = cases
        self._scenario = scenario
        self._list: list[tuple[Key, int]] = []
        self._positions: dict[int, Key] = {}
        self._back_at: list[float] = []
        self.now = 0.0
        self.unreported = len(cases)
        self.reported = [0.0] * len(cases)

    def set_position(self, number: int, key: Key) -> None:
        """Set the position of a study that is not being read; it replaces an earlier position."""
        if not self.reported[number]:
            self._positions[number] = key
            heappush(self._list, (key, number))

    def simulate_until(self, minute: float) -> None:
        """Simulate the readers up to ``minute``."""
        while True:
            step = min(self._back_at[0] if self._back_at else minute, self._next_hour(), minute)
            self.now = step
            while self._back_at and self._back_at[0] <= step:
                heappop(self._back_at)
            if step == minute:
                return
            self.assign(step)

    def _next_hour(self) -> float:
        return (self.now // _HOUR + 1) * _HOUR

    def assign(self, minute: float) -> None:
        """Assign the first study of the list to each free reader."""
        on_duty = int(self._scenario.readers.at(minute))
        while len(self._back_at) < on_duty and (number := self._first()) is not None:
            self._read(number, minute)

    def _first(self) -> int | None:
        while self._list:
            key, number = heappop(self._list)
            if self._positions.get(number) == key:
                del self._positions[number]
                return number
        return None

    def _read(self, number: int, minute: float) -> None:
        case = self._cases[number]
        self.reported[number] = minute + case.minutes
        self.unreported -= 1
        share = self._scenario.attention.at(minute)
        rest = case.rest * self._scenario.reading.mean_minutes * (1 / share - 1)
        heappush(self._back_at, self.reported[number] + rest)
