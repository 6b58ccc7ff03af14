"""Parts of reports: one HTML file each, with nothing to load from elsewhere. The HTML itself is in ``templates``."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from config.notice import NOTICE
from models.contract import Mask, Pixels
from models.templates import environment
from models.training.metrics import Interval

_TEMPLATES = environment(Path(__file__).parent / "templates")
_PARTS = _TEMPLATES.get_template("parts.html").module

LISTED = 200
"""Problems that a page lists one by one; ``metrics.json`` has all of them."""

TRUTH, ANSWER = "#37d67a", "#ff9f43"
"""Colours of what readers marked and of what a model marked."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something drawn on a picture: a box in its pixels (left, top, right, bottom), or a mask of its shape."""

    colour: str
    box: tuple[float, float, float, float] | None = None
    mask: Mask | None = None
    dashed: bool = False
    note: str = ""


def page(title: str, lead: Markup, sections: Sequence[tuple[str, Markup]]) -> str:
    """A whole page: title, the notice, what leads in, and named sections with links to them."""
    template = _TEMPLATES.get_template("page.html")
    return template.render(title=title, notice=NOTICE, lead=lead, sections=sections) + "\n"


def joined(parts: Iterable[Markup]) -> Markup:
    """Parts one after another."""
    return Markup("").join(parts)


def number(value: float | None, digits: int = 3) -> str:
    """A figure as text."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def interval(item: Interval, digits: int = 3) -> str:
    """A figure with its interval."""
    if math.isnan(item.value):
        return "n/a"
    low, high = number(item.low, digits), number(item.high, digits)
    return f"{number(item.value, digits)}\N{NO-BREAK SPACE}({low}\N{EN DASH}{high})"


def share(part: float, whole: float) -> str:
    """A count with its percentage."""
    return f"{part:g} ({part / whole:.1%})" if whole else f"{part:g}"


def facts(rows: Iterable[tuple[str, object]]) -> Markup:
    """A line of large numbers with what they count."""
    return _part("facts", list(rows))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> Markup:
    """A table of texts."""
    return _part("table", head, list(rows), caption)


def note(text: str) -> Markup:
    """A paragraph that explains."""
    return _part("note", text)


def heading(text: str) -> Markup:
    """A heading inside a section."""
    return _part("heading", text)


def plots(parts: Iterable[Markup]) -> Markup:
    """Plots side by side."""
    return _part("row", "plots", list(parts))


def pictures(parts: Iterable[Markup]) -> Markup:
    """Pictures side by side."""
    return _part("row", "pictures", list(parts))


def problem_list(problems: Sequence[tuple[str, str]]) -> Markup:
    """What was left out: how often each reason occurs, and the first rows one by one."""
    counts = Counter(reason.split(":")[0] for _, reason in problems)
    return _part("problem_list", problems, counts.most_common(), LISTED)


def missing(name: str, why: str) -> Markup:
    """In the place of a picture: why there is none."""
    return _part("missing", name, why)


def picture(pixels: Pixels, marks: Sequence[Mark], caption: str) -> Markup:
    """A radiograph ``float32[h, w]`` in ``[0, 1]`` as a ``<figure>`` with marks on it."""
    height, width = pixels.shape
    shapes = [(mark, *_paths(mark)) for mark in marks]
    return _part("picture", width, height, _data_uri(pixels), shapes, caption)


def _paths(mark: Mark) -> tuple[str, str]:
    """A mask's inside, unless it is dashed, and its outline, as SVG paths."""
    if mark.mask is None or not mark.mask.any():
        return "", ""
    return "" if mark.dashed else _path(mark.mask), _path(_outline(mark.mask))


def _part(name: str, *values: object) -> Markup:
    return Markup(getattr(_PARTS, name)(*values))  # noqa: S704 - the template has escaped the values


def _outline(mask: Mask) -> Mask:
    """The pixels of a mask within two steps of something else."""
    inner = mask
    for _ in range(2):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _path(mask: Mask) -> str:
    """A mask as an SVG path of one rectangle a run."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    runs = zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True)
    return "".join(f"M{start} {row}h{end - start}v1h{start - end}z" for row, start, end in runs)


def _data_uri(pixels: NDArray[np.floating]) -> str:
    stream = io.BytesIO()
    grey = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(stream, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
