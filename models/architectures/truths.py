"""What several families are taught, as arrays: weights of labels, and masks as shares of coarse cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.architectures.base import Array, Batch


def label_weights(text: str, labels: tuple[str, ...], option: str = "class_weights") -> tuple[float, ...]:
    """Positive numbers separated by commas, one a label; all 1 where there is no text.

    Raises:
        ValueError: another number of weights, or one that is no positive number.
    """
    if not text:
        return (1.0,) * len(labels)
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{option} must be numbers separated by commas, not '{text}'") from error
    if len(weights) != len(labels) or not all(0 < weight < np.inf for weight in weights):
        raise ValueError(f"{option} needs {len(labels)} positive numbers, one for each label, not '{text}'")
    return weights


def coarse_masks(batch: Batch, stride: int, places: Sequence[int] | None = None) -> Array:
    """Masks as shares of cells with how far they are known, ``[n, h, w, 2 k]``; unknown where a set has none.

    ``places`` are the numbers of the ``k`` labels that are wanted (None: all).
    """
    wanted = list(range(batch.labels.shape[1]) if places is None else places)
    count, side = len(batch.pixels), batch.pixels.shape[1] // stride
    if batch.masks is None or batch.mask_known is None:
        return np.zeros((count, side, side, 2 * len(wanted)), np.float32)
    cells = batch.masks[..., wanted].reshape(count, side, stride, side, stride, len(wanted))
    shares = cells.mean(axis=(2, 4), dtype=np.float32)
    weights = np.broadcast_to(batch.mask_known[:, None, None, wanted], shares.shape)
    return np.concatenate([shares, weights], axis=-1).astype(np.float32)
