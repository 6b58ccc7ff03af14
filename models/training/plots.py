"""Small plots as SVG text, so that a report is one file and needs no plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from models.svg import svg

SIDE = 220
MARGIN = 44
COLOURS = ("#0b5cad", "#c2410c", "#15803d", "#7c3aed")
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

    def share(self, value: float) -> float:
        """Where a value lies on the axis, 0 to 1, cut to it."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def curves(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Lines over two axes, with a legend for those that have a name."""
    named = [line for line in lines if line.name]
    colours = dict(zip([id(line) for line in lines if not line.dashed], COLOURS * len(lines), strict=False))
    parts = [_frame(title, x, y)]
    for line in lines:
        colour = colours.get(id(line), "#9a9a9a")
        where = [_place(x.share(a), y.share(b)) for a, b in line.points]
        dash = ' stroke-dasharray="4"' if line.dashed else ""
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in where)
        parts.append(f'<polyline points="{path}" stroke="{colour}" stroke-width="1.8" fill="none"{dash}/>')
        if line.dots or len(where) == 1:
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in where]
    for number, line in enumerate(named):
        colour, down = colours.get(id(line), "#9a9a9a"), MARGIN / 2 + SIDE - 8 - 15 * (len(named) - 1 - number)
        parts.append(f'<rect x="{MARGIN + SIDE - 92}" y="{down - 5}" width="10" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{MARGIN + SIDE - 78}" y="{down}">{escape(line.name)}</text>')
    return svg(title, SIDE + MARGIN + 14, SIDE + MARGIN + 28, parts)


def bars(title: str, rows: Sequence[tuple[str, float]], *, notes: Sequence[str] = ()) -> str:
    """Horizontal bars with their names on the left and a note (or the number) behind each."""
    most = max([value for _, value in rows], default=0.0) or 1.0
    name_width = 8 * min(32, max([len(name) for name, _ in rows], default=1)) + 10
    parts = []
    for number, (name, value) in enumerate(rows):
        down, length = 22 * number + 26, 240 * value / most
        note = notes[number] if notes else f"{value:g}"
        parts.append(f'<text x="{name_width - 6}" y="{down + 12}" text-anchor="end">{escape(_short(name))}</text>')
        parts.append(
            f'<rect x="{name_width}" y="{down}" width="{max(length, 1):.1f}" height="16" fill="{COLOURS[0]}"/>'
        )
        parts.append(f'<text x="{name_width + length + 6:.1f}" y="{down + 12}">{escape(note)}</text>')
    parts.insert(0, f'<text x="0" y="14" class="name">{escape(title)}</text>')
    return svg(title, name_width + 360, 22 * len(rows) + 32, parts)


def histogram(title: str, x_name: str, edges: Sequence[float], series: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Columns between rising ``edges``; each of ``series`` (name, heights) has its own colour, side by side."""
    most = max([value for _, heights in series for value in heights], default=0.0) or 1.0
    x, y = Axis(x_name, edges[0], edges[-1]), Axis("", 0.0, most)
    parts = [_frame(title, x, y, whole=all(float(v).is_integer() for _, h in series for v in h))]
    for place, (_, heights) in enumerate(series):
        for left, right, value in zip(edges[:-1], edges[1:], heights, strict=True):
            width = (x.share(right) - x.share(left)) / len(series)
            a, b = _place(x.share(left) + width * place, y.share(value))
            size = f'width="{max(width * SIDE - 1, 1):.1f}" height="{y.share(value) * SIDE:.1f}"'
            parts.append(f'<rect x="{a:.1f}" y="{b:.1f}" {size} fill="{COLOURS[place]}" fill-opacity="0.85"/>')
    for place, (name, _) in enumerate(series if len(series) > 1 else ()):
        down = MARGIN / 2 + 12 + 15 * place
        parts.append(f'<rect x="{MARGIN + SIDE - 98}" y="{down - 8}" width="10" height="9" fill="{COLOURS[place]}"/>')
        parts.append(f'<text x="{MARGIN + SIDE - 84}" y="{down}">{escape(name)}</text>')
    return svg(title, SIDE + MARGIN + 14, SIDE + MARGIN + 28, parts)


def heat(title: str, grid: NDArray[np.floating]) -> str:
    """A map of shares ``[h, w]``, darker where there is more; the largest value is told in words."""
    most = float(grid.max()) if grid.size else 0.0
    rows, columns = grid.shape
    parts = [f'<text x="0" y="14" class="name">{escape(title)} (darkest: {most:.3g})</text>']
    for (row, column), value in np.ndenumerate(grid):
        if value > 0:
            place = f'x="{column * SIDE / columns:.1f}" y="{20 + row * SIDE / rows:.1f}"'
            size = f'width="{SIDE / columns + 0.3:.1f}" height="{SIDE / rows + 0.3:.1f}"'
            parts.append(f'<rect {place} {size} fill="{COLOURS[0]}" fill-opacity="{float(value) / most:.2f}"/>')
    parts.append(f'<rect x="0" y="20" width="{SIDE}" height="{SIDE}" fill="none" stroke="#767676"/>')
    return svg(title, SIDE + 14, SIDE + 26, parts)


def _frame(title: str, x: Axis, y: Axis, *, whole: bool = False) -> str:
    """Title, box, ticks and names of the axes."""
    parts = [
        f'<text x="{MARGIN}" y="14" class="name">{escape(title)}</text>',
        f'<rect x="{MARGIN}" y="{MARGIN / 2}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#767676"/>',
    ]
    for share in (0.0, 0.5, 1.0):
        right, below = _place(share, share)
        across, up = (axis.low + share * (axis.high - axis.low) for axis in (x, y))
        parts.append(f'<text x="{right:.0f}" y="{SIDE + MARGIN / 2 + 14:.0f}" text-anchor="middle">{across:.4g}</text>')
        if not whole or float(up).is_integer():
            parts.append(f'<text x="{MARGIN - 4}" y="{below + 4:.0f}" text-anchor="end">{up:.4g}</text>')
    middle = MARGIN + SIDE / 2
    parts.append(f'<text x="{middle:.0f}" y="{SIDE + MARGIN + 8:.0f}" text-anchor="middle">{escape(x.name)}</text>')
    at = MARGIN / 2 + SIDE / 2
    parts.append(
        f'<text x="10" y="{at:.0f}" text-anchor="middle" transform="rotate(-90 10 {at:.0f})">{escape(y.name)}</text>'
    )
    return "".join(parts)


def _place(x: float, y: float) -> Point:
    return MARGIN + x * SIDE, MARGIN / 2 + (1 - y) * SIDE


def _short(name: str) -> str:
    return name if len(name) <= 32 else name[:31] + "…"
