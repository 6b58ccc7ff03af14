"""What a network said about a set of examples: kept as CSV, so that every figure can be computed again from it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.training.dataset import Example
from models.training.metrics import overlap, pointing_hit
from models.training.targets import box_mask, image_targets

Array = NDArray[np.floating]
GRID = 128
"""Side of the grid on which masks and readers' boxes are compared."""
LEARNT = "learnt_from"
"""Whether the network that ships has learnt from the evidence's images (other networks judged them) or from others."""


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


def enlarged(place: Array, side: int = GRID) -> Array:
    """A map ``[h, w]`` on a finer grid, interpolated between the middles of its cells."""
    rows = np.clip((np.arange(side) + 0.5) * place.shape[0] / side - 0.5, 0, place.shape[0] - 1)
    columns = np.clip((np.arange(side) + 0.5) * place.shape[1] / side - 0.5, 0, place.shape[1] - 1)
    down = np.stack([np.interp(rows, np.arange(place.shape[0]), column) for column in place.T], axis=1)
    return np.stack([np.interp(columns, np.arange(place.shape[1]), row) for row in down])


def compare_places(examples: Sequence[Example], maps: Array, threshold: float) -> tuple[Array, Array]:
    """Pointing-game hits and IoU of opacity maps ``[n, h, w]`` against boxes; NaN where an example has none."""
    hits, overlaps = np.full(len(examples), np.nan), np.full(len(examples), np.nan)
    for index, item in enumerate(examples):
        if item.boxes:
            hits[index] = pointing_hit(maps[index], item.boxes)
            overlaps[index] = overlap(enlarged(maps[index]) >= threshold, box_mask(item, GRID) > 0)[0]
    return hits, overlaps


def best_map_threshold(examples: Sequence[Example], maps: Array) -> float:
    """Where to cut the map so that masks agree best (mean IoU) with the boxes of those who have some."""
    candidates = np.round(np.geomspace(0.03, 0.7, 20), 3)
    scores = [np.nanmean(compare_places(examples, maps, float(value))[1]) for value in candidates]
    return float(candidates[int(np.argmax(scores))])


def known_truths(examples: Sequence[Example], label: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which examples can judge a label, and whether they have it: for lung opacity only readers' classes count."""
    values, weights = image_targets(examples, [label])
    judged = weights[:, 0] >= (1.0 if label == "lung_opacity" else 0.5)
    return judged, values[:, 0] > 0.5


def write_predictions(file: Path, said: Predictions) -> None:
    """One row an image."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "patient", "group", *said.labels, "pointing_hit", "iou"])
        for index, image in enumerate(said.images):
            scores = [f"{score:.4f}" for score in said.scores[index]]
            place = ["" if np.isnan(value) else f"{value:.4f}" for value in (said.hits[index], said.overlaps[index])]
            writer.writerow([image, said.patients[index], said.groups[index], *scores, *place])


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
