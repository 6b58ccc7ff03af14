"""The plots of exploration and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from models.plotting import COLOURS, GREY, blank, plot

SIDE = 2.9
"""Inches of a square plot."""
LONGEST_NAME = 32
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a plot; ``dots`` marks its points, ``dashed`` draws it as a reference."""

    name: str
    points: Sequence[Point]
    dots: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it shows, and its range."""

    name: str
    low: float = 0.0
    high: float = 1.0


@plot
def curves(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> tuple[Figure, str]:
    """Lines over two axes, with a legend for those that have a name."""
    figure, axes = _square(title, x, y)
    for line in lines:
        points = np.asarray(line.points, np.float64).reshape(-1, 2)
        colour, dashes = (GREY, "--") if line.dashed else (None, "-")
        dot = "o" if line.dots or len(points) == 1 else ""
        axes.plot(
            *points.T, color=colour, linestyle=dashes, marker=dot, markersize=4, label=line.name or "_", clip_on=not dot
        )
    if any(line.name for line in lines):
        axes.legend()
    return figure, f"{title}: {y.name} by {x.name}"


@plot
def bars(title: str, rows: Sequence[tuple[str, float]], *, notes: Sequence[str] = ()) -> tuple[Figure, str]:
    """Horizontal bars with their names on the left and a note (or the number) behind each."""
    labels = list(notes) or [f"{value:g}" for _, value in rows]
    figure = blank(5.5, 0.6 + 0.22 * len(rows))
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    drawn = axes.barh(range(len(rows)), [value for _, value in rows], height=0.75)
    axes.bar_label(drawn, labels, padding=3)
    axes.set_yticks(range(len(rows)), [_short(name) for name, _ in rows])
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.xaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False)
    return figure, f"{title}: {', '.join(f'{name} {note}' for (name, _), note in zip(rows, labels, strict=True))}"


@plot
def histogram(
    title: str, x_name: str, edges: Sequence[float], series: Sequence[tuple[str, Sequence[float]]]
) -> tuple[Figure, str]:
    """Columns between rising ``edges``; each of ``series`` (name, heights) has its own colour, side by side."""
    figure, axes = _square(title, Axis(x_name, edges[0], edges[-1]))
    widths = np.diff(edges) / len(series)
    for place, (name, heights) in enumerate(series):
        left = np.asarray(edges[:-1]) + place * widths
        axes.bar(left, heights, 0.92 * widths, align="edge", color=COLOURS[place], label=name)
    if all(float(value).is_integer() for _, heights in series for value in heights):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if len(series) > 1:
        axes.legend()
    return figure, f"{title}: {' and '.join(name for name, _ in series)} by {x_name}"


@plot
def heat(title: str, grid: NDArray[np.floating]) -> tuple[Figure, str]:
    """A map of shares ``[h, w]``, darker where there is more."""
    figure = blank(SIDE, SIDE)
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    shown = axes.imshow(grid, cmap="Blues", vmin=0, vmax=float(grid.max()) or 1.0, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    figure.colorbar(shown, shrink=0.8)
    return figure, f"{title}: from 0 (light) to {float(grid.max()):.3g} (dark)"


def _square(title: str, x: Axis, y: Axis | None = None) -> tuple[Figure, Axes]:
    figure = blank(SIDE, SIDE)
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    axes.set(xlabel=x.name, xlim=(x.low, x.high))
    if y is not None:
        axes.set(ylabel=y.name, ylim=(y.low, y.high))
    return figure, axes


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
