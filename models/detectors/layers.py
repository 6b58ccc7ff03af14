"""Layers without weights: where a detector's network needs constants, a loop or single precision.

Each is a thin shell of functions that are tested by themselves, registered so that a saved network can be loaded
safely. All compute in single precision whatever the policy: half of it cannot tell pixels apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from models.detectors.anchors import AnchorPlan
from models.detectors.boxes import REFINING, UNIT, area, clip, decode
from models.detectors.nms import greedy_keep, strongest
from models.detectors.paste import paste
from models.detectors.roi_align import align_pyramid

register = keras.saving.register_keras_serializable(package="pleura")


class _Plain(keras.layers.Layer):  # type: ignore[misc]
    """A layer whose arguments are all that is to be saved."""

    def __init__(self, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        super().__init__(**{**options, "dtype": "float32"})
        self._arguments = arguments

    def get_config(self) -> dict[str, Any]:
        """What the constructor was told."""
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
    """The masks of detections on one grid over the whole input: ``[n, grid, grid, labels]``; see :func:`paste`."""

    def __init__(self, size: int, grid: int, **options: Any) -> None:
        super().__init__({"size": size, "grid": grid}, options)
        self._size, self._grid = size, grid

    def call(self, boxes: Any, scores: Any, classes: Any, masks: Any) -> Any:
        """See the class."""
        return paste(boxes, scores, classes, masks, self._size, self._grid)
