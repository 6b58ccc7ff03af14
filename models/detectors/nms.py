"""Non-maximum suppression with a fixed number of candidates: exact, and the same on every device and in ONNX."""

from __future__ import annotations

from typing import Any

from keras import ops

from models.detectors.boxes import overlaps


def greedy_keep(boxes: Any, threshold: float, kinds: Any = None) -> Any:
    """Which of ``boxes [n, k, 4]``, most probable first, greedy suppression keeps: ``[n, k]``, 1.0 or 0.0.

    A box goes if it overlaps a *kept* box before it by more than ``threshold``; where ``kinds [n, k]`` are given, only
    boxes of one kind see each other.

    The greedy answer is the only fixed point of "kept, unless a kept one before it overlaps it": repeating that from
    any guess settles the first box in the first round and one more at least in each further one. So the loop runs until
    nothing changes, which takes as many rounds as the longest chain of suppressions (a handful), and ``k`` at most.
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
