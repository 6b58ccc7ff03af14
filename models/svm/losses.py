"""The linear support vector machine with squared hinge loss, as one function and its exact minimum.

    minimise  ½ ‖w‖² + C Σ max(0, 1 - t · wᵀx)²        over w, with t = ±1

``x`` carries a constant 1 as its last value, so the offset is part of ``w`` and is regularised with it. The problem is
convex and differentiable; L-BFGS finds its minimum without any choice of step or epochs. This is the L2-SVM that Tang
(*Deep Learning using Linear Support Vector Machines*, 2013) puts on a network in the place of softmax.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.architectures.calibration import Platt, fit_platt
from models.architectures.losses import split_truth

Array = NDArray[np.floating]
FOLDS = 5


class DegenerateData(ValueError):  # noqa: N818 - reads as a sentence where it is caught
    """A label has examples of one kind only: no plane can part them."""


def augmented(features: Array) -> Array:
    """Features ``[n, d]`` with the constant that carries the offset: ``[n, d + 1]``."""
    return np.concatenate([features, np.ones((len(features), 1))], axis=1).astype(np.float64)


def objective(weights: Array, points: Array, signs: Array, costs: Array) -> tuple[float, Array]:
    """Value and gradient at ``weights [d]`` for ``points [n, d]``, ``signs [n]`` of ±1 and a cost C for each point."""
    slack = np.maximum(0.0, 1.0 - signs * (points @ weights))
    value = 0.5 * float(weights @ weights) + float(np.sum(costs * slack**2))
    return value, weights - 2.0 * points.T @ (costs * slack * signs)


def solve(features: Array, truths: NDArray[np.bool_], cost: float, *, balanced: bool = False) -> Array:
    """The plane ``w [d + 1]`` (offset last) that parts ``features [n, d]`` by ``truths [n]`` best.

    ``balanced`` gives both kinds the same total cost, whatever their numbers.

    Raises:
        DegenerateData: all truths are the same.
    """
    if truths.all() or not truths.any():
        raise DegenerateData(f"{len(truths)} examples, all of one kind")
    points, signs = augmented(features), np.where(truths, 1.0, -1.0)
    costs = np.full(len(points), cost)
    if balanced:
        share = truths.mean()
        costs *= np.where(truths, 0.5 / share, 0.5 / (1.0 - share))
    start = np.zeros(points.shape[1])
    found = minimize(
        objective,
        start,
        (points, signs, costs),
        method="L-BFGS-B",
        jac=True,
        options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-13, "gtol": 1e-7},
    )
    return np.asarray(found.x, np.float64)


def crossed_platt(features: Array, truths: NDArray[np.bool_], cost: float, *, balanced: bool = False) -> Platt:
    """How margins become probabilities, fitted on margins of points that the plane had not seen.

    The margins of a machine's own training points are far too good: calibrated on them, it would be sure of everything.
    """
    margins = np.zeros(len(features))
    for fold in range(FOLDS):
        unseen = np.arange(len(features)) % FOLDS == fold
        if truths[~unseen].all() or not truths[~unseen].any():
            return Platt()
        plane = solve(features[~unseen], truths[~unseen], cost, balanced=balanced)
        margins[unseen] = augmented(features[unseen]) @ plane
    return fit_platt(margins, truths)


def squared_hinge(truth: Any, margins: Any) -> Any:
    """``max(0, 1 - t m)²`` of margins ``[n, labels]``, weighted by how far each label is known; one value an example.

    ``truth`` is packed (:mod:`models.architectures.losses`); its values 0 and 1 stand for t = -1 and +1.
    """
    values, weights = split_truth(truth)
    slack = ops.maximum(0.0, 1.0 - (2.0 * values - 1.0) * margins)
    return ops.mean(weights * slack * slack, axis=-1)
