"""Agreement of two ways to run one network: how far their outputs differ, for any kind of network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Answers = Mapping[str, Array]
DETECTIONS = ("boxes", "scores", "classes")


def difference(one: Answers, other: Answers, leaving_out: Iterable[str] = ()) -> float:
    """The largest difference of any output ``[n, ...]``; values beyond 1, as pixels are, count relative to the largest.

    Detections are compared as sets: two of almost the same score may change places, and the last of a fixed number may
    give way to another one, with nobody the worse for it. What is no number is infinitely far from everything.
    """
    names = set(one) - set(leaving_out)
    if not all(np.isfinite(answer[name]).all() for answer in (one, other) for name in names):
        return math.inf
    worst = 0.0
    if {"boxes", "scores"} <= names:
        names -= set(DETECTIONS)
        worst = _detections_apart(one, other)
    for name in names:
        worst = max(worst, float(np.max(np.abs(one[name] - other[name]), initial=0.0)) / _scale(one[name]))
    return worst


def _detections_apart(one: Answers, other: Answers) -> float:
    scale = _scale(one["boxes"])
    worst = 0.0
    for mine, theirs in zip(_rows(one), _rows(other), strict=True):
        worst = max(worst, _missing(mine, theirs, scale), _missing(theirs, mine, scale))
    return worst


def _rows(answers: Answers) -> Array:
    """Detections ``[n, d, 6]``: edges, score, class (0 where the network does not say it)."""
    classes = answers.get("classes", np.zeros_like(answers["scores"]))
    return np.concatenate([answers["boxes"], np.stack([answers["scores"], classes], axis=-1)], axis=-1)


def _missing(rows: Array, others: Array, scale: float) -> float:
    """How far the worst of ``rows [d, 6]`` is from the nearest of ``others``, or from being too improbable for them."""
    real = rows[rows[:, 4] > 0]
    if not len(real):
        return 0.0
    edges = np.abs(real[:, np.newaxis, :4] - others[np.newaxis, :, :4]).max(axis=-1) / scale
    scores = np.abs(real[:, np.newaxis, 4] - others[np.newaxis, :, 4])
    same = np.rint(real[:, np.newaxis, 5]) == np.rint(others[np.newaxis, :, 5])
    nearest = np.where(same, np.maximum(edges, scores), np.inf).min(axis=1, initial=np.inf)
    too_low = np.maximum(real[:, 4] - others[:, 4].min(initial=np.inf), 0.0)
    return float(np.minimum(nearest, too_low).max())


def _scale(values: Array) -> float:
    return max(1.0, float(np.max(np.abs(values), initial=0.0)))
