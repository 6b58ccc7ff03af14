"""The graphs of the bundled networks: a classifier with a map of every finding, and the gate with its distance."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from models.architectures.pooling import probability_weighted_pooling
from models.encoders.initial import start
from models.encoders.lite0 import BATCH_NORM_MOMENTUM, LAST_OF_STRIDE, head, imagenet_scale, stages_of, trunk

ENCODER = "efficientnet-lite0"
MAP_STRIDE = 16
MAP_FILTERS = 128
GATE_STAGES = 5
FEATURES = "features"


def _join(fine: Any, coarse: Any) -> Any:
    """Features at the finer stride that know the coarser one's context."""
    fine = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="fine_norm")(
        layers.Conv2D(MAP_FILTERS, 1, use_bias=False, name="fine")(fine)
    )
    coarse = layers.Conv2D(MAP_FILTERS, 1, use_bias=False, name="coarse")(coarse)
    coarse = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="coarse_norm")(coarse)
    coarse = layers.UpSampling2D(2, interpolation="bilinear", name="coarse_up")(coarse)
    x = layers.ReLU(6.0, name="joined")(layers.Add(name="join")([fine, coarse]))
    x = layers.SeparableConv2D(MAP_FILTERS, 3, padding="same", use_bias=False, name="mix")(x)
    return layers.ReLU(6.0, name="mixed")(layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="mix_norm")(x))


def classifier(
    size: int, labels: int, width: float, initial: str, dropout: float, *, prior: float = -2.0
) -> keras.Model:
    """Network from ``[n, size, size, 1]`` in ``[0, 1]`` to ``logits [n, labels]`` and ``maps [n, h, w, labels]``.

    ``h = w = size / 16``. A logit is the sum of the label's pooled map and of a view of the whole image, which carries
    what has no place (heart size, position of the diaphragm). ``prior`` is the logit that every place starts from.
    """
    image = keras.Input((size, size, 1), name="image")
    features = trunk(imagenet_scale(image), stages_of(width))
    coarse = features[-1]
    joined = _join(features[LAST_OF_STRIDE[MAP_STRIDE]], coarse)
    joined = layers.SpatialDropout2D(dropout / 3, name="map_dropout")(joined)
    bias = keras.initializers.Constant(prior)
    places = layers.Conv2D(labels, 1, bias_initializer=bias, dtype="float32", name="places")(joined)
    maps = layers.Activation("sigmoid", dtype="float32", name="maps")(places)
    pooled = probability_weighted_pooling(places)
    headed = head(coarse, width)
    whole = layers.GlobalAveragePooling2D(name="whole")(headed)
    whole = layers.Dense(labels, dtype="float32", name="whole_logits")(layers.Dropout(dropout, name="dropout")(whole))
    logits = layers.Add(dtype="float32", name="logits")([pooled, whole])
    start(keras.Model(image, headed), ENCODER, initial, packaged=True, width=width)
    return keras.Model(image, {"logits": logits, "maps": maps}, name="chest_classifier")


def feature_network(size: int, width: float, initial: str) -> keras.Model:
    """Network from ``[n, size, size, 1]`` in ``[0, 1]`` to ``[n, channels]``: averages of two late stages of the trunk.

    The last stage before the head is left out: it knows ImageNet's classes more than textures. Of Lite0 there remain
    112 channels at stride 16 and 192 at stride 32.
    """
    image = keras.Input((size, size, 1), name="image")
    stages = trunk(imagenet_scale(image), stages_of(width)[:-1])
    fine = layers.GlobalAveragePooling2D(name="fine_average")(stages[-2])
    coarse = layers.GlobalAveragePooling2D(name="coarse_average")(stages[-1])
    network = keras.Model(image, layers.Concatenate(name=FEATURES)([fine, coarse]), name="frozen_features")
    start(network, ENCODER, initial, packaged=True, width=width)
    return network


def gate(size: int, classes: int, width: float, initial: str, dropout: float) -> keras.Model:
    """Network from ``[n, size, size, 1]`` in ``[0, 1]`` to ``logits [n, classes]`` and ``features [n, channels]``."""
    image = keras.Input((size, size, 1), name="image")
    stages = trunk(imagenet_scale(image), stages_of(width)[:GATE_STAGES])
    pooled = [
        layers.GlobalAveragePooling2D(name="pooled_fine")(stages[-2]),
        layers.GlobalAveragePooling2D(name="pooled_coarse")(stages[-1]),
    ]
    features = layers.Concatenate(dtype="float32", name=FEATURES)(pooled)
    logits = layers.Dense(classes, dtype="float32", name="logits")(layers.Dropout(dropout, name="dropout")(features))
    start(keras.Model(image, features), ENCODER, initial, packaged=True, width=width)
    return keras.Model(image, {"logits": logits, FEATURES: features}, name="chest_gate")


def freeze(model: keras.Model, width: float, stages: int) -> int:
    """Hold the stem and the first ``stages`` stages still (weights and statistics); returns the layers frozen."""
    blocks = sum(stage.repeats for stage in stages_of(width)[:stages])
    names = ("stem", *(f"block{index}_" for index in range(blocks))) if stages else ()
    frozen = [layer for layer in model.layers if layer.name.startswith(names)] if names else []
    for layer in frozen:
        layer.trainable = False
    return len(frozen)


LEAST_SPREAD = 0.1
"""Standard deviation of features, as a share of their root mean square, that :func:`fit_distance` counts at least."""


def mahalanobis_distance(features: Any, mean: NDArray[np.float32], whitening: NDArray[np.float32]) -> Any:
    """Distance of features ``[n, channels]`` from those of known chests, in standard deviations a channel: ``[n]``.

    Made of Keras's own layers, so that it travels in the exported graph and a saved file needs no class of ours. The
    mean is taken away before whitening: afterwards it would be the small difference of two large sums, whose rounding
    differs from processor to processor.
    """
    centred = layers.Rescaling(1.0, offset=(-mean).tolist(), name="centre")(features)
    whiten = layers.Dense(whitening.shape[1], use_bias=False, trainable=False, name="whiten")
    whitened = whiten(centred)
    whiten.set_weights([whitening])
    return layers.Identity(name="distance")(ops.sqrt(ops.mean(ops.square(whitened), axis=-1)))


def fit_distance(
    features: NDArray[np.float32], shrinkage: float = 0.1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and whitening matrix of features ``[n, channels]``.

    The covariance is drawn by ``shrinkage`` towards a multiple of the identity, without which a few hundred images
    would make some directions far too narrow. That multiple is no smaller than ``LEAST_SPREAD`` of the features
    themselves: a distance of features that are all alike would count their rounding.
    """
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    covariance = np.cov(wide, rowvar=False)
    least = (LEAST_SPREAD**2) * float(np.mean(np.square(wide)))
    level = max(np.trace(covariance) / len(covariance), least)
    covariance = (1 - shrinkage) * covariance + shrinkage * level * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-12))
    return mean.astype(np.float32), whitening.astype(np.float32)
