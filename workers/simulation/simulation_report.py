"""The report of a simulation in figures and words; :mod:`workers.simulation.simulation_page` makes the HTML."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from config.notice import NOTICE
from config.triage import Triage
from workers.simulation.policies import DUE_TIME, FIRST_COME, PRIORITY
from workers.simulation.scenario import Scenario
from workers.simulation.turnaround_figures import ALL, Comparison, Estimate

SIMULATED = f"{NOTICE} Every figure is simulated."


def metrics_json(comparison: Comparison, scenario: Scenario, rules: Triage) -> str:
    """All figures with the scenario and the settings, as JSON."""
    content: dict[str, Any] = {
        "notice": SIMULATED,
        "unit": "minutes from arrival to report",
        "seed": comparison.seed,
        "replications": comparison.replications,
        "rules": minutes_of(rules),
        "scenario": scenario.model_dump(mode="json"),
        "studies": dict(comparison.studies),
        "policies": {
            policy: {group: asdict(figures) for group, figures in groups.items()}
            for policy, groups in comparison.figures.items()
        },
    }
    return json.dumps(content, indent=2) + "\n"


def minutes_of(rules: Triage) -> dict[str, Any]:
    """The settings of ``rules`` that decide the order."""
    names = ("critical", "urgent", "critical_minutes", "urgent_finding_minutes", "routine_minutes")
    return {name: getattr(rules, name) for name in (*names, "not_analysed_minutes")}


def summary_text(comparison: Comparison) -> str:
    """The two main figures of the policy by due time, in a sentence."""
    found, critical = comparison.figures, comparison.critical
    sooner = found[DUE_TIME][critical].mean.mean / found[PRIORITY][critical].mean.mean
    longer = found[DUE_TIME][ALL].longest.mean / found[FIRST_COME][ALL].longest.mean
    plain = found[PRIORITY][ALL].longest.mean / found[FIRST_COME][ALL].longest.mean
    return (
        f"By due time the mean turnaround of studies with {critical.replace('_', ' ')} is {sooner:.2f} times that of "
        f"plain priority, and the longest wait is {longer:.2f} times that of first come, first served "
        f"(plain priority: {plain:.2f})."
    )


def interval_text(one: Estimate) -> str:
    """An estimate with its interval: ``35.6 (33.1 to 38.1)``."""
    return f"{one.mean:.1f} ({one.low:.1f} to {one.high:.1f})"
