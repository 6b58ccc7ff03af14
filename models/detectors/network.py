"""Feature pyramid network (Lin et al., 2017): features of one depth at every stride, fine ones told by coarse ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import initializers, layers, ops

from models.detectors.boxes import AnchorPlan
from models.detectors.layers import AnchorBoxes, Proposals
from models.encoders.parts import scaled

FILTERS = 256


def pyramid(features: Mapping[int, Any], strides: Sequence[int], width: float, coarser: int = 0) -> dict[int, Any]:
    """Features of the encoder's ``strides`` (ascending), and ``coarser`` further ones, each of twice the stride.

    The coarser ones come from the encoder's last features by convolutions of stride 2 (as in RetinaNet). Layers are
    named ``fpn_<stride>``.
    """
    filters = scaled(FILTERS, width)
    merged: Any = None
    found: dict[int, Any] = {}
    for stride in reversed(strides):
        lateral = layers.Conv2D(filters, 1, name=f"fpn_lateral_{stride}")(features[stride])
        if merged is not None:
            above = layers.UpSampling2D(2, name=f"fpn_up_{stride}")(merged)
            lateral = layers.Add(name=f"fpn_add_{stride}")([lateral, above])
        merged = lateral
        found[stride] = _convolution(filters, f"fpn_{stride}")(merged)
    last, x = strides[-1], features[strides[-1]]
    for _ in range(coarser):
        last *= 2
        x = _convolution(filters, f"fpn_{last}", stride=2)(x)
        found[last] = x
        x = layers.ReLU(name=f"fpn_relu_{last}")(x)
    return dict(sorted(found.items()))


def _convolution(filters: int, name: str, stride: int = 1) -> layers.Conv2D:
    return layers.Conv2D(filters, 3, stride, padding="same", kernel_initializer="he_normal", name=name)


class Head:
    """A small convolutional network that is run over features of every stride with the same weights."""

    def __init__(self, name: str, filters: int, depth: int) -> None:
        self._name = name
        self._convolutions = [_convolution(filters, f"{name}_{index}") for index in range(depth)]

    def features(self, pyramid_features: Mapping[int, Any]) -> list[Any]:
        """What the network makes of the features of each stride."""
        found = []
        for stride, x in pyramid_features.items():
            for index, convolution in enumerate(self._convolutions):
                x = layers.ReLU(name=f"{self._name}_{index}_relu_{stride}")(convolution(x))
            found.append(x)
        return found


def rows(maps: Sequence[Any], layer: layers.Layer, values: int, name: str) -> Any:
    """Run a last layer over features of all strides; its answers as one list ``[n, anchors, values]``.

    The order is that of :meth:`models.detectors.boxes.AnchorPlan.boxes`.
    """
    flat = [ops.reshape(layer(x), (-1, x.shape[1] * x.shape[2] * layer.filters // values, values)) for x in maps]
    return layers.Concatenate(axis=1, name=name, dtype="float32")(flat) if len(flat) > 1 else _named(flat[0], name)


def _named(x: Any, name: str) -> Any:
    return layers.Activation("linear", name=name, dtype="float32")(x)


def output_layer(filters: int, name: str, bias: float = 0.0, kernel: int = 3) -> layers.Conv2D:
    """A last convolution that says almost the same everywhere at first (``bias``)."""
    return layers.Conv2D(
        filters,
        kernel,
        padding="same",
        kernel_initializer=initializers.RandomNormal(stddev=0.01),
        bias_initializer=initializers.Constant(bias),
        name=name,
    )


OVERLAP = 0.7
"""Proposals that overlap a better one by more than this come last."""
CANDIDATES = 4
"""Candidates for each proposal."""


def region_network(features: Mapping[int, Any], anchors: AnchorPlan, filters: int) -> tuple[Any, Any]:
    """``rpn_logits [n, anchors, 1]`` and ``rpn_deltas [n, anchors, 4]``, the same weights at every stride."""
    maps = Head("rpn", filters, 1).features(features)
    logits = rows(maps, output_layer(anchors.each, "rpn_class", kernel=1), 1, "rpn_logits")
    return logits, rows(maps, output_layer(anchors.each * 4, "rpn_box", kernel=1), 4, "rpn_deltas")


def proposals(logits: Any, deltas: Any, anchors: AnchorPlan, count: int) -> Any:
    """The ``count`` most promising boxes of each image, ``[n, count, 4]``; no gradient passes."""
    count = min(count, anchors.count)
    place = AnchorBoxes(anchors.size, anchors.strides, anchors.scales, anchors.ratios, name="anchor_boxes")
    choose = Proposals(count, min(CANDIDATES * count, anchors.count), OVERLAP, name="proposals")
    return choose(logits, place(deltas))
