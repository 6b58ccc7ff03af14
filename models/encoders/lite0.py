"""EfficientNet-Lite0 in Keras 3: the encoder of the bundled models, with ImageNet weights where they are wanted.

Lite0 (Google, 2020) is EfficientNet-B0 without squeeze-and-excitation and with ReLU6, so that it runs well on plain
CPUs. Layer names follow the order of the published weights, so that :mod:`models.encoders.lite0_weights` can fill them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import layers

from models.encoders.parts import repeated, scaled

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


def head(features: Any, width: float = 1.0) -> Any:
    """Lite0's last convolution: 1280 channels at stride 32."""
    x = layers.Conv2D(scaled(HEAD_FILTERS, width), 1, use_bias=False, name="head")(features)
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


LAST_OF_STRIDE = {2: 0, 4: 1, 8: 2, 16: 4, 32: 6}
"""For each stride, the last of Lite0's seven stages that has it."""


def stages_of(width: float) -> tuple[Stage, ...]:
    """Lite0's stages with filters and repeats scaled."""
    return tuple(
        replace(stage, filters=scaled(stage.filters, width), repeats=repeated(stage.repeats, width)) for stage in LITE0
    )


def build(image: Any, width: float) -> dict[int, Any]:
    """Features at strides 2 to 32."""
    results = trunk(image, stages_of(width))
    return {stride: results[index] for stride, index in LAST_OF_STRIDE.items()}
