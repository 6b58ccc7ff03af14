"""EfficientNet-Lite0 in Keras 3, for any backend: the trunk of Pleura's classifier and gate.

Lite0 (Google, 2020) is EfficientNet-B0 without squeeze-and-excitation and with ReLU6, so that it runs well on plain
CPUs. Layer names follow the order of the published weights, so that :mod:`models.efficientnet.weights` can fill them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.95
STEM_FILTERS = 32
HEAD_FILTERS = 1280


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of inverted residual blocks; only the first of them strides and changes the number of channels."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


LITE0: tuple[Stage, ...] = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def _normalise(x: Any, name: str, *, relu: bool) -> Any:
    """Batch normalisation with the published constants, then ReLU6 where asked."""
    x = layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if relu else x


def _block(x: Any, stage: Stage, stride: int, name: str) -> Any:
    """One inverted residual: expand (1x1), depthwise, project (1x1), and the shortcut where shapes allow."""
    shortcut, channels = x, int(x.shape[-1])
    if stage.expansion != 1:
        x = layers.Conv2D(channels * stage.expansion, 1, use_bias=False, name=f"{name}_expand")(x)
        x = _normalise(x, f"{name}_expand", relu=True)
    x = layers.DepthwiseConv2D(stage.kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = _normalise(x, f"{name}_depthwise", relu=True)
    x = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}_project")(x)
    x = _normalise(x, f"{name}_project", relu=False)
    if stride == 1 and channels == stage.filters:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def trunk(image: Any, plan: tuple[Stage, ...] = LITE0) -> list[Any]:
    """Features after every stage of ``plan``.

    ``image`` is ``[batch, height, width, 3]``, normalised as by :func:`imagenet_scale`. Lite0's seven results have
    strides 2, 4, 8, 16, 16, 32, 32 relative to the image.
    """
    x = layers.Conv2D(STEM_FILTERS, 3, 2, padding="same", use_bias=False, name="stem")(image)
    x = _normalise(x, "stem", relu=True)
    features, index = [], 0
    for stage in plan:
        for repeat in range(stage.repeats):
            x = _block(x, stage, stage.stride if repeat == 0 else 1, f"block{index}")
            index += 1
        features.append(x)
    return features


def head(features: Any) -> Any:
    """Lite0's last convolution: 1280 channels at stride 32."""
    x = layers.Conv2D(HEAD_FILTERS, 1, use_bias=False, name="head")(features)
    return _normalise(x, "head", relu=True)


def imagenet_scale(grey: Any) -> Any:
    """Turn ``[batch, height, width, 1]`` in ``[0, 1]`` into the three channels that Lite0 was trained on.

    The published preprocessing of the Lite models is ``(value - 127) / 128`` for values from 0 to 255.
    """
    scaled = layers.Rescaling(255.0 / 128.0, offset=-127.0 / 128.0, name="imagenet_scale")(grey)
    return layers.Concatenate(name="grey_to_rgb")([scaled, scaled, scaled])


def lite0(size: int = 224, classes: int = 1000) -> keras.Model:
    """The whole ImageNet classifier (softmax over 1,000 classes), to check the converted weights against."""
    image = keras.Input((size, size, 3), name="image")
    x = head(trunk(image)[-1])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax", name="classes")(x), name="efficientnet_lite0")


MAP_FILTERS = 128
TINY: tuple[Stage, ...] = (
    Stage(1, 3, 1, 1, 8),
    Stage(1, 3, 2, 2, 12),
    Stage(1, 3, 2, 2, 16),
    Stage(1, 3, 2, 2, 24),
    Stage(1, 3, 2, 2, 32),
)
"""A trunk of five small blocks: for tests and for trying a recipe in seconds."""
PLANS = {"lite0": LITE0, "tiny": TINY}


def probability_weighted_pooling(logits: Any) -> Any:
    """Logit of an image from the logits of its places, each weighted by its own probability (PCAM, Ye et al. 2020).

    ``[n, h, w, labels]`` to ``[n, labels]``. The map keeps its meaning: the places that say *yes* decide.
    """
    weights = ops.sigmoid(logits)
    return ops.sum(weights * logits, axis=(1, 2)) / (ops.sum(weights, axis=(1, 2)) + 1e-6)


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


def _finest(features: list[Any], side: int) -> Any:
    return [item for item in features if item.shape[1] == side][-1]


def build_classifier(
    size: int, labels: int, plan: tuple[Stage, ...] = LITE0, dropout: float = 0.3, prior: float = -2.0
) -> keras.Model:
    """Network from ``[n, size, size, 1]`` in ``[0, 1]`` to ``logits [n, labels]`` and ``maps [n, h, w, labels]``.

    ``h = w = size / 16``. A logit is the sum of the label's pooled map and of a view of the whole image, which carries
    what has no place (heart size, position of the diaphragm). ``prior`` is the logit that every place starts from.
    """
    image = keras.Input((size, size, 1), name="image")
    features = trunk(imagenet_scale(image), plan)
    coarse = features[-1]
    joined = _join(_finest(features, size // 16), coarse)
    joined = layers.SpatialDropout2D(dropout / 3, name="map_dropout")(joined)
    bias = keras.initializers.Constant(prior)
    places = layers.Conv2D(labels, 1, bias_initializer=bias, name="places")(joined)
    maps = layers.Activation("sigmoid", name="maps")(places)
    pooled = probability_weighted_pooling(places)
    whole = layers.GlobalAveragePooling2D(name="whole")(head(coarse) if plan is LITE0 else coarse)
    whole = layers.Dense(labels, name="whole_logits")(layers.Dropout(dropout, name="dropout")(whole))
    logits = layers.Add(name="logits")([pooled, whole])
    return keras.Model(image, {"logits": logits, "maps": maps}, name="chest_classifier")


def freeze(model: keras.Model, plan: tuple[Stage, ...], stages: int) -> int:
    """Hold the stem and the first ``stages`` stages still (weights and statistics); returns the layers frozen."""
    blocks = sum(stage.repeats for stage in plan[:stages])
    names = ("stem", *(f"block{index}_" for index in range(blocks))) if stages else ()
    frozen = [layer for layer in model.layers if layer.name.startswith(names)] if names else []
    for layer in frozen:
        layer.trainable = False
    return len(frozen)


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
