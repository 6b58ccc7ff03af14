"""Predictions of a network for a set of images, kept as CSV, so that every figure can be computed again from it."""

from __future__ import annotations

import csv
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
    """What :func:`write_predictions` wrote."""
    with file.open(newline="", encoding="utf-8") as stream:
        head, *rows = list(csv.reader(stream))
    labels = tuple(head[3:-2])
    place = np.array([[float(value or "nan") for value in row[-2:]] for row in rows]).reshape(len(rows), 2)
    return Predictions(
        images=tuple(row[0] for row in rows),
        patients=tuple(row[1] for row in rows),
        groups=tuple(row[2] for row in rows),
        labels=labels,
        scores=np.array([[float(value) for value in row[3:-2]] for row in rows]).reshape(len(rows), len(labels)),
        hits=place[:, 0],
        overlaps=place[:, 1],
    )
