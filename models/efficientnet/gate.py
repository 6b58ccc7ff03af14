"""The gate: a small network that says whether an image is an upright, whole, not inverted frontal chest radiograph."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from models.efficientnet.network import LITE0, Stage, imagenet_scale, trunk

GATE_STAGES = 5
FEATURES = "features"


def build_gate(
    size: int, classes: int, plan: tuple[Stage, ...] = LITE0[:GATE_STAGES], dropout: float = 0.2
) -> keras.Model:
    """Network from ``[n, size, size, 1]`` in ``[0, 1]`` to ``logits [n, classes]`` and ``features [n, channels]``."""
    image = keras.Input((size, size, 1), name="image")
    stages = trunk(imagenet_scale(image), plan)
    pooled = [
        layers.GlobalAveragePooling2D(name="pooled_fine")(stages[-2]),
        layers.GlobalAveragePooling2D(name="pooled_coarse")(stages[-1]),
    ]
    features = layers.Concatenate(name=FEATURES)(pooled)
    logits = layers.Dense(classes, name="logits")(layers.Dropout(dropout, name="dropout")(features))
    return keras.Model(image, {"logits": logits, FEATURES: features}, name="chest_gate")


def mahalanobis_distance(features: Any, mean: NDArray[np.float32], whitening: NDArray[np.float32]) -> Any:
    """Distance of features ``[n, channels]`` from those of known chests, in standard deviations a channel: ``[n]``.

    Made of a dense layer (whitening matrix, and the whitened mean as its offset), so that it travels in the exported
    graph and a saved file needs no class of ours.
    """
    whiten = layers.Dense(whitening.shape[1], trainable=False, name="whiten")
    whitened = whiten(features)
    whiten.set_weights([whitening, -(mean.astype(np.float64) @ whitening.astype(np.float64)).astype(np.float32)])
    return layers.Identity(name="distance")(ops.sqrt(ops.mean(ops.square(whitened), axis=-1)))


def fit_distance(
    features: NDArray[np.float32], shrinkage: float = 0.1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and whitening matrix of features ``[n, channels]``.

    The covariance is drawn by ``shrinkage`` towards a multiple of the identity, without which a few hundred images
    would make some directions far too narrow.
    """
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    covariance = np.cov(wide, rowvar=False)
    level = np.trace(covariance) / len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * level * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-12))
    return mean.astype(np.float32), whitening.astype(np.float32)
