"""Predictions of networks for images that they were not trained on, with the reference; needs no Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
MARKED, TRUE, BOTH = 0, 1, 2
"""Last axis of :attr:`Predicted.areas`."""


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """Answers and truths of ``n`` images and ``L`` served labels.

    ``scores`` are probabilities of an image as the node takes them, ``truths`` and ``known`` as in
    :func:`models.training.truth.label_truths`, ``placed`` whether the place of a label is known. Where the network has
    maps: ``areas [n, L, cuts, 3]`` are pixels in the network's input that it marks at each of ``cuts``, that are marked
    in truth, and that are both (``NaN`` where the truth about places is not known), and ``hits`` whether its strongest
    place is marked in truth (``NaN`` where nothing is). Of a segmenter ``lesions [n, L, cuts, COLUMNS]`` compares
    lesion by lesion (:mod:`models.training.evaluation.lesions`), and ``kinds [n, L]`` says by what.
    ``unscaled [n, L]`` is what the network said where ``scores`` are calibrated behind it.
    ``members [n, members, L]`` are the logits of several answers for one image, where a network gives them. A detector
    has ``boxes [n, D, 6]`` (left, top, right, bottom, score, label) and ``true_boxes [n, most, 5]`` (label -1: none).
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Array
    truths: Array
    known: Array
    placed: Array
    cuts: Array | None = None
    areas: Array | None = None
    hits: Array | None = None
    boxes: Array | None = None
    true_boxes: Array | None = None
    members: Array | None = None
    lesions: Array | None = None
    kinds: NDArray[np.str_] | None = None
    unscaled: Array | None = None

    @property
    def prevalent(self) -> NDArray[np.bool_]:
        """``bool[n, L]``: who has each label."""
        return self.truths >= 0.5


def keep(predicted: Predicted, file: Path) -> None:
    """Keep what was predicted; written whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part.npz")
    arrays = {
        name: getattr(predicted, name)
        for name in Predicted.__dataclass_fields__
        if getattr(predicted, name) is not None
    }
    np.savez_compressed(partial, **arrays)
    partial.replace(file)


def kept(file: Path) -> Predicted:
    """What :func:`keep` kept."""
    values: dict[str, Any] = {}
    with np.load(file) as found:
        for name in found.files:
            texts = name in ("names", "patients", "groups", "labels")
            values[name] = tuple(str(item) for item in found[name]) if texts else found[name]
    return Predicted(**values)


def gathered(parts: Sequence[Predicted]) -> Predicted:
    """Several groups as one; boxes are filled up to the longest list."""

    def joined(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        if any(item is None for item in found):
            return None
        if isinstance(found[0], tuple):
            return sum(found, ())
        if found[0].ndim == 3 and name.endswith("boxes"):
            longest = max(item.shape[1] for item in found)
            found = [_filled(item, longest, name) for item in found]
        return np.concatenate(found)

    values: dict[str, Any] = {name: joined(name) for name in Predicted.__dataclass_fields__}
    return Predicted(**(values | {"labels": parts[0].labels, "cuts": parts[0].cuts}))


def _filled(boxes: Array, longest: int, name: str) -> Array:
    filled = np.zeros((len(boxes), longest, boxes.shape[2]), np.float32)
    filled[..., -1] = -1 if name == "true_boxes" else 0
    filled[:, : boxes.shape[1]] = boxes
    return filled
