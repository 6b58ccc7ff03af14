"""One pass of a model over samples, kept small: scores, areas and boxes outlive an image, maps and masks do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import Mask, Pixels
from models.model_spec import LabelSpec, ModelKind, ModelSpec
from models.radiograph.geometry import Letterbox
from models.training.datasets import pixels
from models.training.datasets.rle import RleError
from models.training.datasets.sample import Sample
from models.training.evaluation.detection import Marks, marks_of
from models.training.evaluation.lesions import compare
from models.training.evaluation.predict_as_node import Shown, Unreadable
from models.training.evaluation.segmentation import CUTS, Marked, areas_above, dice
from models.training.truths import LabelNames, label_truths, place_known

Values = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Detections and readers' boxes of one image in its own pixels (left, top, right, bottom).

    ``predicted`` is ``[d, 6]`` with score and number of the label behind, ``true`` ``[t, 5]`` with that number;
    ``known`` tells for which labels all boxes are known.
    """

    predicted: Values
    true: Values
    known: Bools


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """All that is needed for figures: ``scores``, ``truths`` and ``known`` are ``[n, L]`` in the model's order.

    ``marked`` holds, for each label with a map, the numbers of the images whose truth about places is known, and what
    was marked on them. ``boxes`` has one entry an image for a detector.
    """

    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    scores: Values
    truths: Bools
    known: Bools
    marked: dict[str, tuple[NDArray[np.int64], Marked]]
    boxes: tuple[Boxes, ...]
    problems: tuple[tuple[str, str], ...]
    lesions: dict[str, Values]

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of each image."""
        return tuple(sample.patient for sample in self.samples)

    def labelled(self, column: int) -> tuple[Values, Bools, list[Sample]]:
        """Scores, truths and samples of the images with a known truth for a label."""
        known = self.known[:, column]
        samples = [sample for sample, use in zip(self.samples, known, strict=True) if use]
        return self.scores[known, column], self.truths[known, column], samples

    def dices(self, label: str) -> dict[str, float] | None:
        """Dice of the delivered mask of each image that has the finding, by name; None without a map."""
        if label not in self.marked:
            return None
        chosen, marked = self.marked[label]
        values = dice(marked.served, marked.true, marked.served_both)
        ill = np.flatnonzero(marked.true > 0)
        return {self.samples[chosen[row]].name: float(values[row]) for row in ill}

    def marks(self, column: int) -> tuple[list[Marks], list[str]]:
        """A detector's and the readers' boxes of one label on the images where all are known, and whose they are."""
        chosen = [row for row, boxes in enumerate(self.boxes) if boxes.known[column]]
        marks = [marks_of(self.boxes[row].predicted, self.boxes[row].true, column) for row in chosen]
        return marks, [self.samples[row].patient for row in chosen]


def measure(
    spec: ModelSpec,
    shown: Iterable[Shown | Unreadable],
    label_names: LabelNames,
    tick: Callable[[], None] = lambda: None,
) -> Measured:
    """Take in what a model says about each image; ``label_names`` names the truths of each of its labels in order."""
    samples: list[Sample] = []
    scores: list[list[float]] = []
    problems: list[tuple[str, str]] = []
    rows: dict[int, list[tuple[int, _Row]]] = {
        number: [] for number, label in enumerate(spec.labels) if label.localised
    }
    boxes: list[Boxes] = []
    for item in shown:
        tick()
        if isinstance(item, Unreadable):
            problems.append((item.sample.name, item.reason))
            continue
        try:
            places = {number: _row(item, spec.labels[number], number, label_names) for number in rows}
        except RleError as error:
            problems.append((item.sample.name, f"a mask cannot be read: {error}"))
            continue
        for number, row in places.items():
            if row is not None:
                rows[number].append((len(samples), row))
        if spec.kind is ModelKind.DETECTOR:
            boxes.append(_boxes(item, spec, label_names))
        samples.append(item.sample)
        scores.append([finding.probability or 0.0 for finding in item.findings])
    truths, known = label_truths(samples, label_names)
    return Measured(
        samples=tuple(samples),
        labels=label_names.labels,
        scores=np.array(scores, dtype=np.float64).reshape(len(samples), len(label_names.labels)),
        truths=truths >= 0.5,
        known=(known > 0) & ((truths == 0) | (truths == 1)),
        marked={label_names.labels[n]: _gathered(found, spec.labels[n]) for n, found in rows.items() if found},
        boxes=tuple(boxes),
        problems=tuple(problems),
        lesions={label_names.labels[n]: np.stack([row.lesions for _, row in own]) for n, own in rows.items() if own},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """Areas and lesions of one image."""

    true: float
    predicted: Values
    both: Values
    served: float
    served_both: float
    hit: float
    lesions: Values


def cuts_of(label: LabelSpec) -> tuple[float, ...]:
    """The map thresholds that are followed: a regular row, and the label's own."""
    return tuple(sorted({*CUTS, label.map_threshold}))


