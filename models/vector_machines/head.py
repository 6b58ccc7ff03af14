"""A linear support vector machine as the last layer of a network, and how it is fitted and served."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from models.architectures.contract import Architecture, Batches, Plan
from models.vector_machines.objective import DegenerateData, crossed_platt, solve

FEATURES, NORM, MARGINS, CALIBRATED = "features", "features_norm", "margins", "calibrated"
EPSILON = 1e-6


def head(features: Any, labels: int, shrink: float = 0.0) -> Any:
    """Margins ``[n, labels]`` of features ``[n, d]``, which are standardised first.

    ``shrink`` is the weight of ½‖w‖² beside the mean squared hinge loss, for training by gradient.
    """
    named = layers.Identity(name=FEATURES)(features)
    standard = layers.BatchNormalization(center=False, scale=False, epsilon=EPSILON, name=NORM)(named)
    regulariser = keras.regularizers.L2(0.5 * shrink) if shrink else None
    return layers.Dense(labels, kernel_regularizer=regulariser, name=MARGINS)(standard)


def calibration(margins: Any) -> Any:
    """Room for a slope and an offset a label, filled by :func:`fit_head`: ``[n, labels]`` to logits ``[n, labels]``.

    A normalisation with mean 0 and variance 1 is an affine map that any Keras can load and any ONNX run.
    """
    return layers.BatchNormalization(epsilon=EPSILON, name=CALIBRATED)(margins)


def features_of(network: keras.Model, batches: Batches) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[Any]]:
    """Features ``[n, d]`` of every example, its labels ``[n, labels]`` and whether each is known."""
    below = keras.Model(network.input, network.get_layer(FEATURES).output)
    found, truths, known = [], [], []
    for index in range(len(batches)):
        batch = batches[index]
        found.append(keras.ops.convert_to_numpy(below(batch.pixels, training=False)))
        truths.append(batch.labels >= 0.5)
        known.append(batch.known > 0)
    return np.concatenate(found), np.concatenate(truths), np.concatenate(known)


def fit_head(network: keras.Model, labels: tuple[str, ...], batches: Batches, cost: float, *, balanced: bool) -> None:
    """Put the exact machine for each label on the network's features, and its calibration behind it.

    Raises:
        DegenerateData: a label has examples of one kind only; the message names it.
    """
    features, truths, known = features_of(network, batches)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    flat = deviation < 1e-7  # a feature that never varies says nothing; its weight stays 0
    variance = np.where(flat, 1.0, deviation**2)
    network.get_layer(NORM).set_weights([mean, variance])
    standard = np.where(flat, 0.0, (features - mean) / np.sqrt(variance + EPSILON))
    planes, slopes, offsets = [], [], []
    for column, label in enumerate(labels):
        chosen = known[:, column]
        try:
            planes.append(solve(standard[chosen], truths[chosen, column], cost, balanced=balanced))
        except DegenerateData as error:
            raise DegenerateData(f"{label}: {error}") from error
        scaling = crossed_platt(standard[chosen], truths[chosen, column], cost, balanced=balanced)
        slopes.append(scaling.slope)
        offsets.append(scaling.offset)
    plane = np.stack(planes, axis=1)
    network.get_layer(MARGINS).set_weights([plane[:-1], plane[-1]])
    count = len(labels)
    scale = np.asarray(slopes) * np.sqrt(1.0 + EPSILON)
    network.get_layer(CALIBRATED).set_weights([scale, np.asarray(offsets), np.zeros(count), np.ones(count)])


class MachineArchitecture(Architecture):
    """Whatever ends in :func:`head` and :func:`calibration`; its options are ``cost`` (C) and ``balanced``."""

    __slots__ = ()

    def fit(self, network: keras.Model, plan: Plan, batches: Batches) -> keras.Model:
        """The exact machine for each label; see :func:`fit_head`."""
        cost, balanced = float(self.option(plan, "cost")), bool(self.option(plan, "balanced"))
        fit_head(network, plan.labels, batches, cost, balanced=balanced)
        return network

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """Calibrated probabilities."""
        probabilities = layers.Activation("sigmoid", name="probabilities")(network.get_layer(CALIBRATED).output)
        return keras.Model(network.input, {"probabilities": probabilities}, name=f"{network.name}_serving")
