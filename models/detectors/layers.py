"""Layers without weights: where a detector's network needs constants, a loop or single precision.

Each is a thin layer around functions that are tested by themselves, registered so that a saved network can be loaded
safely. All compute in single precision whatever the policy: half of it cannot tell pixels apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from models.detectors.boxes import EPSILON, REFINING, UNIT, AnchorPlan, area, clip, decode, overlaps

register = keras.saving.register_keras_serializable(package="pleura")


class _Plain(keras.layers.Layer):  # type: ignore[misc]
    """A layer whose arguments are all that is to be saved."""

    def __init__(self, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        super().__init__(**{**options, "dtype": "float32"})
        self._arguments = arguments

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"name": self.name, "trainable": self.trainable, **self._arguments}


@register
class AnchorBoxes(_Plain):
    """From corrections ``[n, anchors, 4]`` to boxes ``[n, anchors, 4]``, cut to the image; no gradient passes."""

    def __init__(
        self, size: int, strides: Sequence[int], scales: Sequence[float], ratios: Sequence[float], **options: Any
    ) -> None:
        arguments = {"size": size, "strides": list(strides), "scales": list(scales), "ratios": list(ratios)}
        super().__init__(arguments, options)
        self._anchors = AnchorPlan(size, tuple(strides), tuple(scales), tuple(ratios)).boxes()
        self._size = size

    def call(self, deltas: Any) -> Any:
        """See the class."""
        return ops.stop_gradient(clip(decode(deltas, ops.convert_to_tensor(self._anchors), UNIT, ops), self._size, ops))


@register
class Proposals(_Plain):
    """From ``logits [n, anchors, 1]`` and ``boxes [n, anchors, 4]`` to the ``count`` best boxes ``[n, count, 4]``.

    Of ``candidates`` of the highest scores, those that overlap a better one by more than ``overlap`` come last. Boxes
    thinner than a pixel come behind everything. No gradient passes (approximate joint training, Ren et al., 2015).
    """

    def __init__(self, count: int, candidates: int, overlap: float, **options: Any) -> None:
        super().__init__({"count": count, "candidates": candidates, "overlap": overlap}, options)
        self._count, self._candidates, self._overlap = count, candidates, overlap

    def call(self, logits: Any, boxes: Any) -> Any:
        """See the class."""
        chances = ops.sigmoid(ops.stop_gradient(logits)[..., 0])
        whole = ops.cast(area(boxes, ops) >= 1.0, chances.dtype)
        best, chosen = strongest(chances * whole, self._candidates, boxes)
        kept = greedy_keep(chosen, self._overlap) * ops.cast(best > 0.0, best.dtype)
        _, proposals = strongest(best + kept, self._count, chosen)
        return ops.stop_gradient(proposals)


@register
class Refined(_Plain):
    """From boxes ``[n, k, 4]`` and corrections ``[n, k, labels, 4]`` to boxes for each label, cut to the image."""

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__({"size": size}, options)
        self._size = size

    def call(self, boxes: Any, deltas: Any) -> Any:
        """See the class."""
        return clip(decode(deltas, boxes[:, :, None, :], REFINING, ops), self._size, ops)


@register
class Detections(_Plain):
    """The ``count`` best detections of ``boxes [n, k, labels or 1, 4]`` by ``scores [n, k, labels]``.

    Answers ``boxes [n, count, 4]``, ``scores [n, count]`` and ``classes [n, count]``, most probable first. Of
    ``candidates`` of the highest scores, one that overlaps a better one of its label by more than ``overlap`` is left
    out; rows that stay empty are all zero.
    """

    def __init__(self, count: int, candidates: int, overlap: float, **options: Any) -> None:
        super().__init__({"count": count, "candidates": candidates, "overlap": overlap}, options)
        self._count, self._candidates, self._overlap = count, candidates, overlap

    def call(self, boxes: Any, scores: Any) -> tuple[Any, Any, Any]:
        """See the class."""
        cells, labels = scores.shape[1], scores.shape[2]
        wide = ops.broadcast_to(boxes, (ops.shape(scores)[0], cells, labels, 4))
        kinds = ops.cast(ops.broadcast_to(ops.arange(labels), ops.shape(scores)), scores.dtype)
        pairs = cells * labels
        best, placed, kind = strongest(
            ops.reshape(scores, (-1, pairs)),
            self._candidates,
            ops.reshape(wide, (-1, pairs, 4)),
            ops.reshape(kinds, (-1, pairs)),
        )
        whole = ops.cast(area(placed, ops) >= 1.0, best.dtype)
        kept = best * greedy_keep(placed, self._overlap, kind) * whole
        final, where, what = strongest(kept, self._count, placed, kind)
        filled = ops.cast(final > 0.0, final.dtype)
        return self._padded(where * filled[..., None]), self._padded(final), self._padded(what * filled)

    def _padded(self, rows: Any) -> Any:
        """Fill up to ``count`` rows where there were fewer pairs than that."""
        missing = self._count - rows.shape[1]
        return ops.pad(rows, [(0, 0), (0, missing)] + [(0, 0)] * (len(rows.shape) - 2)) if missing > 0 else rows


@register
class RoiAlign(_Plain):
    """Features under boxes, ``[n, k, resolution, resolution, c]``; ``strides`` say which stride each feature has."""

    def __init__(self, strides: Sequence[int], resolution: int, **options: Any) -> None:
        super().__init__({"strides": list(strides), "resolution": resolution}, options)
        self._strides, self._resolution = tuple(strides), resolution

    def call(self, boxes: Any, features: Sequence[Any]) -> Any:
        """See the class."""
        return align_pyramid(boxes, features, self._strides, self._resolution)


@register
class PastedMasks(_Plain):
    """The masks of detections on one grid over the whole input: ``[n, grid, grid, labels]``, by :func:`paste_masks`."""

    def __init__(self, size: int, grid: int, **options: Any) -> None:
        super().__init__({"size": size, "grid": grid}, options)
        self._size, self._grid = size, grid

    def call(self, boxes: Any, scores: Any, classes: Any, masks: Any) -> Any:
        """See the class."""
        return paste_masks(boxes, scores, classes, masks, self._size, self._grid)


def greedy_keep(boxes: Any, threshold: float, kinds: Any = None) -> Any:
    """Which of ``boxes [n, k, 4]``, most probable first, greedy suppression keeps: ``[n, k]``, 1.0 or 0.0.

    A box goes if it overlaps a *kept* box before it by more than ``threshold``; where ``kinds [n, k]`` are given, only
    boxes of one kind see each other.

    The greedy answer is the only fixed point of "kept, unless a kept one before it overlaps it": repeating that from
    any guess completes the first box in the first round and one more at least in each further one. So the loop runs
    until nothing changes, which takes as many rounds as the longest chain of suppressions (a handful), and ``k`` at
    most.
    """
    boxes, count = ops.stop_gradient(boxes), boxes.shape[1]
    over = overlaps(boxes, boxes, ops) > threshold
    if kinds is not None:
        over = ops.logical_and(over, ops.equal(kinds[:, :, None], kinds[:, None, :]))
    earlier = ops.triu(ops.ones((count, count), dtype=boxes.dtype), 1)
    suppresses = ops.cast(over, boxes.dtype) * earlier

    def again(keep: Any, _changed: Any) -> tuple[Any, Any]:
        kept = ops.cast(ops.matmul(keep[:, None, :], suppresses)[:, 0, :] < 0.5, boxes.dtype)
        return kept, ops.any(ops.not_equal(kept, keep))

    every = ops.ones_like(boxes[..., 0])
    keep, _ = ops.while_loop(
        lambda _keep, changed: changed, again, (every, ops.any(every > 0.0)), maximum_iterations=count
    )
    return keep


def strongest(scores: Any, count: int, *arrays: Any) -> tuple[Any, ...]:
    """The ``count`` highest of ``scores [n, k]``, in descending order, and the same rows of ``arrays [n, k, ...]``."""
    best, rows = ops.top_k(scores, min(count, scores.shape[1]))
    return best, *(rows_of(array, rows) for array in arrays)


def rows_of(array: Any, rows: Any) -> Any:
    """``array[n, k, ...]`` at ``rows [n, c]`` of each example: ``[n, c, ...]``."""
    extra = len(array.shape) - 2
    if extra == 0:
        return ops.take_along_axis(array, rows, axis=1)
    index = ops.reshape(rows, (-1, rows.shape[1], *([1] * extra)))
    wide = ops.broadcast_to(index, (ops.shape(rows)[0], rows.shape[1], *array.shape[2:]))
    return ops.take_along_axis(array, wide, axis=1)


SAMPLES = 2
"""Points along each side of a cell of which the mean is taken."""
CANONICAL_SIDE = 224.0
CANONICAL_STRIDE = 16
"""A box with the side of an ImageNet picture looks at the features of this stride (Lin et al., FPN, 2017)."""


def align(boxes: Any, features: Any, stride: float, resolution: int) -> Any:
    """Features ``[n, h, w, c]`` of ``stride`` under ``boxes [n, k, 4]``: ``[n, k, resolution, resolution, c]``.

    A feature belongs to the centre of its cell; beyond the outermost centres their values hold on.
    """
    down = _picks(boxes[..., 1], boxes[..., 3], features.shape[1], stride, resolution)
    across = _picks(boxes[..., 0], boxes[..., 2], features.shape[2], stride, resolution)
    rows = ops.einsum("nkih,nhwc->nkiwc", down, features)
    return ops.einsum("nkjw,nkiwc->nkijc", across, rows)


def align_pyramid(boxes: Any, features: Sequence[Any], strides: Sequence[int], resolution: int) -> Any:
    """As :func:`align`, each box from the one of several features that suits its size."""
    if len(features) == 1:
        return align(boxes, features[0], strides[0], resolution)
    level = level_of(boxes, strides)
    parts = []
    for index, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        own = ops.cast(ops.equal(level, index), feature.dtype)
        parts.append(align(boxes, feature, stride, resolution) * own[:, :, None, None, None])
    return sum(parts[1:], parts[0])


def level_of(boxes: Any, strides: Sequence[int]) -> Any:
    """Which of the strides (ascending powers of two) each box ``[n, k, 4]`` looks at: ``float[n, k]``, an index."""
    side = ops.sqrt(ops.maximum(area(boxes, ops), EPSILON))
    octave = ops.floor(ops.log(side / CANONICAL_SIDE) / float(np.log(2.0)) + EPSILON)
    return ops.clip(octave + float(np.log2(CANONICAL_STRIDE / strides[0])), 0.0, float(len(strides) - 1))


def _picks(low: Any, high: Any, cells: int, stride: float, resolution: int) -> Any:
    """For each box, how much of each of ``cells`` goes into each of its ``resolution`` parts: ``[n, k, parts, cells]``.

    ``low`` and ``high`` are the box's edges in pixels, ``[n, k]``.
    """
    steps = (ops.arange(resolution * SAMPLES, dtype="float32") + 0.5) / (resolution * SAMPLES)
    points = low[..., None] + (high - low)[..., None] * steps
    at = ops.clip(points / stride - 0.5, 0.0, float(cells - 1))
    distance = ops.abs(at[..., None] - ops.arange(cells, dtype="float32"))
    weights = ops.maximum(1.0 - distance, 0.0)
    grouped = ops.reshape(weights, (-1, low.shape[1], resolution, SAMPLES, cells))
    return ops.mean(grouped, axis=3)


def paste_masks(boxes: Any, scores: Any, classes: Any, masks: Any, size: int, grid: int) -> Any:
    """Lay ``masks [n, d, m, m, labels]`` (probabilities) over their ``boxes [n, d, 4]``: ``[n, grid, grid, labels]``.

    Detections come most probable first; one of score 0 is none. Where several of a label cover a point, the most
    probable of them speaks for it: so nothing in a mask can come from a detection that is too improbable to be shown
    where a more probable one is.
    """
    side, labels = masks.shape[2], masks.shape[4]
    kinds = ops.cast(ops.equal(classes[..., None], ops.arange(labels, dtype="float32")), masks.dtype)
    own = ops.sum(masks * kinds[:, :, None, None, :], axis=-1)
    down, inside_down = _laid(boxes[..., 1], boxes[..., 3], side, size, grid)
    across, inside_across = _laid(boxes[..., 0], boxes[..., 2], side, size, grid)
    laid = ops.matmul(ops.matmul(down, own), ops.swapaxes(across, -1, -2))
    real = ops.cast(scores > 0.0, masks.dtype)
    covered = inside_down[..., :, None] * inside_across[..., None, :] * real[..., None, None]
    return ops.stack([_first(laid, covered * kinds[..., label, None, None]) for label in range(labels)], axis=-1)


def _first(values: Any, covered: Any) -> Any:
    """At each point the value of the first of ``[n, d, g, g]`` that covers it; 0 where none does."""
    before = ops.cumsum(covered, axis=1) - covered
    return ops.sum(values * covered * ops.cast(before < 0.5, values.dtype), axis=1)


def _laid(low: Any, high: Any, side: int, size: int, grid: int) -> tuple[Any, Any]:
    """How much of each cell of a mask a point of the grid takes ``[n, d, grid, side]``, and whether it is inside."""
    points = (ops.arange(grid, dtype="float32") + 0.5) * (size / grid)
    length = ops.maximum(high - low, EPSILON)
    at = (points - low[..., None]) / length[..., None] * float(side) - 0.5
    distance = ops.abs(ops.clip(at, 0.0, float(side - 1))[..., None] - ops.arange(side, dtype="float32"))
    inside = ops.logical_and(points >= low[..., None], points < high[..., None])
    return ops.maximum(1.0 - distance, 0.0), ops.cast(inside, low.dtype)
