"""Figures about scores, probabilities and places: pure functions of arrays, scikit-learn's where it has them.

Our own are figures of one or two lines of NumPy, and what libraries lack: a bootstrap that resamples *patients*, since
images of one patient are not independent. Intervals are 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_curve

Scores = NDArray[np.floating]
Truths = NDArray[np.bool_]
Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def auc(scores: Scores, truths: Truths) -> float:
    """Area under the ROC curve: how often a positive outranks a negative, ties counting half; NaN without either.

    It is ``sklearn.metrics.roc_auc_score`` to the last bits, but from ranks alone: the bootstrap asks a thousand times
    for each interval, and of 200 images scikit-learn's takes fifty times longer.
    """
    positives = int(truths.sum())
    negatives = len(truths) - positives
    if not positives or not negatives:
        return math.nan
    return float((rankdata(scores)[truths].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: Scores, truths: Truths) -> float:
    """Area under the precision-recall curve as a sum of steps; NaN without positives."""
    return float(average_precision_score(truths, scores)) if truths.any() else math.nan


def roc_points(scores: Scores, truths: Truths) -> tuple[Scores, Scores, Scores]:
    """False and true positive rates at every score, from none called on, and these thresholds (at one: positive)."""
    false, true, thresholds = roc_curve(truths, scores, drop_intermediate=False)
    return false, true, thresholds


def youden_threshold(scores: Scores, truths: Truths) -> float:
    """Cut-off of largest sensitivity + specificity - 1, half-way to the next lower score; NaN without both classes."""
    if truths.all() or not truths.any():
        return math.nan
    false, true, thresholds = roc_points(scores, truths)
    best = int(np.argmax((true - false)[1:])) + 1
    below = thresholds[best + 1] if best + 1 < len(thresholds) else thresholds[best]
    return float((thresholds[best] + below) / 2)


def sensitivity_specificity(scores: Scores, truths: Truths, threshold: float) -> tuple[float, float]:
    """Shares of positives at or above, and of negatives below the threshold; NaN where there are none."""
    called = scores >= threshold
    sensitivity = float(called[truths].mean()) if truths.any() else math.nan
    specificity = float((~called[~truths]).mean()) if (~truths).any() else math.nan
    return sensitivity, specificity


def calibration_error(probabilities: Scores, truths: Truths, bins: int = 10) -> float:
    """Expected calibration error over ``bins`` equal ranges of probability, weighted by their numbers."""
    return float(
        sum(share * abs(predicted - seen) for predicted, seen, share in calibration_curve(probabilities, truths, bins))
    )


def calibration_curve(probabilities: Scores, truths: Truths, bins: int = 10) -> list[tuple[float, float, float]]:
    """For each filled bin: mean probability said, share of positives seen, share of all examples."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    points = []
    for index in range(bins):
        inside = place == index
        if inside.any():
            points.append((float(probabilities[inside].mean()), float(truths[inside].mean()), float(inside.mean())))
    return points


def by_patients(
    figure: Callable[[Scores, Truths], float],
    scores: Scores,
    truths: Truths,
    patients: Sequence[str],
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> Interval:
    """A figure with its bootstrap interval over patients; rounds without a positive or a negative are drawn again."""
    value = figure(scores, truths)
    groups: dict[str, list[int]] = {}
    for index, patient in enumerate(patients):
        groups.setdefault(patient, []).append(index)
    members = [np.array(group) for group in groups.values()]
    rng = np.random.default_rng(seed)
    draws: list[float] = []
    if not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    while len(draws) < rounds:
        chosen = np.concatenate([members[index] for index in rng.integers(len(members), size=len(members))])
        drawn = figure(scores[chosen], truths[chosen])
        if math.isfinite(drawn):
            draws.append(drawn)
    low, high = np.percentile(draws, (2.5, 97.5))
    return Interval(value, float(low), float(high))


def proportion(count: int, total: int) -> Interval:
    """A share with its Wilson interval."""
    if total == 0:
        return Interval(math.nan, math.nan, math.nan)
    share = count / total
    centre = (share + Z95**2 / (2 * total)) / (1 + Z95**2 / total)
    half = Z95 * math.sqrt(share * (1 - share) / total + Z95**2 / (4 * total**2)) / (1 + Z95**2 / total)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
