"""Reference labels, masks and boxes of a sample, as arrays in the order of a recipe's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.training.datasets import pixels
from models.training.datasets.sample import Sample

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LabelNames:
    """The labels that are asked for, and for each the data set's own labels that mean it (itself where not named)."""

    labels: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def names(self, label: str) -> tuple[str, ...]:
        """What the data set calls a label."""
        return self.classes.get(label, (label,))


def label_truths(samples: Sequence[Sample], label_names: LabelNames) -> tuple[Array, Array]:
    """Values and how far they are known, both ``float32[n, labels]``.

    A label that several of the data set's labels mean is present where any is, absent only where all are known absent.
    """
    pairs = [[_label(sample, label_names.names(label)) for label in label_names.labels] for sample in samples]
    table = np.array(pairs, np.float32).reshape(len(samples), len(label_names.labels), 2)
    return table[..., 0], table[..., 1]


def learnt_truths(samples: Sequence[Sample], label_names: LabelNames) -> tuple[Array, Array]:
    """As :func:`label_truths`, but what is only likely of a label stands in its place, with its small weight."""
    values, known = label_truths(samples, label_names)
    for row, sample in enumerate(samples):
        for column, label in enumerate(label_names.labels):
            if label in sample.weak:
                values[row, column], known[row, column] = sample.weak[label].value, sample.weak[label].weight
    return values, known


def _label(sample: Sample, names: tuple[str, ...]) -> tuple[float, float]:
    known = [sample.labels[name] for name in names if name in sample.labels]
    highest = max(known, default=0.0)
    return highest, float(bool(known) and (highest > 0 or len(known) == len(names)))


def place_known(sample: Sample, label_names: LabelNames) -> Array:
    """Whether the place of each label is known: marked pixel by pixel or by boxes, or known to be nowhere."""
    known = []
    for label in label_names.labels:
        names = label_names.names(label)
        value, sure = _label(sample, names)
        marked = [name for name in names if pixels.knows_mask(sample, name)]
        known.append(float(bool(marked) or (sure == 1.0 and value == 0.0)))
    return np.array(known, np.float32)


def learnt_places(sample: Sample, label_names: LabelNames) -> Array:
    """As :func:`place_known`, and how far it can be trusted that a finding is nowhere that is only unlikely."""
    known = place_known(sample, label_names)
    likely = [sample.weak[label].nowhere if label in sample.weak else 0.0 for label in label_names.labels]
    return np.maximum(known, np.array(likely, np.float32))


def masks_of(
    sample: Sample, label_names: LabelNames, side: int, boxes_as: pixels.BoxShape = "filled"
) -> NDArray[np.bool_]:
    """Where each label lies in the network's input: ``bool[side, side, labels]``."""
    masks = np.zeros((side, side, len(label_names.labels)), np.bool_)
    for place, label in enumerate(label_names.labels):
        for name in label_names.names(label):
            if sample.runs.get(name) or name in sample.masks or any(box.label == name for box in sample.boxes):
                masks[..., place] |= pixels.mask(sample, name, side, boxes_as)
    return masks


def boxes_of(sample: Sample, label_names: LabelNames, side: int) -> Array:
    """Boxes ``float32[k, 5]``: left, top, right, bottom in the network's input, and the number of the label."""
    number = {name: place for place, label in enumerate(label_names.labels) for name in label_names.names(label)}
    rows = [(*edges, number[name]) for name, *edges in pixels.boxes(sample, side) if name in number]
    return np.array(rows, np.float32).reshape(-1, 5)
