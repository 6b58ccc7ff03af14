"""Plots for reports: Matplotlib figures as SVG pictures inside the page, the same bytes for the same figures.

Matplotlib belongs to the extra ``reports``; what a node serves needs none of this.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import wraps
from io import BytesIO
from typing import Any, ParamSpec

import matplotlib as mpl
from cycler import cycler
from markupsafe import Markup, escape
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#595959")
"""Of Okabe and Ito: distinguishable with any colour vision."""
GREY = "#767676"

_SETTINGS: dict[str, Any] = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # Matplotlib's own, by which it measures; every text names the whole list
    "font.size": 9,
    "legend.fontsize": "small",
    "legend.frameon": False,
    "svg.fonttype": "none",  # letters stay letters: small files, and sharp at every size
    "svg.hashsalt": "pleura",  # names inside a file are drawn by chance without it
    "text.parse_math": False,  # a dollar in somebody's label is a dollar
}
P = ParamSpec("P")


def plot(draw: Callable[P, tuple[Figure, str]]) -> Callable[P, Markup]:
    """Make of a function that draws a figure, and says in words what it shows, one that gives an ``<img>``.

    A picture of its own keeps what it names inside apart from that of other plots on the page.
    """

    @wraps(draw)
    def _drawn(*args: P.args, **kwargs: P.kwargs) -> Markup:
        with mpl.rc_context(_SETTINGS):
            figure, words = draw(*args, **kwargs)
            stream = BytesIO()
            figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
        width = round(figure.get_figwidth() * 96)  # CSS pixels an inch
        data = base64.b64encode(stream.getvalue()).decode("ascii")
        return Markup(  # noqa: S704 - the words are escaped, the rest is ours
            f'<img class="plot" width="{width}" alt="{escape(words)}" src="data:image/svg+xml;base64,{data}">'
        )

    return _drawn


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained")
