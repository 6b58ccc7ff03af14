"""The figures behind a finding: computed from predictions and labels alone, the same for a report and a manifest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.architectures.calibration import Platt, fit_platt
from models.contract import Evidence, LabelSpec, Mode
from models.training.codes import SITES, code_of
from models.training.dataset import Example
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
from models.training.predictions import Predictions, known_truths
from models.training.targets import DELIVERABLE

LEAST_POSITIVES = 30
LEAST_AUC = 0.6


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


def label_figures(
    label: str,
    probabilities: NDArray[np.floating],
    examples: Sequence[Example],
    threshold: float | None = None,
    rounds: int = 1000,
) -> LabelFigures | None:
    """Figures of one label's probabilities ``[n]``; ``threshold`` defaults to Youden's. None without both classes."""
    judged, truths = known_truths(examples, label)
    patients = [item.patient for item, use in zip(examples, judged, strict=True) if use]
    return figures_of(label, probabilities[judged], truths[judged], patients, threshold, rounds)


def figures_of(
    label: str,
    scores: NDArray[np.floating],
    truths: NDArray[np.bool_],
    patients: Sequence[str],
    threshold: float | None = None,
    rounds: int = 1000,
) -> LabelFigures | None:
    """Figures of scores ``[n]`` against known truths ``[n]``; the same as :func:`label_figures` without a data set."""
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


def calibrations(said: Predictions, examples: Sequence[Example]) -> list[Platt]:
    """Platt scaling of every label from logits of examples that the network had not seen."""
    fitted = []
    for column, label in enumerate(said.labels):
        judged, truths = known_truths(examples, label)
        fitted.append(fit_platt(said.scores[judged, column], truths[judged]))
    return fitted


def crossed_probabilities(said: Predictions, examples: Sequence[Example]) -> NDArray[np.floating]:
    """Calibrated probabilities where each group's scaling was fitted on the other groups: honest calibration error."""
    groups = np.array(said.groups)
    probabilities = np.zeros_like(said.scores, dtype=np.float64)
    for column, label in enumerate(said.labels):
        judged, truths = known_truths(examples, label)
        for group in np.unique(groups):
            inside = groups == group
            rest = judged & ~inside
            scaling = fit_platt(said.scores[rest, column], truths[rest]) if rest.any() else Platt()
            probabilities[inside, column] = scaling(said.scores[inside, column])
    return probabilities


def label_spec(figures: LabelFigures, *, localised: bool, map_threshold: float) -> LabelSpec:
    """How a label ships: active only where enough patients stand behind a figure that is clearly better than chance."""
    enough = figures.positive_patients >= LEAST_POSITIVES and figures.auc.low > LEAST_AUC
    spec = LabelSpec(
        name=figures.label,
        code=code_of(figures.label),
        threshold=float(np.clip(figures.threshold, 0.001, 0.999)),
        localised=localised,
        mode=Mode.ACTIVE if enough and figures.label in DELIVERABLE else Mode.SHADOW,
        evidence=Evidence(
            figures.positives, figures.auc.value, figures.auc.low, figures.auc.high, figures.sensitivity.value
        ),
        site=SITES.get(figures.label),
    )
    return replace(spec, map_threshold=map_threshold) if localised else spec


def place_figures(said: Predictions) -> dict[str, Any]:
    """Pointing game and IoU of the opacity map over all images with readers' boxes."""
    boxed = ~np.isnan(said.hits)
    hits = said.hits[boxed]
    return {
        "images": int(boxed.sum()),
        "pointing": asdict(proportion(int(hits.sum()), len(hits))),
        "iou": float(said.overlaps[boxed].mean()) if boxed.any() else math.nan,
    }


def as_dict(figures: LabelFigures) -> dict[str, Any]:
    """For ``metrics.json``."""
    return asdict(figures)
