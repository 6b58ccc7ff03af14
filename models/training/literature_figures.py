"""The figures behind a network of the literature, from what it said about images that it had not seen."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.training.evaluation.detection import Detected, detect, marks_of
from models.training.evaluation.segmentation import dice, iou
from models.training.figures import LabelFigures, figures_of
from models.training.judging import BOTH, SAID, TRUE, Judged
from models.training.metrics import Interval, by_patients, proportion

Values = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class PlaceFigures:
    """How well places are found, over the images where they are known.

    ``dice`` and ``iou`` are means over images with the finding; ``dice_all`` is over all images, an empty mask where
    nothing is counting 1, so a network that never marks anything scores the share of negatives there. ``pointing`` is
    how often the strongest place lies inside.
    """

    label: str
    images: int
    positives: int
    dice: Interval
    iou: Interval
    dice_all: float
    pointing: Interval


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures by label; None where the truth has not both classes, or no place."""

    labels: dict[str, LabelFigures | None]
    places: dict[str, PlaceFigures | None]
    boxes: dict[str, Detected | None]

    def as_dict(self) -> dict[str, Any]:
        """For ``evidence/NAME.json``."""
        return {
            "labels": {name: asdict(item) for name, item in self.labels.items() if item is not None},
            "places": {name: asdict(item) for name, item in self.places.items() if item is not None},
            "boxes": {name: item.as_dict() for name, item in self.boxes.items() if item is not None},
        }


def figures(judged: Judged, cut_off: float | None, rounds: int = 1000) -> Figures:
    """Everything that can be measured; ``cut_off`` None is Youden's."""
    labels, places, boxes = {}, {}, {}
    for column, label in enumerate(judged.labels):
        known = judged.known[:, column] > 0
        patients = [patient for patient, use in zip(judged.patients, known, strict=True) if use]
        scores, truths = judged.scores[known, column], judged.prevalent[known, column]
        labels[label] = figures_of(label, scores, truths, patients, cut_off, rounds)
        places[label] = _places(judged, column, rounds)
        found = labels[label]
        boxes[label] = _boxes(judged, column, found.threshold if found else 0.5, rounds)
    return Figures(labels, places, boxes)


def _places(judged: Judged, column: int, rounds: int) -> PlaceFigures | None:
    if judged.areas is None or judged.hits is None:
        return None
    areas, hits = judged.areas[:, column].astype(np.float64), judged.hits[:, column]
    known = ~np.isnan(areas[:, TRUE])
    positive = known & (areas[:, TRUE] > 0)
    if not positive.any():
        return None
    dices, ious = overlaps(areas)
    patients = [patient for patient, use in zip(judged.patients, positive, strict=True) if use]
    return PlaceFigures(
        label=judged.labels[column],
        images=int(known.sum()),
        positives=int(positive.sum()),
        dice=_mean(dices[positive], patients, rounds),
        iou=_mean(ious[positive], patients, rounds),
        dice_all=float(dices[known].mean()),
        pointing=proportion(int(hits[positive].sum()), int(positive.sum())),
    )


def _boxes(judged: Judged, column: int, cut: float, rounds: int) -> Detected | None:
    """A detector's boxes, over images whose boxes are known."""
    if judged.boxes is None or judged.true_boxes is None:
        return None
    known = np.flatnonzero(judged.placed[:, column] > 0)
    true = judged.true_boxes[known]
    # The truth numbers the recipe's labels, the answer the served ones; detectors serve all that they are taught.
    if not (np.rint(true[..., 4]) == column).any():
        return None
    marks = [marks_of(judged.boxes[place].astype(np.float64), judged.true_boxes[place].astype(np.float64), column)
             for place in known]  # fmt: skip
    return detect(judged.labels[column], marks, [judged.patients[place] for place in known], cut, rounds)


def overlaps(areas: Values) -> tuple[Values, Values]:
    """Dice and IoU of areas ``[n, 3]``; 1 where both masks are empty."""
    said, true, both = (areas[:, column].astype(np.float64) for column in (SAID, TRUE, BOTH))
    return dice(said, true, both), iou(said, true, both)


def _mean(values: Values, patients: Sequence[str], rounds: int) -> Interval:
    return by_patients(
        lambda drawn, _: float(drawn.mean()), values, np.ones(len(values), np.bool_), patients, rounds=rounds
    )


def write_judged(file: Path, judged: Judged) -> None:
    """One row an image: probabilities and truths (empty where not known), and Dice where there are maps."""
    head = ["image", "patient", "group"]
    for label in judged.labels:
        head += [label, f"{label} truth", *([f"{label} dice"] if judged.areas is not None else [])]
    dices = None
    if judged.areas is not None:
        dices = np.stack([overlaps(judged.areas[:, column])[0] for column in range(len(judged.labels))], axis=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        for row, name in enumerate(judged.names):
            cells = [name, judged.patients[row], judged.groups[row]]
            for column in range(len(judged.labels)):
                known = judged.known[row, column] > 0
                cells += [f"{judged.scores[row, column]:.5f}", f"{judged.truths[row, column]:g}" if known else ""]
                if dices is not None:
                    cells.append("" if math.isnan(dices[row, column]) else f"{dices[row, column]:.4f}")
            writer.writerow(cells)
