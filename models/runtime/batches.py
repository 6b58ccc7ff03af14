"""Batches for a GPU: of few sizes, because it builds its kernels for each, and smaller where its memory is full."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from models.contract import Pixels

SIZES = (1, 2, 4, 8)
"""Sizes of a batch that a network is run with; a batch between two of them is filled up with empty images."""

log = logging.getLogger(__name__)

Run = Callable[[Pixels], dict[str, Pixels]]


class OutOfMemoryError(RuntimeError):
    """A batch does not fit into the memory of the GPU."""


class Batches:
    """Runs images through a network in batches of :data:`SIZES`, ``most`` at a time, fewer once they did not fit."""

    def __init__(self, name: str, most: int) -> None:
        """``name`` is that of the network, for the log."""
        self._name = name
        self._most = max(size for size in SIZES if size <= max(1, most))

    @property
    def most(self) -> int:
        """How many images go in one run now."""
        return self._most

    def run(self, images: Pixels, run: Run) -> dict[str, Pixels]:
        """Answer ``images`` by ``run``; arrays of their number, by name.

        Raises:
            OutOfMemoryError: a single image does not fit.
        """
        parts: list[dict[str, Pixels]] = []
        done = 0
        while done < len(images):
            part = images[done : done + self._most]
            try:
                parts.append(_run_filled(part, run))
            except OutOfMemoryError:
                if self._most == 1:
                    raise
                self._most //= 2
                log.warning("%s: the GPU's memory is full; %d images a batch from now on", self._name, self._most)
            else:
                done += len(part)
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _run_filled(images: Pixels, run: Run) -> dict[str, Pixels]:
    size = next(size for size in SIZES if size >= len(images))
    if size == len(images):
        return run(images)
    filled = np.zeros((size, *images.shape[1:]), dtype=np.float32)
    filled[: len(images)] = images
    return {name: array[: len(images)] for name, array in run(filled).items()}
