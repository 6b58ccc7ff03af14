"""The figures behind a finding: computed from predictions and truths alone, the same for a report and a manifest."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.model_spec import Evidence, LabelSpec, Mode
from models.training.codes import DELIVERABLE, SITES, code_of
from models.training.evaluation.detection import Detected, detect, marks_of
from models.training.evaluation.lesions import COLUMN_NAMES, LesionFigures, lesion_figures, silenced
from models.training.evaluation.segmentation import dice, iou
from models.training.metrics import (
    Interval,
    auc,
    average_precision,
    by_patients,
    calibration_error,
    proportion,
    sensitivity_specificity,
    youden_threshold,
)
from models.training.predicted import BOTH, MARKED, TRUE, Predicted

Values = NDArray[np.floating]
LEAST_POSITIVES = 30
LEAST_AUC = 0.6
LEAST_POINTING, LEAST_DICE = 0.5, 0.3
"""What the lower bounds of a place's figures must be above before it is shown: the share of images whose strongest
place lies inside what readers marked, and the mean Dice of masks."""


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """All that was measured about one label; NaN where it could not be."""

    label: str
    images: int
    positives: int
    positive_patients: int
    auc: Interval
    average_precision: float
    threshold: float
    sensitivity: Interval
    specificity: Interval
    youden: float
    calibration_error: float
    brier: float


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
    lesions: dict[str, dict[str, LesionFigures]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For ``evidence/NAME.json``."""
        return {
            "labels": {name: asdict(item) for name, item in self.labels.items() if item is not None},
            "places": {name: asdict(item) for name, item in self.places.items() if item is not None},
            "boxes": {name: item.as_dict() for name, item in self.boxes.items() if item is not None},
            "lesions": {
                name: {against: item.as_dict() for against, item in found.items()}
                for name, found in self.lesions.items()
            },
        }


def figures_of(
    label: str,
    scores: NDArray[np.floating],
    truths: NDArray[np.bool_],
    patients: Sequence[str],
    threshold: float | None = None,
    rounds: int = 1000,
) -> LabelFigures | None:
    """Figures of scores ``[n]`` against known truths ``[n]``; ``threshold`` defaults to Youden's. None without both."""
    youden = youden_threshold(scores, truths)
    if math.isnan(youden):
        return None
    cut = youden if threshold is None else threshold
    sensitivity, specificity = sensitivity_specificity(scores, truths, cut)
    positives = int(truths.sum())
    return LabelFigures(
        label=label,
        images=len(truths),
        positives=positives,
        positive_patients=len({patient for patient, ill in zip(patients, truths, strict=True) if ill}),
        auc=by_patients(auc, scores, truths, patients, rounds=rounds),
        average_precision=average_precision(scores, truths),
        threshold=cut,
        sensitivity=proportion(round(sensitivity * positives), positives),
        specificity=proportion(round(specificity * (len(truths) - positives)), len(truths) - positives),
        youden=youden,
        calibration_error=calibration_error(scores, truths),
        brier=float(np.mean((scores - truths) ** 2)),
    )


def label_spec(figures: LabelFigures, *, localised: bool, map_threshold: float) -> LabelSpec:
    """How a label ships: active only where enough patients stand behind a figure that is clearly better than chance."""
    enough = figures.positive_patients >= LEAST_POSITIVES and figures.auc.low > LEAST_AUC
    area = figures.auc
    low, high = min(area.low, area.value), max(area.high, area.value)
    spec = LabelSpec(
        name=figures.label,
        code=code_of(figures.label),
        threshold=float(f"{np.clip(figures.threshold, 0.001, 0.999):.4g}"),
        localised=localised,
        mode=Mode.ACTIVE if enough and figures.label in DELIVERABLE else Mode.SHADOW,
        evidence=Evidence(
            figures.positives, *(round(value, 4) for value in (area.value, low, high, figures.sensitivity.value))
        ),
        site=SITES.get(figures.label),
    )
    return replace(spec, map_threshold=map_threshold) if localised else spec


def figures(
    predicted: Predicted,
    cut_off: float | None,
    map_cut: float,
    rounds: int = 1000,
    cut_offs: Mapping[str, float] | None = None,
) -> Figures:
    """Everything that can be measured; ``cut_off`` None is Youden's, ``map_cut`` one of the cuts of the areas.

    ``cut_offs`` are those of single labels, in the place of ``cut_off``.
    """
    labels, places, boxes, lesions = {}, {}, {}, {}
    for column, label in enumerate(predicted.labels):
        known = predicted.known[:, column] > 0
        patients = [patient for patient, use in zip(predicted.patients, known, strict=True) if use]
        scores, truths = predicted.scores[known, column], predicted.prevalent[known, column]
        own = (cut_offs or {}).get(label, cut_off)
        labels[label] = figures_of(label, scores, truths, patients, own, rounds)
        places[label] = _places(predicted, column, map_cut, rounds)
        found = labels[label]
        boxes[label] = _boxes(predicted, column, found.threshold if found else 0.5, rounds)
        if predicted.lesions is not None:
            lesions[label] = _lesions(predicted, column, found.threshold if found else 0.5, map_cut, rounds)
    return Figures(labels, places, boxes, lesions)


