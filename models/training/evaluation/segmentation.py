"""How well masks cover what readers marked: pure functions of maps, masks and areas.

Two empty masks have no overlap to speak of. The literature counts them as 1, and then a model that marks nothing scores
the share of images without the finding; so each figure is given over images with the finding as well, and what marking
nothing would score stands beside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract import Mask, Pixels
from models.training.metrics import Interval, by_patients, proportion

Values = NDArray[np.float64]
CUTS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Map thresholds over which overlaps are followed."""


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """What was marked on ``n`` images whose truth about places is known, in pixels of each image.

    ``predicted`` and ``both`` are ``[n, cuts]``: above each map threshold, and of that inside the truth. ``served`` and
    ``served_both`` ``[n]`` are of the mask that the node would deliver (its own cut-offs, specks dropped, nothing where
    the finding counts as absent). ``hits`` ``[n]`` says whether the strongest place is marked in truth, NaN where
    nothing is.
    """

    cuts: tuple[float, ...]
    true: Values
    predicted: Values
    both: Values
    served: Values
    served_both: Values
    hits: Values


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Dice and IoU of one way of marking; ``_all`` counts two empty masks as 1."""

    dice: Interval
    iou: Interval
    dice_all: Interval
    iou_all: Interval
    pooled_dice: float


@dataclass(frozen=True, slots=True)
class Segmented:
    """Figures of one finding's places.

    ``map`` is of the map cut at ``threshold`` alone, ``served`` of what the node delivers. ``nothing`` is the Dice over
    all images of a model that never marks anything. ``marked_negatives`` is the share of images without the finding on
    which the node would mark something. ``scheduler`` is mean Dice on positives at each of ``cuts``.
    """

    label: str
    images: int
    positives: int
    positive_patients: int
    threshold: float
    map: Overlaps
    served: Overlaps
    nothing: float
    marked_negatives: Interval
    pointing: Interval
    cuts: tuple[float, ...]
    scheduler: tuple[float, ...]

    @property
    def best_cut(self) -> float:
        """The map threshold of the largest Dice on positives; chosen on these very images."""
        return self.cuts[int(np.nanargmax(self.scheduler))] if np.isfinite(self.scheduler).any() else math.nan

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {**asdict(self), "best_cut": self.best_cut}


def areas_above(values: Pixels, truth: Mask, cuts: Sequence[float] | NDArray[np.floating]) -> tuple[Values, Values]:
    """Pixels of a map ``[h, w]`` at or above each rising cut, and how many of them lie in the truth ``bool[h, w]``."""
    place = np.searchsorted(np.asarray(cuts, dtype=np.float32), values.ravel(), side="right")
    everywhere = np.bincount(place, minlength=len(cuts) + 1)
    inside = np.bincount(place[truth.ravel()], minlength=len(cuts) + 1)
    predicted = np.cumsum(everywhere[::-1])[::-1][1:]
    both = np.cumsum(inside[::-1])[::-1][1:]
    return predicted.astype(np.float64), both.astype(np.float64)


def dice(predicted: Values, true: Values, both: Values) -> Values:
    """Dice coefficients from areas; 1 where both masks are empty."""
    return _ratio(2 * both, predicted + true)


def iou(predicted: Values, true: Values, both: Values) -> Values:
    """Intersections over unions from areas; 1 where both masks are empty."""
    return _ratio(both, predicted + true - both)


def segment(label: str, marked: Marked, patients: Sequence[str], threshold: float, rounds: int = 1000) -> Segmented:
    """All figures of one finding; ``threshold`` must be one of the cuts. NaN where no image has the finding."""
    positive = marked.true > 0
    cut = marked.cuts.index(threshold)
    negatives = int((~positive).sum())
    hits = marked.hits[positive]
    swept = dice(marked.predicted, marked.true[:, np.newaxis], marked.both)[positive]
    return Segmented(
        label=label,
        images=len(marked.true),
        positives=int(positive.sum()),
        positive_patients=len({who for who, ill in zip(patients, positive, strict=True) if ill}),
        threshold=threshold,
        map=_overlaps(marked.predicted[:, cut], marked.true, marked.both[:, cut], patients, rounds),
        served=_overlaps(marked.served, marked.true, marked.served_both, patients, rounds),
        nothing=negatives / len(positive) if len(positive) else math.nan,
        marked_negatives=proportion(int((marked.served[~positive] > 0).sum()), negatives),
        pointing=proportion(int(hits.sum()), len(hits)),
        cuts=marked.cuts,
        scheduler=tuple(swept.mean(axis=0).tolist()) if len(swept) else (math.nan,) * len(marked.cuts),
    )


def _overlaps(predicted: Values, true: Values, both: Values, patients: Sequence[str], rounds: int) -> Overlaps:
    positive = true > 0
    ill = [who for who, has in zip(patients, positive, strict=True) if has]
    dices, ious = dice(predicted, true, both), iou(predicted, true, both)
    total = float(predicted.sum() + true.sum())
    return Overlaps(
        dice=mean_by_patients(dices[positive], ill, rounds),
        iou=mean_by_patients(ious[positive], ill, rounds),
        dice_all=mean_by_patients(dices, patients, rounds),
        iou_all=mean_by_patients(ious, patients, rounds),
        pooled_dice=float(2 * both.sum() / total) if total else math.nan,
    )


def mean_by_patients(values: Values, patients: Sequence[str], rounds: int = 1000) -> Interval:
    """A mean over images with its bootstrap interval over patients; NaN of nothing."""
    if not len(values):
        return Interval(math.nan, math.nan, math.nan)
    everybody = np.ones(len(values), dtype=np.bool_)
    return by_patients(lambda drawn, _: float(drawn.mean()), values, everybody, patients, rounds=rounds)


def _ratio(part: Values, whole: Values) -> Values:
    ratio: Values = np.where(whole == 0, 1.0, part / np.where(whole == 0, 1.0, whole))
    return ratio
