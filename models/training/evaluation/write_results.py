"""Predictions and reference of each image as CSV, so that every figure can be computed again."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from models.training.evaluation.measure import Measured
from models.training.evaluation.segmentation import dice, iou


def write_truths(file: Path, measured: Measured) -> None:
    """One row an image: 1, 0, or nothing where a label is not known."""
    rows = (
        [item.name, *("" if not known else str(int(truth)) for truth, known in zip(truths, knowns, strict=True))]
        for item, truths, knowns in zip(measured.samples, measured.truths, measured.known, strict=True)
    )
    _write(file, ["image", *measured.labels], rows)


def write_where(folder: Path, measured: Measured) -> None:
    """``places.csv`` (masks) and ``boxes.csv`` (detections), where the model has such answers."""
    if measured.marked:
        head = ["image", "label", "true_pixels", "served_pixels", "both_pixels", "dice", "iou", "pointing_hit"]
        _write(folder / "places.csv", head, _places(measured))
    if measured.boxes:
        head = ["image", "kind", "label", "left", "top", "right", "bottom", "score"]
        _write(folder / "boxes.csv", head, _boxes(measured))


def _places(measured: Measured) -> Iterable[Sequence[object]]:
    for label, (chosen, marked) in measured.marked.items():
        dices = dice(marked.served, marked.true, marked.served_both)
        ious = iou(marked.served, marked.true, marked.served_both)
        for row, number in enumerate(chosen):
            areas = (int(marked.true[row]), int(marked.served[row]), int(marked.served_both[row]))
            hit = "" if marked.true[row] == 0 else int(marked.hits[row])
            yield measured.samples[number].name, label, *areas, f"{dices[row]:.4f}", f"{ious[row]:.4f}", hit


def _boxes(measured: Measured) -> Iterable[Sequence[object]]:
    for item, boxes in zip(measured.samples, measured.boxes, strict=True):
        for *edges, score, label in boxes.predicted.tolist():
            yield item.name, "model", measured.labels[int(label)], *(f"{edge:.1f}" for edge in edges), f"{score:.4f}"
        for *edges, label in boxes.true.tolist():
            yield item.name, "reader", measured.labels[int(label)], *(f"{edge:.1f}" for edge in edges), ""


def _write(file: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
