"""Whether a server's network still answers as it did when it was pinned: the protocol tells nothing of its weights.

A drawn picture is asked about, and numbers from the answer stand in the manifest. Other weights that answer this one
picture alike would pass; another precision, device or library of the server does, too, which is meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.02
"""By which an output may differ, relative to its length as a vector. TensorFloat-32 and 16 bits differ by 0.001."""

_SIDE = 128  # where the network takes any size
_SEED = 7
_MOST = 16


def probe_input(shape: Sequence[int]) -> NDArray[np.float32]:
    """Noise from -1 to 1 for a network that takes one picture of this shape; -1 stands for any size."""
    sides = [_SIDE if side < 0 else side for side in shape[1:]]
    return (2 * np.random.default_rng(_SEED).random((1, *sides)) - 1).astype(np.float32)


def probed(answer: Mapping[str, NDArray[Any]]) -> tuple[float, ...]:
    """What is pinned of an answer: of each output, by name, 16 means of as many parts, or all of its values.

    Nothing where one of them is no number.
    """
    values = [value for _, part in sorted(_parts(answer).items()) for value in part]
    return tuple(float(f"{value:.6g}") for value in values) if np.isfinite(values).all() else ()


def difference(pinned: Sequence[float], answer: Mapping[str, NDArray[Any]]) -> float:
    """How far an answer is from the pinned one: the largest of its outputs, as a part of the pinned output's length."""
    parts = sorted(_parts(answer).items())
    if sum(len(values) for _, values in parts) != len(pinned):
        return float("inf")
    worst, at = 0.0, 0
    for _, values in parts:
        wanted = np.asarray(pinned[at : at + len(values)])
        at += len(values)
        apart = float(np.linalg.norm(np.asarray(values) - wanted))
        if not np.isfinite(apart):
            return float("inf")
        worst = max(worst, apart / max(float(np.linalg.norm(wanted)), 1e-6))
    return worst


def _parts(answer: Mapping[str, NDArray[Any]]) -> dict[str, list[float]]:
    flat = {name: np.asarray(values, np.float64).ravel() for name, values in answer.items()}
    return {name: [float(part.mean()) for part in _split(values)] for name, values in flat.items()}


def _split(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return np.array_split(values, min(_MOST, values.size)) if values.size else []