def true_mask(sample: Sample, names: Sequence[str], shape: tuple[int, int]) -> Mask:
    """Where any of these findings of the data set lies, in the image's own pixels."""
    whole = np.zeros(shape, dtype=np.bool_)
    for name in names:
        if pixels.knows_mask(sample, name):
            whole |= pixels.source_mask(sample, name, *shape)
    return whole


def _row(item: Shown, label: LabelSpec, number: int, label_names: LabelNames) -> _Row | None:
    """What was marked of one label; None where the model has no map or the truth is not known."""
    if "maps" not in item.answer or not place_known(item.sample, label_names)[number]:
        return None
    network_map = item.answer["maps"][..., number]
    truth = true_mask(item.sample, label_names.names(label_names.labels[number]), item.image.shape)
    predicted, both = areas_above(item.letterbox.map_to_source(network_map), truth, cuts_of(label))
    mask = item.findings[number].mask
    served = mask if mask is not None else np.zeros_like(truth)
    names = label_names.names(label_names.labels[number])
    true = [lesion for name in names for lesion in pixels.source_lesions(item.sample, name, *item.image.shape)]
    return _Row(
        true=float(truth.sum()),
        predicted=predicted,
        both=both,
        served=float(served.sum()),
        served_both=float((served & truth).sum()),
        hit=float(strongest_is_true(network_map, item.letterbox, truth)) if truth.any() else float("nan"),
        lesions=compare(served, true),
    )


def strongest_is_true(network_map: Pixels, letterbox: Letterbox, truth: Mask) -> bool:
    """The pointing game: whether the middle of the strongest cell over the image lies in the truth."""
    height, width = network_map.shape
    x = (np.arange(width) + 0.5) * letterbox.width / width
    y = (np.arange(height) + 0.5) * letterbox.height / height
    across = (x >= letterbox.left) & (x < letterbox.left + letterbox.image_width)
    down = (y >= letterbox.top) & (y < letterbox.top + letterbox.image_height)
    inside = np.where(down[:, np.newaxis] & across[np.newaxis, :], network_map, -np.inf)
    row, column = np.unravel_index(int(np.argmax(inside)), inside.shape)
    left, top = letterbox.to_source(float(x[column]), float(y[row]))
    rows, columns = truth.shape
    return bool(truth[min(max(int(top), 0), rows - 1), min(max(int(left), 0), columns - 1)])


def _gathered(found: list[tuple[int, _Row]], label: LabelSpec) -> tuple[NDArray[np.int64], Marked]:
    rows = [row for _, row in found]
    marked = Marked(
        cuts=cuts_of(label),
        true=np.array([row.true for row in rows]),
        predicted=np.stack([row.predicted for row in rows]),
        both=np.stack([row.both for row in rows]),
        served=np.array([row.served for row in rows]),
        served_both=np.array([row.served_both for row in rows]),
        hits=np.array([row.hit for row in rows]),
    )
    return np.array([number for number, _ in found]), marked


def _boxes(item: Shown, spec: ModelSpec, label_names: LabelNames) -> Boxes:
    """All detections of an image, whatever their score, and the readers' boxes."""
    scores = np.asarray(item.answer["scores"], dtype=np.float64)
    classes = np.rint(item.answer["classes"]) if "classes" in item.answer else np.zeros_like(scores)
    edges = item.letterbox.boxes_to_source(item.answer["boxes"])
    solid = (scores > 0) & (edges[:, 2] > edges[:, 0]) & (edges[:, 3] > edges[:, 1])
    solid &= (classes >= 0) & (classes < len(spec.labels))
    predicted = np.concatenate([edges, scores[:, np.newaxis], classes[:, np.newaxis]], axis=1)[solid]
    rows, columns = item.image.shape
    numbers = {name: number for number, label in enumerate(label_names.labels) for name in label_names.names(label)}
    true = [
        (box.x * columns, box.y * rows, (box.x + box.width) * columns, (box.y + box.height) * rows, numbers[box.label])
        for box in item.sample.boxes
        if box.label in numbers
    ]
    known = place_known(item.sample, label_names) > 0
    return Boxes(predicted, np.array(true, dtype=np.float64).reshape(-1, 5), known)
