"""The region proposal network (Ren et al., 2015): for each anchor whether anything is there, and where exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.detectors.anchors import AnchorPlan
from models.detectors.fpn import Head, output_layer, rows
from models.detectors.layers import AnchorBoxes, Proposals

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
