"""A comparison of policies in many replications; in each of them all policies get the same studies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from config.triage import Triage
from workers.simulation.cases import Case, draw_cases, is_counted
from workers.simulation.policies import policies
from workers.simulation.reading_room import turnarounds
from workers.simulation.scenario import Scenario, ScenarioError
from workers.simulation.turnaround_figures import ALL, MISSED, NONE, Comparison, Figures, figures_of

Progress = Callable[[int, int], None]
"""Called with the number of finished simulations and their total number."""

_Sample = dict[str, dict[str, list[np.ndarray]]]


def compare(scenario: Scenario, rules: Triage, *, seed: int, replications: int, progress: Progress) -> Comparison:
    """Simulate the studies of ``replications`` replications under each policy.

    Raises:
        ScenarioError: The readers cannot keep up, or there is no study with a critical finding of ``rules``.
    """
    if scenario.load >= 1:
        raise ScenarioError(f"the readers cannot keep up: the load is {scenario.load:.0%} of their capacity")
    labels = [finding.label for finding in scenario.findings]
    critical = [label for label in labels if label in rules.critical]
    if not critical:
        raise ScenarioError("no finding of the scenario is in triage.critical; there is nothing to prioritise")
    compared = policies(scenario, rules)
    sample: _Sample = {name: defaultdict(list) for name in compared}
    generators = np.random.default_rng(seed).spawn(replications)
    for number, generator in enumerate(generators):
        cases = draw_cases(scenario, generator)
        groups = _groups(cases, scenario, labels, critical[0])
        for place, (name, policy) in enumerate(compared.items()):
            minutes = np.array(turnarounds(cases, policy, scenario))
            for group, members in groups.items():
                sample[name][group].append(minutes[members])
            progress(number * len(compared) + place + 1, replications * len(compared))
    return _comparison(sample, critical[0], seed)


def _groups(cases: Sequence[Case], scenario: Scenario, labels: Sequence[str], critical: str) -> dict[str, np.ndarray]:
    """Numbers of the cases of each group: by the true findings, and the critical ones that were missed."""
    counted = [case for case in cases if is_counted(case, scenario)]
    missed = [case for case in counted if critical in case.shows and critical not in (case.detected or ())]
    groups = {label: [case for case in counted if label in case.shows] for label in labels}
    groups |= {f"{critical}, {MISSED}": missed}
    groups |= {NONE: [case for case in counted if not case.shows], ALL: counted}
    return {name: np.array([case.number for case in members], dtype=int) for name, members in groups.items()}


def _comparison(sample: _Sample, critical: str, seed: int) -> Comparison:
    found: dict[str, dict[str, Figures]] = {}
    for name, groups in sample.items():
        filled = {group: [one for one in parts if one.size] for group, parts in groups.items()}
        found[name] = {group: figures_of(parts) for group, parts in filled.items() if parts}
    first = next(iter(sample.values()))
    if critical not in next(iter(found.values())):
        raise ScenarioError(f"no study had {critical}; simulate more days or more studies")
    percents = np.arange(101)
    return Comparison(
        replications=len(first[ALL]),
        seed=seed,
        groups=tuple(next(iter(found.values()))),
        critical=critical,
        figures=found,
        studies={group: sum(one.size for one in parts) for group, parts in first.items()},
        curve={
            name: tuple(float(one) for one in np.percentile(np.concatenate(groups[critical]), percents))
            for name, groups in sample.items()
        },
    )
