"""The published networks that Keras itself has: VGG-16, ResNet-50 and 101, DenseNet-121 of ``keras.applications``.

Their layers are laid out anew on a radiograph, so that a saved network is one flat graph, that trials can have fewer
filters and blocks, and that normalisation forgets fast enough for short training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from models.encoders.parts import NORM_MOMENTUM, repeated, scaled

_REPEATED = re.compile(r"(conv\d+_block|block\d+_conv)(\d+)(_|$)")
"""Names of layers of a repeated unit: a block of ResNet and DenseNet, a convolution of VGG; its stage, its number."""


@dataclass(frozen=True, slots=True)
class Application:
    """A network of ``keras.applications``, and by stride the names of the layers whose results are its features."""

    network: Callable[..., keras.Model]
    features: Mapping[int, str]


def _residual(*blocks: int) -> dict[int, str]:
    return {2: "conv1_relu", **{2**stage: f"conv{stage}_block{last}_out" for stage, last in enumerate(blocks, start=2)}}


VGG16 = Application(
    keras.applications.VGG16,
    {
        1: "block1_conv2",
        2: "block2_conv2",
        4: "block3_conv3",
        8: "block4_conv3",
        16: "block5_conv3",
        32: "block5_pool",
    },
)
RESNET50 = Application(keras.applications.ResNet50, _residual(3, 4, 6, 3))
RESNET101 = Application(keras.applications.ResNet101, _residual(3, 4, 23, 3))
DENSENET121 = Application(
    keras.applications.DenseNet121, {2: "conv1_relu", 4: "pool2_relu", 8: "pool3_relu", 16: "pool4_relu", 32: "relu"}
)


def build(image: Any, application: Application, width: float, weights: str | None) -> dict[int, Any]:
    """Features by stride of ``image [n, h, w, 3]``; ``weights`` as Keras takes them: none, ``imagenet`` or a file.

    Raises:
        ValueError: there are no such weights, they cannot be fetched, or they do not fit.
    """
    published = _published(application, weights)
    counts = _counts(published)
    results: dict[str, Any] = {}

    def _call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        found = _REPEATED.match(layer.name)
        if found and int(found[2]) > repeated(counts[found[1]], width):
            (given,) = args
            result = given[0] if isinstance(given, list) else given  # of a sum or a chain: what came into the block
        else:
            result = layer(*args, **kwargs)
        results[layer.name] = result
        return result

    own = keras.models.clone_model(
        published, input_tensors=image, clone_function=lambda layer: _own(layer, width), call_function=_call
    )
    if weights is not None:
        own.set_weights(published.get_weights())
    return {stride: results[name] for stride, name in application.features.items()}


def _published(application: Application, weights: str | None) -> keras.Model:
    try:
        return application.network(include_top=False, weights=weights)
    except Exception as error:  # Keras raises Exception itself where a download fails
        raise ValueError(f"initial weights '{weights}' cannot be had: {error}") from error


def _counts(network: keras.Model) -> dict[str, int]:
    """How often the unit of each stage is repeated."""
    found = [match for layer in network.layers if (match := _REPEATED.match(layer.name))]
    return {match[1]: int(match[2]) for match in sorted(found, key=lambda match: int(match[2]))}


def _own(layer: keras.layers.Layer, width: float) -> keras.layers.Layer:
    """A layer like that of Keras, started for ReLU (He et al., 2015) and with a shorter memory."""
    config = layer.get_config()
    if isinstance(layer, keras.layers.Conv2D):
        config.update(filters=scaled(layer.filters, width), kernel_initializer="he_normal")
    elif isinstance(layer, keras.layers.BatchNormalization):
        config.update(momentum=NORM_MOMENTUM)
    return type(layer).from_config(config)
