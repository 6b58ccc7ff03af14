"""The studies of one replication, drawn once and then read under every policy."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, log1p, sqrt

import numpy as np

from workers.simulation.scenario import MINUTES_PER_DAY, Reading, Scenario


@dataclass(frozen=True, slots=True)
class Case:
    """One study. Times are minutes; ``arrives`` counts from Monday, 0:00 of the first week.

    ``shows`` are the true findings, ``detected`` those of the algorithm (None: not analysed). ``rest`` is a random
    factor, 1 on average, for the reader's other work afterwards. It belongs to the study, so that it is the same under
    all policies.
    """

    number: int
    arrives: float
    minutes: float
    rest: float
    shows: frozenset[str]
    detected: frozenset[str] | None


def draw_cases(scenario: Scenario, generator: np.random.Generator) -> tuple[Case, ...]:
    """Draw the studies of one replication in the order in which they arrive."""
    arrives = _arrivals(scenario, generator)
    count = len(arrives)
    minutes = _reading_times(scenario.reading, count, generator)
    rests = generator.uniform(0.5, 1.5, count)
    not_analysed = generator.random(count) < scenario.not_analysed
    chances = generator.random((2, len(scenario.findings), count))
    shows: list[set[str]] = [set() for _ in range(count)]
    detected: list[set[str]] = [set() for _ in range(count)]
    for index, finding in enumerate(scenario.findings):
        present = chances[0, index] < finding.prevalence
        seen = chances[1, index] < np.where(present, finding.sensitivity, 1 - finding.specificity)
        for number in np.flatnonzero(present):
            shows[number].add(finding.label)
        for number in np.flatnonzero(seen):
            detected[number].add(finding.label)
    return tuple(
        Case(
            number,
            float(arrives[number]),
            float(minutes[number]),
            float(rests[number]),
            frozenset(shows[number]),
            None if not_analysed[number] else frozenset(detected[number]),
        )
        for number in range(count)
    )


def _arrivals(scenario: Scenario, generator: np.random.Generator) -> np.ndarray:
    """Draw a Poisson process whose rate is constant within each hour."""
    hours = np.arange((scenario.warm_up_days + scenario.days) * 24)
    rates = np.array([scenario.arrivals.at(hour * 60.0) for hour in hours])
    counts = generator.poisson(rates)
    starts = np.repeat(hours * 60.0, counts)
    return np.sort(starts + generator.random(len(starts)) * 60.0)


def _reading_times(reading: Reading, count: int, generator: np.random.Generator) -> np.ndarray:
    spread = log1p((reading.deviation_minutes / reading.mean_minutes) ** 2)
    return generator.lognormal(log(reading.mean_minutes) - spread / 2, sqrt(spread), count)


def is_counted(case: Case, scenario: Scenario) -> bool:
    """Whether a case arrives after the warm-up days."""
    return case.arrives >= scenario.warm_up_days * MINUTES_PER_DAY
