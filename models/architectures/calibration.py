"""From logits to calibrated probabilities: Platt scaling, one slope and one offset a label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
PRIOR_STRENGTH = 2.0
SLOPES = (0.2, 5.0)


@dataclass(frozen=True, slots=True)
class Platt:
    """``probability = sigmoid(slope * logit + offset)``."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, logits: Array) -> Array:
        """Probabilities of logits."""
        return sigmoid(self.slope * logits + self.offset)


def sigmoid(logits: Array) -> Array:
    """Probability of a logit, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64))))


def fit_platt(logits: Array, truths: NDArray[np.bool_], steps: int = 50) -> Platt:
    """Slope and offset of least cross-entropy, by Newton's method.

    A weak pull towards slope 1 (as strong as ``PRIOR_STRENGTH`` examples) keeps a handful of positives from making
    the probabilities extreme. Without both classes nothing is changed.
    """
    if truths.all() or not truths.any():
        return Platt()
    design = np.stack([np.asarray(logits, np.float64), np.ones(len(logits))], axis=1)
    target = truths.astype(np.float64)
    start, pull = np.array([1.0, 0.0]), np.array([PRIOR_STRENGTH, 1e-6])

    def loss(weights: Array) -> float:
        margins = design @ weights
        entropy = np.logaddexp(0.0, margins) - target * margins
        return float(entropy.sum() + 0.5 * (pull * (weights - start) ** 2).sum())

    weights = start.copy()
    for _ in range(steps):
        predicted = sigmoid(design @ weights)
        gradient = design.T @ (predicted - target) + pull * (weights - start)
        curvature = (design * (predicted * (1 - predicted))[:, None]).T @ design + np.diag(pull)
        change = np.linalg.solve(curvature, gradient)
        # Far from the minimum a whole step may lead away from it, and on to and fro for ever.
        while loss(weights - change) > loss(weights) and np.abs(change).max() > 1e-9:
            change = change / 2
        weights = weights - change
        if float(np.abs(change).max()) < 1e-9:
            break
    return Platt(float(np.clip(weights[0], *SLOPES)), float(weights[1]))
