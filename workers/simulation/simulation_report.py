"""The report of a simulation: figures as JSON, and a self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from html import escape
from typing import Any

from config.settings import Triage
from workers.simulation.plots import bars, curves, legend
from workers.simulation.policies import DUE_TIME, FIRST_COME, PRIORITY
from workers.simulation.scenario import Scenario
from workers.simulation.turnaround_figures import ALL, Comparison, Estimate, Figures

NOTICE = "Research use only. Pleura is not a medical device. Every figure is simulated."

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}
h1{line-height:1.2}svg{width:100%;height:auto;font:12px system-ui,sans-serif}.value{font-size:11px}
table{border-collapse:collapse;width:100%}th,td{padding:.25rem .6rem;border-bottom:1px solid #bbb;text-align:right}
th:first-child,td:first-child,th.left{text-align:left}.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;
gap:.3rem 1.5rem}.swatch{display:inline-block;width:1em;height:1em;margin-right:.4em;vertical-align:-.1em}
.notice{border-left:.3rem solid #b35900;padding-left:.8rem}pre{background:#f3f3f3;padding:1rem;overflow:auto}
"""

_MEASURES: tuple[tuple[str, Callable[[Figures], Estimate]], ...] = (
    ("Mean", lambda one: one.mean),
    ("95th percentile", lambda one: one.p95),
    ("Longest", lambda one: one.longest),
)


def metrics_json(comparison: Comparison, scenario: Scenario, rules: Triage) -> str:
    """All figures with the scenario and the settings, as JSON."""
    content: dict[str, Any] = {
        "notice": NOTICE,
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


def html_report(comparison: Comparison, scenario: Scenario, rules: Triage, command: str) -> str:
    """The whole HTML report; ``command`` is the command that made it."""
    limits = "; ".join(
        f"{name.replace('_', ' ')}: {', '.join(value) if isinstance(value, tuple) else format(value, 'g')}"
        for name, value in minutes_of(rules).items()
    )
    sections = [
        f"<h1>Reading room: {escape(scenario.title)}</h1>",
        f'<p class="notice">{NOTICE}</p>',
        f"<p>{comparison.replications} replications of {scenario.days} days, seed {comparison.seed}. "
        "Every policy reads the same studies. Turnaround runs from the arrival of a study to its report.</p>",
        f"<p>{escape(summary_text(comparison))}</p>",
        f"<p>Rules of the policy by due time: {escape(limits)}.</p>",
        legend(tuple(comparison.figures)),
        *_plots(comparison),
        "<h2>All figures</h2>",
        _table(comparison),
        "<h2>Scenario</h2>",
        f'<pre tabindex="0">{escape(scenario.model_dump_json(indent=1))}</pre>',
        f"<p>Made by <code>{escape(command)}</code></p>",
    ]
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Pleura: reading room</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _plots(comparison: Comparison) -> list[str]:
    parts = []
    for name, measure in _MEASURES:
        title = f"{name} turnaround by finding"
        groups = {
            group: {policy: measure(found[group]) for policy, found in comparison.figures.items() if group in found}
            for group in comparison.groups
        }
        parts += [f"<h2>{title}</h2>", bars(title, groups)]
    title = f"Studies with {comparison.critical.replace('_', ' ')} that are reported within a number of minutes"
    return [*parts, f"<h2>{title}</h2>", curves(title, comparison)]


def _table(comparison: Comparison) -> str:
    rows = []
    for group in comparison.groups:
        for policy, found in comparison.figures.items():
            if group in found:
                cells = "".join(f"<td>{interval_text(measure(found[group]))}</td>" for _, measure in _MEASURES)
                rows.append(
                    f"<tr><td>{escape(group)}</td><th scope='row' class='left'>{escape(policy)}</th>{cells}"
                    f"<td>{found[group].extreme:.0f}</td></tr>"
                )
    heads = "".join(f"<th scope='col'>{name}</th>" for name, _ in _MEASURES)
    return (
        "<table><thead><tr><th scope='col'>Studies</th><th scope='col' class='left'>Policy</th>"
        f"{heads}<th scope='col'>Longest of all</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "<p>Minutes; mean over the replications with its 95 % interval.</p>"
    )


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