def _places(predicted: Predicted, column: int, map_cut: float, rounds: int) -> PlaceFigures | None:
    if predicted.areas is None or predicted.hits is None:
        return None
    areas, hits = areas_at(predicted, map_cut)[:, column].astype(np.float64), predicted.hits[:, column]
    known = ~np.isnan(areas[:, TRUE])
    positive = known & (areas[:, TRUE] > 0)
    if not positive.any():
        return None
    dices, ious = overlaps(areas)
    patients = [patient for patient, use in zip(predicted.patients, positive, strict=True) if use]
    return PlaceFigures(
        label=predicted.labels[column],
        images=int(known.sum()),
        positives=int(positive.sum()),
        dice=_mean(dices[positive], patients, rounds),
        iou=_mean(ious[positive], patients, rounds),
        dice_all=float(dices[known].mean()),
        pointing=proportion(int(hits[positive].sum()), int(positive.sum())),
    )


def _lesions(predicted: Predicted, column: int, cut: float, map_cut: float, rounds: int) -> dict[str, LesionFigures]:
    """A segmenter's lesions as the node delivers them: nothing is marked where the finding is not present."""
    assert predicted.lesions is not None
    assert predicted.kinds is not None
    rows = predicted.lesions[:, column, _cut_number(predicted, map_cut)].astype(np.float64)
    known = ~np.isnan(rows[:, TRUE])
    shown = silenced(rows[known], predicted.scores[known, column] >= cut)
    patients = [patient for patient, use in zip(predicted.patients, known, strict=True) if use]
    return lesion_figures(predicted.labels[column], shown, predicted.kinds[known, column].tolist(), patients, rounds)


def _boxes(predicted: Predicted, column: int, cut: float, rounds: int) -> Detected | None:
    """A detector's boxes, over images whose boxes are known."""
    if predicted.boxes is None or predicted.true_boxes is None:
        return None
    known = np.flatnonzero(predicted.placed[:, column] > 0)
    true = predicted.true_boxes[known]
    # The truth numbers the recipe's labels, the answer the served ones; detectors serve all that they are taught.
    if not (np.rint(true[..., 4]) == column).any():
        return None
    marks = [marks_of(predicted.boxes[place].astype(np.float64), predicted.true_boxes[place].astype(np.float64), column)
             for place in known]  # fmt: skip
    return detect(predicted.labels[column], marks, [predicted.patients[place] for place in known], cut, rounds)


def areas_at(predicted: Predicted, map_cut: float) -> Values:
    """Areas ``[n, L, 3]`` of maps cut there."""
    assert predicted.areas is not None
    return predicted.areas[:, :, _cut_number(predicted, map_cut)]


def _cut_number(predicted: Predicted, map_cut: float) -> int:
    assert predicted.cuts is not None
    return int(np.argmin(np.abs(predicted.cuts - map_cut)))


def best_map_cut(predicted: Predicted) -> float:
    """The cut of the best mean IoU over images and labels with a finding; the middle one where no place is known."""
    if predicted.areas is None or predicted.cuts is None:
        return 0.5
    there = predicted.areas[..., 0, TRUE] > 0
    means = [
        float(overlaps(predicted.areas[:, :, cut][there])[1].mean()) if there.any() else 0.0
        for cut in range(len(predicted.cuts))
    ]
    best = int(np.argmax(means)) if there.any() else len(means) // 2
    return round(float(predicted.cuts[best]), 3)


def overlaps(areas: Values) -> tuple[Values, Values]:
    """Dice and IoU of areas ``[n, 3]``; 1 where both masks are empty."""
    predicted, true, both = (areas[..., column].astype(np.float64) for column in (MARKED, TRUE, BOTH))
    return dice(predicted, true, both), iou(predicted, true, both)


def _mean(values: Values, patients: Sequence[str], rounds: int) -> Interval:
    return by_patients(
        lambda drawn, _: float(drawn.mean()), values, np.ones(len(values), np.bool_), patients, rounds=rounds
    )


def write_evidence(file: Path, predicted: Predicted, map_cut: float) -> None:
    """One row an image: probabilities and truths (empty where not known), Dice where there are maps, and of a segmenter
    what its truth is and the row of :func:`models.training.evaluation.lesions.compare`, in pixels of its input.

    ``unscaled`` is what the network says itself, where the probability is scaled behind it. What is marked is
    told of every image, whether or not the finding is called present there.
    """
    columns = [_columns(predicted, number, map_cut) for number in range(len(predicted.labels))]
    head = ["image", "patient", "group", *(name for own in columns for name in own)]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        cells = [cells for own in columns for cells in own.values()]
        writer.writerows(zip(predicted.names, predicted.patients, predicted.groups, *cells, strict=True))


def _columns(predicted: Predicted, number: int, map_cut: float) -> dict[str, list[str]]:
    """The columns of one label, by their names."""
    label, known = predicted.labels[number], predicted.known[:, number] > 0
    scores, truths = predicted.scores[:, number], predicted.truths[:, number]
    columns = {label: [f"{score:.5f}" for score in scores]}
    if predicted.unscaled is not None:
        columns[f"{label} unscaled"] = [f"{score:.5f}" for score in predicted.unscaled[:, number]]
    columns[f"{label} truth"] = [f"{truth:g}" if sure else "" for truth, sure in zip(truths, known, strict=True)]
    if predicted.areas is not None:
        dices = overlaps(areas_at(predicted, map_cut))[0][:, number]
        columns[f"{label} dice"] = ["" if math.isnan(value) else f"{value:.4f}" for value in dices]
    if predicted.lesions is not None and predicted.kinds is not None:
        rows = predicted.lesions[:, number, _cut_number(predicted, map_cut)]
        columns[f"{label} against"] = ["" if math.isnan(row[TRUE]) else str(kind)
                                       for kind, row in zip(predicted.kinds[:, number], rows, strict=True)]  # fmt: skip
        for place, name in enumerate(COLUMN_NAMES):
            columns[f"{label} {name}"] = ["" if math.isnan(row[place]) else f"{row[place]:g}" for row in rows]
    return columns
