"""The report of a simulation as one HTML file; its plots need the extra ``reports``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.triage import Triage
from models.templates import environment
from workers.simulation.plots import bars, curves
from workers.simulation.scenario import Scenario
from workers.simulation.simulation_report import SIMULATED, interval_text, minutes_of, summary_text
from workers.simulation.turnaround_figures import Comparison, Estimate, Figures

_TEMPLATES = environment(Path(__file__).parent / "templates")

_MEASURES: tuple[tuple[str, Callable[[Figures], Estimate]], ...] = (
    ("Mean", lambda one: one.mean),
    ("95th percentile", lambda one: one.p95),
    ("Longest", lambda one: one.longest),
)


def html_report(comparison: Comparison, scenario: Scenario, rules: Triage, command: str) -> str:
    """The whole HTML report; ``command`` is the command that made it."""
    return _TEMPLATES.get_template("report.html").render(
        notice=SIMULATED,
        scenario=scenario,
        comparison=comparison,
        summary=summary_text(comparison),
        rules={name.replace("_", " "): _text(value) for name, value in minutes_of(rules).items()},
        plots=_plots(comparison),
        measures=[name for name, _ in _MEASURES],
        rows=_rows(comparison),
        command=command,
    )


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else format(value, "g")


def _plots(comparison: Comparison) -> list[tuple[str, str]]:
    """Each plot with its heading."""
    parts = []
    for name, measure in _MEASURES:
        title = f"{name} turnaround by finding"
        groups = {
            group: {policy: measure(found[group]) for policy, found in comparison.figures.items() if group in found}
            for group in comparison.groups
        }
        parts.append((title, bars(title, groups)))
    title = f"Studies with {comparison.critical.replace('_', ' ')} that are reported within a number of minutes"
    return [*parts, (title, curves(title, comparison))]


def _rows(comparison: Comparison) -> list[tuple[str, str, list[str]]]:
    """Group, policy and figures of each line of the table."""
    return [
        (
            group,
            policy,
            [*(interval_text(measure(found[group])) for _, measure in _MEASURES), f"{found[group].extreme:.0f}"],
        )
        for group in comparison.groups
        for policy, found in comparison.figures.items()
        if group in found
    ]
