"""SVG text for reports, so that a report is one file and needs no plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil


def svg(title: str, width: float, height: float, parts: Sequence[str], *, scaled: bool = False) -> str:
    """An SVG element with a title and ``parts``, in pixels; ``scaled``: as wide as the page gives it room."""
    across, down = ceil(width), ceil(height)
    size = "" if scaled else f'width="{across}" height="{down}" '
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}viewBox="0 0 {across} {down}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )
