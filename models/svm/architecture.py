"""A linear support vector machine as the last layer of a network, and how it is fitted and served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from models.architectures.base import Architecture, Batch, Batches, Loss, Plan, Truths
from models.encoders.table import encode
from models.model_spec import ModelKind
from models.svm.losses import DegenerateData, crossed_platt, solve, squared_hinge

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


class MachineHead(MachineArchitecture):
    """An encoder taught by the squared hinge loss through a linear layer, which is then solved exactly.

    While the encoder learns, the objective is divided by C times the number of examples, as gradient descent needs it:
    the mean squared hinge loss plus ``shrink`` · ½‖w‖². Afterwards the encoder stands still and the machine on its
    features has one best plane, which is found whatever the epochs before have left (:func:`fit_head`).
    """

    __slots__ = ()

    def build(self, plan: Plan) -> keras.Model:
        """Grey image to ``margins [n, labels]`` and their ``logits``, which mean something only after the fit."""
        image = keras.Input((plan.size, plan.size, 1), name="image")
        deepest = encode(plan.encoder, image, plan.width, plan.initial)[32]
        pooled = layers.GlobalAveragePooling2D(name="pooled")(deepest)
        margins = head(pooled, len(plan.labels), float(self.option(plan, "shrink")))
        return keras.Model(image, {MARGINS: margins, "logits": calibration(margins)}, name="support_vector_head")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Squared hinge on the margins."""
        return {MARGINS: squared_hinge}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """Labels and how far they are known, side by side."""
        return {MARGINS: np.concatenate([batch.labels, batch.known], axis=-1)}


DENSENET121_SVM = MachineHead(
    name="densenet121-svm",
    kind=ModelKind.CLASSIFIER,
    title="Deep features with a linear support vector machine",
    source="C",
    encoders=("densenet121", "resnet50", "vgg16", "efficientnet-lite0", "vgg-small"),
    options={"cost": 0.01, "shrink": 1e-4, "balanced": True},
)
