"""The one table of encoders: every U-Net, classifier and detector takes its features from here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import keras

from models.encoders import applications, initial, lite0, plain, resnet, vgg
from models.encoders.applications import Application
from models.encoders.lite0 import imagenet_scale
from models.encoders.parts import caffe_scaled, centred, torch_scaled
from models.encoders.torch_weights import Naming, residual_name

STRIDES = (2, 4, 8, 16, 32)
"""The strides that every encoder has features at; ``plain``, ``light`` and VGG have them at stride 1 as well."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """One encoder: how a grey image becomes its input, and how features come of that.

    ``scale`` turns ``[n, h, w, 1]`` in ``[0, 1]`` into ``[n, h, w, 3]`` as the published weights expect it (without
    them an image goes from -1 to 1); ``build`` turns this, with the width, into features by stride, or is a network
    that Keras has, with its weights. ``packaged``: a package has ImageNet weights of ours. ``naming``: what PyTorch
    calls its layers, where it has the same network.
    """

    title: str
    scale: Callable[[Any], Any]
    build: Callable[[Any, float], dict[int, Any]] | Application
    packaged: bool = False
    naming: Naming | None = None


def _residual(title: str, block: resnet.Block, *repeats: int) -> Encoder:
    return Encoder(title, torch_scaled, partial(resnet.build, block=block, repeats=repeats), naming=residual_name)


ENCODERS: MappingProxyType[str, Encoder] = MappingProxyType(
    {
        "light": Encoder("light U-Net encoder", centred, partial(plain.build, filters=plain.LIGHT)),
        "plain": Encoder("plain U-Net encoder", centred, partial(plain.build, filters=plain.PLAIN)),
        "resnet18": _residual("ResNet-18", resnet.basic, 2, 2, 2, 2),
        "resnet34": _residual("ResNet-34", resnet.basic, 3, 4, 6, 3),
        "resnet50": Encoder("ResNet-50", caffe_scaled, applications.RESNET50),
        "resnet101": Encoder("ResNet-101", caffe_scaled, applications.RESNET101),
        "se-resnext50": _residual("SE-ResNeXt-50 (32x4d)", resnet.se_resnext, 3, 4, 6, 3),
        "se-resnext101": _residual("SE-ResNeXt-101 (32x4d)", resnet.se_resnext, 3, 4, 23, 3),
        "densenet121": Encoder("DenseNet-121", torch_scaled, applications.DENSENET121),
        "vgg16": Encoder("VGG-16", caffe_scaled, applications.VGG16),
        "vgg-small": Encoder("small VGG", centred, vgg.build),
        "efficientnet-lite0": Encoder("EfficientNet-Lite0", imagenet_scale, lite0.build, packaged=True),
    }
)
NAMES = tuple(ENCODERS)


def encode(name: str, grey: Any, width: float = 1.0, start: str = initial.RANDOM) -> dict[int, Any]:
    """Features of a radiograph by stride (:data:`STRIDES`, finer first): ``{2: [n, h/2, w/2, channels], ...}``.

    ``grey`` is a Keras tensor ``[n, h, w, 1]`` in ``[0, 1]``, height and width known and multiples of 32. ``start`` is
    ``random``, ``imagenet`` or the path of a weights file (:mod:`models.encoders.initial`); for its own networks Keras
    fetches ImageNet's. A network may hold one encoder of a kind; one that needs two nests them as models of their own,
    for layers are named as published.

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
    if isinstance(chosen.build, Application):
        initial.check(start, width)
        return applications.build(image, chosen.build, width, None if start == initial.RANDOM else start)
    features = chosen.build(image, width)
    body = keras.Model(image, list(features.values()), name="encoder")
    initial.start(body, name, start, packaged=chosen.packaged, width=width, naming=chosen.naming)
    return features
