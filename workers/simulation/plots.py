"""Plots of a comparison as SVG text: bars with intervals, and curves of the share that is reported over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10

from models.svg import svg
from workers.simulation.turnaround_figures import Comparison, Estimate

# Okabe and Ito's colours, which are distinguishable with any colour vision.
COLOURS = ("#595959", "#0072b2", "#e69f00", "#009e73")
_DASHES = ("", 'stroke-dasharray="7 3"', 'stroke-dasharray="2 3"', "")
_WIDTH, _LEFT, _RIGHT, _TOP = 760, 210, 60, 10
_BAR, _GAP = 14, 14
_PLOT = _WIDTH - _LEFT - _RIGHT


def bars(title: str, groups: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Horizontal bars in minutes: a block for each group with a bar for each policy and its 95 % interval."""
    longest = max(one.high for block in groups.values() for one in block.values())
    scale = _PLOT / nice_top(longest)
    parts: list[str] = []
    y = float(_TOP)
    for name, block in groups.items():
        middle = y + len(block) * _BAR / 2 + 4
        parts.append(f'<text x="{_LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>')
        for colour, (policy, one) in zip(COLOURS, block.items(), strict=False):
            parts.append(_bar(y, colour, f"{name}, {policy}", one, scale))
            y += _BAR
        y += _GAP
    parts.extend(_minutes_axis(nice_top(longest), y))
    return svg(title, _WIDTH, y + 34, parts, scaled=True)


def _bar(y: float, colour: str, name: str, one: Estimate, scale: float) -> str:
    end, low, high = (_LEFT + max(value, 0.0) * scale for value in (one.mean, one.low, one.high))
    middle = y + _BAR / 2 - 1
    tooltip = f"{name}: {one.mean:.1f} min (95 % interval {one.low:.1f} to {one.high:.1f})"
    return (
        f'<g><title>{escape(tooltip)}</title><rect x="{_LEFT}" y="{y:.1f}" width="{end - _LEFT:.1f}" '
        f'height="{_BAR - 2}" fill="{colour}"/>'
        f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="#000" stroke-width="1.2"/>'
        f'<text x="{high + 5:.1f}" y="{middle + 4:.1f}" class="value">{one.mean:.0f}</text></g>'
    )


def curves(title: str, comparison: Comparison) -> str:
    """For each policy, the share of critical studies that are reported within a number of minutes."""
    height = 260
    # With the longest percent the rest of the curve would be too narrow.
    top = nice_top(max(curve[99] for curve in comparison.curve.values()))
    parts = []
    for colour, dashes, curve in zip(COLOURS, _DASHES, comparison.curve.values(), strict=False):
        points = " ".join(
            f"{_LEFT + min(minutes, top) / top * _PLOT:.1f},{_TOP + height * (1 - percent / 100):.1f}"
            for percent, minutes in enumerate(curve)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" {dashes}/>')
    for percent in (0, 25, 50, 75, 100):
        y = _TOP + height * (1 - percent / 100)
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    parts.extend(_minutes_axis(top, _TOP + height))
    return svg(title, _WIDTH, _TOP + height + 40, parts, scaled=True)


def legend(policies: Sequence[str]) -> str:
    """The legend of colours and policies, as HTML."""
    items = (
        f'<li><span class="swatch" style="background:{colour}"></span>{escape(name)}</li>'
        for colour, name in zip(COLOURS, policies, strict=False)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def nice_top(value: float) -> float:
    """The end of an axis that contains ``value``, such that each quarter of it is a round number."""
    if value <= 0:
        return 4.0
    size: float = 10.0 ** floor(log10(value / 4))
    return 4 * size * next(step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if 4 * size * step >= value)


def _minutes_axis(top: float, y: float) -> list[str]:
    parts = [f'<path d="M{_LEFT} {y:.1f}H{_LEFT + _PLOT}" stroke="#767676"/>']
    for quarter in range(5):
        x = _LEFT + _PLOT * quarter / 4
        parts.append(f'<path d="M{x:.1f} {_TOP}V{y:.1f}" stroke="#767676" stroke-opacity="0.25"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{top * quarter / 4:g}</text>')
    parts.append(f'<text x="{_LEFT + _PLOT / 2}" y="{y + 31:.1f}" text-anchor="middle">minutes</text>')
    return parts
