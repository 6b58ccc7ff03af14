"""Parts of reports: one HTML file each, with nothing to load from elsewhere."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.contract import Mask, Pixels
from models.training.metrics import Interval

NOTICE = "Research use only. Not a medical device."
LISTED = 200
"""Problems that a page lists one by one; ``metrics.json`` has all of them."""

_STYLE = """:root{color-scheme:light}*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.6rem;line-height:1.25}h2{margin-top:2.2rem;border-bottom:2px solid #e4e4e4;padding-bottom:.2rem}
h3{margin:1.4rem 0 .4rem}table{border-collapse:collapse;margin:.8rem 0;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:right;vertical-align:top}th{font-weight:600}
td:first-child,th:first-child{text-align:left}caption{text-align:left;font-weight:600;padding:.2rem 0}
.scroll{overflow-x:auto}svg{font-size:11px;max-width:100%;height:auto}svg .name{font-weight:600;font-size:12px}
.plots,.pictures{display:flex;flex-wrap:wrap;gap:1rem;align-items:flex-start}
figure{margin:0;width:15rem}figure svg{width:100%;background:#000}figcaption{font-size:.85rem;overflow-wrap:anywhere}
.notice{background:#fff4d6;padding:.5rem .8rem;border-left:4px solid #b45309}
.note{color:#444;max-width:60rem}.facts{display:flex;flex-wrap:wrap;gap:.4rem 2rem;margin:.6rem 0;padding:0}
.facts li{list-style:none}.facts b{font-size:1.2rem}nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem}
@media print{figure,svg{break-inside:avoid}}"""

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


def page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole page: title, the notice, a sentence that leads in, and named sections with links to them."""
    links = "".join(f'<a href="#s{number}">{escape(name)}</a>' for number, (name, _) in enumerate(sections))
    body = "\n".join(
        f'<section id="s{number}"><h2>{escape(name)}</h2>{html}</section>'
        for number, (name, html) in enumerate(sections)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        f'<main><h1>{escape(title)}</h1><p class="notice">{NOTICE}</p>{lead}<nav>{links}</nav>\n'
        f"{body}</main></body></html>\n"
    )


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


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """A line of large numbers with what they count."""
    items = "".join(f"<li><b>{escape(str(value))}</b> {escape(name)}</li>" for name, value in rows)
    return f'<ul class="facts">{items}</ul>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of texts."""
    top = f"<caption>{escape(caption)}</caption>" if caption else ""
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table>{top}<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def note(text: str) -> str:
    """A paragraph that explains."""
    return f'<p class="note">{escape(text)}</p>'


def plots(parts: Iterable[str]) -> str:
    """Plots side by side."""
    return f'<div class="plots">{"".join(parts)}</div>'


def pictures(parts: Iterable[str]) -> str:
    """Pictures side by side."""
    return f'<div class="pictures">{"".join(parts)}</div>'


def problem_list(problems: Sequence[tuple[str, str]]) -> str:
    """What was left out: how often each reason occurs, and the first rows one by one."""
    if not problems:
        return "<p>Nothing was left out.</p>"
    counts = Counter(reason.split(":")[0] for _, reason in problems)
    summary = table(("reason", "rows"), [(reason, str(count)) for reason, count in counts.most_common()])
    listed = table(("image or row", "reason"), problems[:LISTED])
    more = f", the first {LISTED} of them here" if len(problems) > LISTED else ""
    return f"<p>{len(problems)} rows{more}.</p>{summary}<details><summary>One by one</summary>{listed}</details>"


def picture(pixels: Pixels, marks: Sequence[Mark], caption: str) -> str:
    """A radiograph ``float32[h, w]`` in ``[0, 1]`` as a ``<figure>`` with marks on it."""
    height, width = pixels.shape
    drawn = "".join(_drawn(mark) for mark in marks)
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(caption)}">'
        f'<image width="{width}" height="{height}" href="{_data_uri(pixels)}"/>{drawn}</svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _drawn(mark: Mark) -> str:
    parts = []
    if mark.box is not None:
        left, top, right, bottom = mark.box
        dash = ' stroke-dasharray="6 4"' if mark.dashed else ""
        size = f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="none" stroke="{mark.colour}" stroke-width="2"{dash}/>'
        )
        if mark.note:
            parts.append(f'<text x="{left + 3:.1f}" y="{top + 12:.1f}" fill="{mark.colour}">{escape(mark.note)}</text>')
    if mark.mask is not None and mark.mask.any():
        inside = "" if mark.dashed else f'<path d="{_path(mark.mask)}" fill="{mark.colour}" fill-opacity="0.18"/>'
        parts.append(f'{inside}<path d="{_path(_outline(mark.mask))}" fill="{mark.colour}"/>')
    return "".join(parts)


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
