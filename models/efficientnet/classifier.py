"""The classifier: Lite0, a map of every label at stride 16, and one probability a label pooled from its map."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from models.efficientnet.network import BATCH_NORM_MOMENTUM, LITE0, Stage, head, imagenet_scale, trunk

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
