"""From the small mask of each detection to one map for each label over the whole input."""

from __future__ import annotations

from typing import Any

from keras import ops

from models.detectors.boxes import EPSILON


def paste(boxes: Any, scores: Any, classes: Any, masks: Any, size: int, grid: int) -> Any:
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
