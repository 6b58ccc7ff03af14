"""Predictions of a network for a set of images, kept as CSV, so that every figure can be computed again from it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
LEARNT = "learnt_from"
"""Whether the network that ships has learnt from the evidence's images (other networks analysed them) or from
others.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Scores ``[n, labels]`` (logits or probabilities) of named images, and the opacity map's places where it was kept.

    ``hits`` and ``overlaps`` (intersection over union) are NaN for images without readers' boxes.
    """

    images: tuple[str, ...]
    patients: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Array
    hits: Array
    overlaps: Array


def write_predictions(file: Path, predictions: Predictions) -> None:
    """One row an image."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "patient", "group", *predictions.labels, "pointing_hit", "iou"])
        for index, image in enumerate(predictions.images):
            scores = [f"{score:.4f}" for score in predictions.scores[index]]
            place = [
                "" if np.isnan(value) else f"{value:.4f}"
                for value in (predictions.hits[index], predictions.overlaps[index])
            ]
            writer.writerow([image, predictions.patients[index], predictions.groups[index], *scores, *place])


def image_names(file: Path) -> set[str]:
    """The images of a file of predictions or evidence: its first column."""
    with file.open(newline="", encoding="utf-8") as stream:
        return {row[0] for row in list(csv.reader(stream))[1:]}


def read_predictions(file: Path) -> Predictions:
    """What :func:`write_predictions` wrote, or the evidence that a training leaves beside its network.

    Evidence has a column ``LABEL truth`` for each label, and probabilities, each fold calibrated on the others.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        head, *rows = list(csv.reader(stream))
    cells = dict(zip(head, zip(*rows, strict=True), strict=True))
    labels = tuple(name for name in head if f"{name} truth" in head) or tuple(head[3:-2])
    missing = ("",) * len(rows)
    hits, overlaps = (_floats(cells.get(name, missing)) for name in ("pointing_hit", "iou"))
    return Predictions(
        images=cells["image"],
        patients=cells["patient"],
        groups=cells["group"],
        labels=labels,
        scores=np.stack([_floats(cells[label]) for label in labels], axis=1),
        hits=hits,
        overlaps=overlaps,
    )


def _floats(cells: Sequence[str]) -> Array:
    return np.array([float(cell or "nan") for cell in cells])
