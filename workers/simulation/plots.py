"""Plots of a comparison: bars with intervals, and curves of the share that is reported over time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from models.plotting import blank, plot
from workers.simulation.turnaround_figures import Comparison, Estimate

# Okabe and Ito's colours, which are distinguishable with any colour vision; by due time comes last.
COLOURS = ("#595959", "#0072b2", "#e69f00", "#009e73")
_DASHES = ("-", "--", ":", "-")
_WIDTH = 8.5
_SLOWEST = 99
"""Percent of studies that the curves show: with the slowest the rest would be too narrow."""


@plot
def bars(title: str, groups: Mapping[str, Mapping[str, Estimate]]) -> tuple[Figure, str]:
    """Horizontal bars in minutes: a block for each group with a bar for each policy and its 95 % interval."""
    policies = list(dict.fromkeys(policy for block in groups.values() for policy in block))
    figure = blank(_WIDTH, 0.9 + 0.16 * (len(policies) + 1) * len(groups))
    axes, height = figure.subplots(), 1 / (len(policies) + 1)
    for number, (policy, colour) in enumerate(zip(policies, COLOURS, strict=False)):
        shown = [(place, block[policy]) for place, block in enumerate(groups.values()) if policy in block]
        means = np.array([one.mean for _, one in shown])
        errors = np.abs([[one.mean - one.low for _, one in shown], [one.high - one.mean for _, one in shown]])
        places = np.array([place for place, _ in shown]) + number * height
        drawn = axes.barh(places, means, height, xerr=errors, label=policy, color=colour, error_kw={"linewidth": 1.2})
        axes.bar_label(drawn, [f"{mean:.0f}" for mean in means], padding=3, fontsize="small")
    axes.set_yticks(np.arange(len(groups)) + height * (len(policies) - 1) / 2, list(groups))
    axes.invert_yaxis()
    axes.set(xlabel="minutes", xlim=(0, None))
    figure.legend(loc="outside upper left", ncols=4)
    return figure, f"{title}: bars in minutes with 95 % intervals, for each group and policy; the table has the figures"


@plot
def curves(title: str, comparison: Comparison) -> tuple[Figure, str]:
    """For each policy, the share of critical studies that are reported within a number of minutes."""
    figure = blank(_WIDTH, 3.6)
    axes = figure.subplots()
    for (policy, curve), colour, dashes in zip(comparison.curve.items(), COLOURS, _DASHES, strict=False):
        axes.plot(curve, np.arange(len(curve)), label=policy, color=colour, linestyle=dashes, linewidth=2)
    axes.set(xlabel="minutes", ylabel="reported", ylim=(0, 100))
    axes.set_xlim(0, 1.05 * max(curve[_SLOWEST] for curve in comparison.curve.values()))
    axes.yaxis.set_major_formatter("{x:.0f} %")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside upper left", ncols=4)
    return figure, title
