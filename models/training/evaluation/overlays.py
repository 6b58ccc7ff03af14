"""The images on which a model was best and worst, with what it marks and what readers marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from models.contract import Finding
from models.radiograph.geometry import Letterbox
from models.training.evaluation.measure import Measured, true_mask
from models.training.evaluation.predict_as_node import EvaluatedModel, Shown, run
from models.training.evaluation.result import Evaluation
from models.training.evaluation.segmentation import dice
from models.training.pages import ANSWER, TRUTH, Mark, picture
from models.training.truths import LabelNames

SIDE = 256
"""Side of a picture in pixels."""
_EACH = 3
_FEWER = 1
_MANY_LABELS = 6

Pick = tuple[int, str]


def overlays(found: Evaluation, network: EvaluatedModel, label_names: LabelNames) -> dict[str, list[Markup]]:
    """For each label of the model the pictures of its extreme images."""
    measured = found.measured
    each = _EACH if len(found.spec.labels) <= _MANY_LABELS else _FEWER
    pictures: dict[str, list[Markup]] = {}
    for column, label in enumerate(found.spec.labels):
        picked = picks(measured, column, label.threshold, each)
        shown = run(network, [measured.samples[number] for number, _ in picked])
        pictures[label.name] = [
            drawn(item, column, caption, label_names)
            for item, (_, caption) in zip(shown, picked, strict=True)
            if isinstance(item, Shown)
        ]
    return pictures


def picks(measured: Measured, column: int, threshold: float, each: int) -> list[Pick]:
    """Numbers of images with captions: best and worst masks where there are some, else right and wrong calls."""
    label = measured.labels[column]
    found: dict[int, str] = {}
    if label in measured.marked:
        chosen, marked = measured.marked[label]
        overlap = dice(marked.served, marked.true, marked.served_both)
        ill = np.flatnonzero(marked.true > 0)
        ranked = ill[np.argsort(-overlap[ill], kind="stable")]
        half = (len(ranked) + 1) // 2
        for name, rows in (("best", ranked[:half][:each]), ("worst", ranked[half:][::-1][:each])):
            for row in rows:
                found.setdefault(int(chosen[row]), f"{name}: Dice {overlap[row]:.2f}")
    scores, truths, known = measured.scores[:, column], measured.truths[:, column], measured.known[:, column]
    order = np.argsort(-scores, kind="stable")
    groups = {
        "found": [number for number in order if known[number] and truths[number] and scores[number] >= threshold],
        "missed": [number for number in order[::-1] if known[number] and truths[number] and scores[number] < threshold],
        "false notification": [n for n in order if known[n] and not truths[n] and scores[n] >= threshold],
    }
    for name, numbers in groups.items():
        for number in numbers[:each]:
            found.setdefault(int(number), f"{name}: probability {scores[number]:.2f}")
    return list(found.items())


def drawn(item: Shown, column: int, caption: str, label_names: LabelNames) -> Markup:
    """One picture with both sides' marks."""
    rows, columns = item.image.shape
    box = Letterbox(rows, columns, SIDE, SIDE, item.image.pixel_aspect)
    names = label_names.names(label_names.labels[column])
    marks = _true_marks(item, names, box) + _predicted_marks(item.findings[column], box)
    return picture(box.forward(item.image.pixels), marks, f"{caption} · {item.sample.name}")


def _true_marks(item: Shown, names: Sequence[str], box: Letterbox) -> list[Mark]:
    boxes = [own for own in item.sample.boxes if own.label in names]
    if boxes:
        rows, columns = item.image.shape
        edges = [(own.x * columns, own.y * rows, own.width * columns, own.height * rows) for own in boxes]
        return [Mark(TRUTH, box=_placed(*one, box)) for one in edges]
    mask = true_mask(item.sample, names, item.image.shape)
    return [Mark(TRUTH, mask=box.forward(mask.astype(np.float32)) >= 0.5)] if mask.any() else []


def _predicted_marks(finding: Finding, box: Letterbox) -> list[Mark]:
    marks = []
    if finding.mask is not None:
        marks.append(Mark(ANSWER, mask=box.forward(finding.mask.astype(np.float32)) >= 0.5, dashed=True))
    for own in finding.boxes:
        placed = _placed(own.x, own.y, own.width, own.height, box)
        marks.append(Mark(ANSWER, box=placed, dashed=True, note=f"{own.probability:.2f}"))
    return marks


def _placed(x: float, y: float, width: float, height: float, box: Letterbox) -> tuple[float, float, float, float]:
    """A box in source pixels as edges in the picture."""
    return (*box.to_network(x, y), *box.to_network(x + width, y + height))
