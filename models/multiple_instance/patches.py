"""Cut radiographs into patches that a network sees each by itself, and lay what it saw of them side by side again."""

from __future__ import annotations

from typing import Any

from keras import ops


def cut(image: Any, grid: int) -> Any:
    """``[n, size, size, c]`` as ``grid`` x ``grid`` patches of each image: ``[n grid grid, size/grid, size/grid, c]``.

    Raises:
        ValueError: the patches would not be squares whose sides are multiples of 32.
    """
    size, channels = int(image.shape[1]), int(image.shape[-1])
    if grid < 1 or size % (32 * grid):
        raise ValueError(f"patches = {grid} does not cut {size} x {size} into squares with sides of 32, 64, 96 ...")
    if grid == 1:
        return image
    side = size // grid
    x = ops.reshape(image, (-1, grid, side, grid, side, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, side, side, channels))


def lay(features: Any, grid: int) -> Any:
    """Undo :func:`cut` on features of patches: ``[n grid grid, h, h, c]`` as ``[n, grid h, grid h, c]``."""
    if grid == 1:
        return features
    side, channels = int(features.shape[1]), int(features.shape[-1])
    x = ops.reshape(features, (-1, grid, grid, side, side, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, grid * side, grid * side, channels))
