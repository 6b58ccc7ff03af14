"""Feature pyramid network (Lin et al., 2017): features of one depth at every stride, coarse ones added to fine ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import layers


def pyramid(features: Mapping[int, Any], strides: Sequence[int], filters: int, coarser: int = 0) -> dict[int, Any]:
    """Features of the encoder's ``strides`` (ascending), and ``coarser`` further ones, each of twice the stride.

    The coarser ones come from the encoder's last features by convolutions of stride 2 (as in RetinaNet). Layers are
    named ``fpn_<stride>``.
    """
    merged: Any = None
    found: dict[int, Any] = {}
    for stride in reversed(strides):
        lateral = layers.Conv2D(filters, 1, name=f"fpn_lateral_{stride}")(features[stride])
        if merged is not None:
            above = layers.UpSampling2D(2, name=f"fpn_up_{stride}")(merged)
            lateral = layers.Add(name=f"fpn_add_{stride}")([lateral, above])
        merged = lateral
        found[stride] = pyramid_convolution(filters, f"fpn_{stride}")(merged)
    last, x = strides[-1], features[strides[-1]]
    for _ in range(coarser):
        last *= 2
        x = pyramid_convolution(filters, f"fpn_{last}", stride=2)(x)
        found[last] = x
        x = layers.ReLU(name=f"fpn_relu_{last}")(x)
    return dict(sorted(found.items()))


def pyramid_convolution(filters: int, name: str, stride: int = 1) -> layers.Conv2D:
    """A 3x3 convolution as those of a pyramid and of what reads it."""
    return layers.Conv2D(filters, 3, stride, padding="same", kernel_initializer="he_normal", name=name)
