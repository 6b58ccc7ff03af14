"""What detectors read from features of several strides: heads of shared weights, lists of answers, proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import initializers, layers, ops

from models.detectors.boxes import AnchorPlan
from models.detectors.layers import AnchorBoxes, Proposals
from models.encoders.pyramid import pyramid_convolution

FILTERS = 256


class Head:
    """A small convolutional network that is run over features of every stride with the same weights."""

    def __init__(self, name: str, filters: int, depth: int) -> None:
        self._name = name
        self._convolutions = [pyramid_convolution(filters, f"{name}_{index}") for index in range(depth)]

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
