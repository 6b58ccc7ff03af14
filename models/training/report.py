"""The evaluation report: one HTML file without anything to load from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from models.contract import ModelSpec
from models.training.dataset import Example, Problem
from models.training.figures import LabelFigures
from models.training.metrics import Interval, auc, calibration_curve, roc_curve
from models.training.plots import unit_plot
from models.training.predictions import Predictions, known_truths

NOTICE = "Research use only. Not a medical device."
_STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}svg{margin-right:1rem;font-size:11px}
.notice{background:#fff4d6;padding:.5rem .8rem}"""


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _interval(item: Interval) -> str:
    return f"{_number(item.value)} ({_number(item.low)} to {_number(item.high)})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _summary(figures: dict[str, LabelFigures]) -> str:
    head = (
        "finding",
        "positives / images",
        "AUC (95 %)",
        "AP",
        "cut-off",
        "sensitivity",
        "specificity",
        "ECE",
        "Brier",
    )
    rows = [
        (
            label,
            f"{item.positives} / {item.images}",
            _interval(item.auc),
            _number(item.average_precision),
            _number(item.threshold),
            _interval(item.sensitivity),
            _interval(item.specificity),
            _number(item.calibration_error),
            _number(item.brier),
        )
        for label, item in figures.items()
    ]
    return _table(head, rows)


def age_band(age: int | None) -> str:
    """Twenty-year bands."""
    if age is None:
        return "unknown"
    return f"{age // 20 * 20} to {age // 20 * 20 + 19}"


def _breakdown(label: str, said: Predictions, examples: Sequence[Example]) -> str:
    """AUC of one label by sex, age band and view."""
    judged, truths = known_truths(examples, label)
    scores = said.scores[:, said.labels.index(label)]
    keys = [(f"sex {item.sex}", f"age {age_band(item.age)}", f"view {item.view}") for item in examples]
    rows = []
    for name in sorted({key for group in keys for key in group}):
        inside = judged & np.array([name in group for group in keys])
        positives = int(truths[inside].sum())
        rows.append((name, f"{positives} / {int(inside.sum())}", _number(auc(scores[inside], truths[inside]))))
    return _table(("group", "positives / images", "AUC"), rows)


def _curves(label: str, said: Predictions, examples: Sequence[Example]) -> str:
    judged, truths = known_truths(examples, label)
    scores = said.scores[judged, said.labels.index(label)]
    truths = truths[judged]
    false, true, _ = roc_curve(scores, truths)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truths[order])
    recall, precision = hits / max(1, truths.sum()), hits / np.arange(1, len(hits) + 1)
    calibration = [(said_, seen) for said_, seen, _ in calibration_curve(scores, truths)]
    return (
        unit_plot(f"{label}: ROC", "1 - specificity", "sensitivity", _pairs(false, true), diagonal=True)
        + unit_plot(f"{label}: precision and recall", "recall", "precision", _pairs(recall, precision))
        + unit_plot(f"{label}: calibration", "probability said", "share seen", calibration, diagonal=True, dots=True)
    )


def _pairs(x: Any, y: Any) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]


def _confusion(label: str, said: Predictions, examples: Sequence[Example], threshold: float) -> str:
    judged, truths = known_truths(examples, label)
    called = said.scores[judged, said.labels.index(label)] >= threshold
    truths = truths[judged]
    rows = [
        ("present", str(int((called & truths).sum())), str(int((~called & truths).sum()))),
        ("absent", str(int((called & ~truths).sum())), str(int((~called & ~truths).sum()))),
    ]
    return _table(("truth", "called present", "called absent"), rows)


def html_report(
    spec: ModelSpec,
    split: str,
    said: Predictions,
    examples: Sequence[Example],
    figures: dict[str, LabelFigures],
    places: dict[str, Any],
    problems: Sequence[Problem],
) -> str:
    """The whole page."""
    title = f"{spec.title} {spec.version} on {split}"
    patients = len({item.patient for item in examples})
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(title)}</h1><p class=notice>{NOTICE}</p>",
        f"<p>{len(examples)} images of {patients} patients. Intervals: bootstrap over patients (AUC), Wilson (shares).",
        f" Weights <code>{spec.digest[:16]}…</code></p>{_summary(figures)}",
    ]
    if places["images"]:
        pointing = Interval(**places["pointing"])
        parts.append(
            f"<p>Lung opacity map against readers' boxes ({places['images']} images): strongest place inside a box "
            f"{_interval(pointing)}, mean IoU {_number(places['iou'])}.</p>"
        )
    for label, item in figures.items():
        parts.append(f"<h2>{escape(label)}</h2>{_curves(label, said, examples)}")
        parts.append(_confusion(label, said, examples, item.threshold) + _breakdown(label, said, examples))
    parts.append(f"<h2>Left out</h2><p>{len(problems)} rows.</p>")
    if problems:
        parts.append(_table(("image", "reason"), [(item.image, item.reason) for item in problems]))
    return "\n".join(parts) + "</html>\n"
