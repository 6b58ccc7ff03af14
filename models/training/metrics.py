"""Figures about scores, probabilities and places, in plain NumPy: pure functions of arrays.

Intervals are 95 % and come from resampling *patients*, since images of one patient are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """Area under the ROC curve: how often a positive outranks a negative, ties counting half; NaN without either."""
    positives = int(truths.sum())
    negatives = len(truths) - positives
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[truths].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: Scores, truths: Truths) -> float:
    """Area under the precision-recall curve as a sum of steps; NaN without positives."""
    if not truths.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    hits, ranked = np.cumsum(truths[order]), scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    precision = hits[last] / (np.flatnonzero(last) + 1)
    recall = hits[last] / truths.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def roc_curve(scores: Scores, truths: Truths) -> tuple[Scores, Scores, Scores]:
    """False and true positive rates, and their thresholds (a score at the threshold counts as positive)."""
    thresholds = np.unique(scores)[::-1]
    positives = np.sort(scores[truths])
    negatives = np.sort(scores[~truths])
    true = 1 - np.searchsorted(positives, thresholds, "left") / max(1, len(positives))
    false = 1 - np.searchsorted(negatives, thresholds, "left") / max(1, len(negatives))
    return np.append(0.0, false), np.append(0.0, true), np.append(np.inf, thresholds)


def youden_threshold(scores: Scores, truths: Truths) -> float:
    """Cut-off of largest sensitivity + specificity - 1, half-way to the next lower score; NaN without both classes."""
    if truths.all() or not truths.any():
        return math.nan
    false, true, thresholds = roc_curve(scores, truths)
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
    return float(sum(share * abs(said - seen) for said, seen, share in calibration_curve(probabilities, truths, bins)))


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
