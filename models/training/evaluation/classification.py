"""Figures of classification: pure functions of arrays of scores.

*Accuracy* has two meanings here, each named: the share of images that were called rightly, and, as in the first work of
the literature, the mean of sensitivity and specificity, which does not reward calling everything by the larger class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from models.training.figures import LabelFigures, figures_of
from models.training.metrics import Interval, proportion

Scores = NDArray[np.floating]
Truths = NDArray[np.bool_]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Operating:
    """What comes of one cut-off: a score at or above it calls an image positive."""

    threshold: float
    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int

    @property
    def sensitivity(self) -> Interval:
        """Share of positives that are called, with its Wilson interval."""
        return proportion(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> Interval:
        """Share of negatives that are not called, with its Wilson interval."""
        return proportion(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def precision(self) -> Interval:
        """Share of the called that are positive (here: it depends on how many are), with its Wilson interval."""
        return proportion(self.true_positives, self.true_positives + self.false_positives)

    @property
    def accuracy(self) -> float:
        """Share of all images that are called rightly."""
        images = self.true_positives + self.false_negatives + self.false_positives + self.true_negatives
        return (self.true_positives + self.true_negatives) / images if images else math.nan

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity."""
        return (self.sensitivity.value + self.specificity.value) / 2

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {
            **asdict(self),
            "sensitivity": asdict(self.sensitivity),
            "specificity": asdict(self.specificity),
            "precision": asdict(self.precision),
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
        }


@dataclass(frozen=True, slots=True)
class Classified:
    """Figures of one finding; ``best`` is at Youden's cut-off, which was chosen on these very images."""

    figures: LabelFigures
    chosen: Operating
    best: Operating

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {**asdict(self.figures), "chosen": self.chosen.as_dict(), "best": self.best.as_dict()}


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often each class (a row) was called each class (a column)."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    how: str

    @property
    def accuracy(self) -> float:
        """Share on the diagonal."""
        total = sum(map(sum, self.counts))
        return sum(row[place] for place, row in enumerate(self.counts)) / total if total else math.nan

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {**asdict(self), "accuracy": self.accuracy}


def operating(scores: Scores, truths: Truths, threshold: float) -> Operating:
    """Count what a cut-off does."""
    called = scores >= threshold
    return Operating(
        threshold=threshold,
        true_positives=int((called & truths).sum()),
        false_negatives=int((~called & truths).sum()),
        false_positives=int((called & ~truths).sum()),
        true_negatives=int((~called & ~truths).sum()),
    )


def classify(
    label: str, scores: Scores, truths: Truths, patients: Sequence[str], threshold: float, rounds: int = 1000
) -> Classified | None:
    """All figures of scores ``[n]`` against truths ``[n]``; None unless there are positives and negatives."""
    figures = figures_of(label, scores, truths, patients, threshold, rounds)
    if figures is None:
        return None
    return Classified(figures, operating(scores, truths, threshold), operating(scores, truths, figures.youden))


def precision_recall(scores: Scores, truths: Truths) -> list[Point]:
    """Recall and precision at each distinct score, from the highest on; empty without positives."""
    if not truths.any():
        return []
    precision, recall, _ = precision_recall_curve(truths, scores)
    return list(zip(recall[-2::-1].tolist(), precision[-2::-1].tolist(), strict=True))


def confusion(truths: Sequence[int], called: Sequence[int], classes: Sequence[str], how: str) -> Confusion:
    """Count pairs of class numbers."""
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (np.asarray(truths, dtype=int), np.asarray(called, dtype=int)), 1)
    return Confusion(tuple(classes), tuple(tuple(row) for row in counts.tolist()), how)


def exclusive_confusion(
    labels: Sequence[str], scores: Scores, truths: Truths, known: Truths, thresholds: Sequence[float]
) -> Confusion | None:
    """The matrix of classes that exclude each other, from ``[n, L]`` arrays; None where they do not, or are too few.

    Where every image has exactly one of the labels, the most probable is called. Where some have none, *none of these*
    is a class of its own, called where no label reaches its cut-off.
    """
    whole = known.all(axis=1)
    present = truths[whole].sum(axis=1)
    if len(labels) < 2 or not whole.any() or (present > 1).any() or not present.any():
        return None
    best = scores[whole].argmax(axis=1)
    true = truths[whole].argmax(axis=1)
    if (present == 1).all():
        return confusion(true.tolist(), best.tolist(), labels, "the most probable class is called")
    reached = (scores[whole] >= np.asarray(thresholds)).any(axis=1)
    true, called = np.where(present == 1, true, len(labels)), np.where(reached, best, len(labels))
    how = "the most probable class is called if any reaches its cut-off"
    return confusion(true.tolist(), called.tolist(), (*labels, "none of these"), how)


def reading_confusion(
    opacity: Scores, abnormal: Scores, truths: Sequence[int], thresholds: tuple[float, float]
) -> Confusion:
    """RSNA's three classes from two probabilities: opacity first, then abnormal, then normal.

    ``truths`` number the classes normal, no opacity but not normal, lung opacity.
    """
    called = np.where(opacity >= thresholds[0], 2, np.where(abnormal >= thresholds[1], 1, 0))
    classes = ("normal", "no opacity, not normal", "lung opacity")
    how = "lung opacity where it reaches its cut-off, else not normal where abnormal reaches its own, else normal"
    return confusion(list(truths), called.tolist(), classes, how)
