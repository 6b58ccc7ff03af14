"""The one table of encoders: every U-Net, classifier and detector takes its features from here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import keras

from models.encoders import densenet, initial, lite0, plain, resnet, vgg
from models.encoders.lite0 import imagenet_scale
from models.encoders.parts import caffe_scaled, centred, torch_scaled
from models.encoders.torch_weights import Naming, dense_name, residual_name

STRIDES = (2, 4, 8, 16, 32)
"""The strides that every encoder has features at; ``plain``, ``light`` and VGG have them at stride 1 as well."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """One encoder: how a grey image becomes its input, and how features come of that.

    ``scale`` turns ``[n, h, w, 1]`` in ``[0, 1]`` into ``[n, h, w, 3]`` as the published weights expect it (without
    them an image goes from -1 to 1); ``build`` turns this, with the width, into features by stride. ``packaged``: a
    package has its ImageNet weights. ``naming``: what PyTorch calls its layers, where it has the same network.
    """

    title: str
    scale: Callable[[Any], Any]
    build: Callable[[Any, float], dict[int, Any]]
    packaged: bool = False
    naming: Naming | None = None


def _resnet(block: resnet.Block, repeats: tuple[int, ...], *, bias: bool = False) -> Callable[..., dict[int, Any]]:
    return partial(resnet.build, block=block, repeats=repeats, bias=bias)


ENCODERS: MappingProxyType[str, Encoder] = MappingProxyType(
    {
        "light": Encoder("light U-Net encoder", centred, partial(plain.build, filters=plain.LIGHT)),
        "plain": Encoder("plain U-Net encoder", centred, partial(plain.build, filters=plain.PLAIN)),
        "resnet18": Encoder("ResNet-18", torch_scaled, _resnet(resnet.basic, (2, 2, 2, 2)), naming=residual_name),
        "resnet34": Encoder("ResNet-34", torch_scaled, _resnet(resnet.basic, (3, 4, 6, 3)), naming=residual_name),
        "resnet50": Encoder("ResNet-50", caffe_scaled, _resnet(resnet.bottleneck, (3, 4, 6, 3), bias=True)),
        "resnet101": Encoder("ResNet-101", caffe_scaled, _resnet(resnet.bottleneck, (3, 4, 23, 3), bias=True)),
        "se-resnext50": Encoder(
            "SE-ResNeXt-50 (32x4d)", torch_scaled, _resnet(resnet.se_resnext, (3, 4, 6, 3)), naming=residual_name
        ),
        "se-resnext101": Encoder(
            "SE-ResNeXt-101 (32x4d)", torch_scaled, _resnet(resnet.se_resnext, (3, 4, 23, 3)), naming=residual_name
        ),
        "densenet121": Encoder("DenseNet-121", torch_scaled, densenet.build, naming=dense_name),
        "vgg16": Encoder("VGG-16", caffe_scaled, partial(vgg.build, blocks=vgg.VGG16)),
        "vgg-small": Encoder("small VGG", centred, partial(vgg.build, blocks=vgg.SMALL, normalised=True)),
        "efficientnet-lite0": Encoder("EfficientNet-Lite0", imagenet_scale, lite0.build, packaged=True),
    }
)
NAMES = tuple(ENCODERS)


def encode(name: str, grey: Any, width: float = 1.0, start: str = initial.RANDOM) -> dict[int, Any]:
    """Features of a radiograph by stride (:data:`STRIDES`, finer first): ``{2: [n, h/2, w/2, channels], ...}``.

    ``grey`` is a Keras tensor ``[n, h, w, 1]`` in ``[0, 1]``, height and width known and multiples of 32. ``start`` is
    ``random``, ``imagenet`` or the path of a weights file (:mod:`models.encoders.initial`). A network may hold one
    encoder of a kind; one that needs two nests them as models of their own, for layers are named as published.

    Raises:
        ValueError: no such encoder, an odd size, or weights that are not to be had.
    """
    if name not in ENCODERS:
        raise ValueError(f"there is no encoder '{name}'; there are: {', '.join(ENCODERS)}")
    height, width_in_pixels = grey.shape[1:3]
    if not height or not width_in_pixels or height % 32 or width_in_pixels % 32:
        raise ValueError(f"an encoder needs an image whose sides are multiples of 32, not {height} x {width_in_pixels}")
    chosen = ENCODERS[name]
    image = (centred if start == initial.RANDOM else chosen.scale)(grey)
    features = chosen.build(image, width)
    body = keras.Model(image, list(features.values()), name="encoder")
    initial.start(body, name, start, packaged=chosen.packaged, width=width, naming=chosen.naming)
    return features
