"""The linear support vector machine with squared hinge loss: the exact one of liblinear, and its loss for training.

    minimise  ½ ‖w‖² + C Σ max(0, 1 - t · wᵀx)²        over w, with t = ±1

``x`` carries a constant 1 as its last value, so the offset is part of ``w`` and is regularised with it. This is the
L2-SVM that Tang (*Deep Learning using Linear Support Vector Machines*, 2013) puts on a network in the place of softmax.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.svm import LinearSVC

from models.architectures.calibration import Platt, fit_platt
from models.architectures.losses import split_truth

Array = NDArray[np.floating]
FOLDS = 5


class DegenerateData(ValueError):  # noqa: N818 - reads as a sentence where it is caught
    """A label has examples of one kind only: no plane can part them."""


def solve(features: Array, truths: NDArray[np.bool_], cost: float, *, balanced: bool = False) -> Array:
    """The plane ``w [d + 1]`` (offset last) that parts ``features [n, d]`` by ``truths [n]`` best.

    ``balanced`` gives both kinds the same total cost, whatever their numbers.

    Raises:
        DegenerateData: all truths are the same.
    """
    if truths.all() or not truths.any():
        raise DegenerateData(f"{len(truths)} examples, all of one kind")
    machine = _machine(cost, balanced).fit(features, truths)
    return np.asarray([*machine.coef_[0], machine.intercept_[0]], np.float64)


def _machine(cost: float, balanced: bool) -> LinearSVC:
    """Liblinear, on the primal problem unless there are fewer examples than features: there its Newton steps stall."""
    weights = "balanced" if balanced else None
    return LinearSVC(C=cost, dual="auto", tol=1e-6, max_iter=10_000, class_weight=weights, random_state=0)


def crossed_platt(features: Array, truths: NDArray[np.bool_], cost: float, *, balanced: bool = False) -> Platt:
    """How margins become probabilities, fitted on margins of points that the plane had not seen.

    The margins of a machine's own training points are far too good: calibrated on them, it would be sure of everything.
    Where a fold leaves examples of one kind only, nothing is changed.
    """
    folds = np.arange(len(features)) % FOLDS
    if any(len(np.unique(truths[folds != fold])) < 2 for fold in range(FOLDS)):
        return Platt()
    machine, split = _machine(cost, balanced), PredefinedSplit(folds)
    margins = cross_val_predict(machine, features, truths, cv=split, method="decision_function")
    return fit_platt(margins, truths)


def squared_hinge(truth: Any, margins: Any) -> Any:
    """``max(0, 1 - t m)²`` of margins ``[n, labels]``, weighted by how far each label is known; one value an example.

    ``truth`` is packed (:mod:`models.architectures.losses`); its values 0 and 1 stand for t = -1 and +1.
    """
    values, weights = split_truth(truth)
    slack = ops.maximum(0.0, 1.0 - (2.0 * values - 1.0) * margins)
    return ops.mean(weights * slack * slack, axis=-1)
