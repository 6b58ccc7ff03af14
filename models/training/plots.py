"""Small plots as SVG text, so that a report is one file and needs no plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

SIDE = 220
MARGIN = 34
Point = tuple[float, float]


def _place(x: float, y: float) -> str:
    return f"{MARGIN + x * SIDE:.1f},{MARGIN / 2 + (1 - y) * SIDE:.1f}"


def unit_plot(
    title: str, x_name: str, y_name: str, points: Sequence[Point], *, diagonal: bool = False, dots: bool = False
) -> str:
    """A curve in the unit square, as an ``<svg>`` element; ``diagonal`` draws the line of no skill or of truth."""
    width, height = SIDE + MARGIN + 12, SIDE + MARGIN + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect x="{MARGIN}" y="{MARGIN / 2}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>',
    ]
    if diagonal:
        parts.append(
            f'<polyline points="{_place(0, 0)} {_place(1, 1)}" stroke="#bbb" stroke-dasharray="4" fill="none"/>'
        )
    line = " ".join(_place(x, y) for x, y in points)
    parts.append(f'<polyline points="{line}" stroke="#0b5cad" stroke-width="1.8" fill="none"/>')
    if dots:
        for x, y in points:
            across, down = _place(x, y).split(",")
            parts.append(f'<circle cx="{across}" cy="{down}" r="3" fill="#0b5cad"/>')
    for tick in (0.0, 0.5, 1.0):
        right, below = MARGIN + tick * SIDE, MARGIN / 2 + (1 - tick) * SIDE
        parts.append(f'<text x="{right:.0f}" y="{SIDE + MARGIN / 2 + 14:.0f}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{MARGIN - 4}" y="{below + 4:.0f}" text-anchor="end">{tick:g}</text>')
    middle = MARGIN + SIDE / 2
    parts.append(f'<text x="{middle:.0f}" y="{SIDE + MARGIN + 12:.0f}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text x="12" y="{SIDE / 2:.0f}" transform="rotate(-90 12 {SIDE / 2:.0f})">{escape(y_name)}</text>')
    parts.append("</svg>")
    return "".join(parts)
