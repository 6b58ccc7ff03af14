"""How well boxes find what readers boxed: pure functions of boxes and scores, one finding at a time.

Conventions, since published figures differ by them:

* a detection *hits* if it overlaps a box by the threshold at least and no more probable detection has taken that box;
  detections are asked in order of score, each takes the free box that it overlaps most (as COCO does);
* *average precision* is COCO's: precision made to fall with recall, read at 101 recalls, over all detections of all
  images. Over *all images* each mark on a normal image lowers it; over *positives* (images with a box) such marks are
  not even looked at, so a model that marks every normal image loses nothing;
* the *competition's* figure (RSNA Pneumonia Detection Challenge, 2018) takes detections above a cut-off and averages
  hits / (hits + false marks + missed boxes) over IoU thresholds from 0.40 to 0.75, then over images. An image without
  boxes counts 0 if anything is marked on it, and is left out if nothing is: marking nothing on a normal earns nothing.

What cannot be said (no box at all, no normal image) is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.detectors.boxes import overlaps
from models.training.metrics import Interval, by_patients, proportion

Values = NDArray[np.float64]
Bools = NDArray[np.bool_]

NAMED = (0.4, 0.5, 0.75)
"""IoU thresholds whose average precision has a name of its own."""
COCO = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RSNA = tuple(round(0.4 + 0.05 * step, 2) for step in range(8))
FROC_POINTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False marks an image at which FROC curves are usually read (LUNA16)."""
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Detections ``predicted [d, 5]`` (edges, score) and readers' boxes ``true [t, 4]`` of one finding on one image."""

    predicted: Values
    true: Values


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Detections of one image in order of falling score: ``scores [d]``, whether each ``hits``, how many ``boxes``."""

    scores: Values
    hits: Bools
    boxes: int


@dataclass(frozen=True, slots=True)
class Precision:
    """Average precision at the named thresholds, and its mean over COCO's and over the competition's."""

    at: dict[float, Interval]
    coco: float
    rsna: float


@dataclass(frozen=True, slots=True)
class Detected:
    """Figures of one finding's boxes; ``cut`` is the score from which the node reports a box.

    ``competition`` and ``competition_positives`` are the RSNA challenge's figure over all images and over those with a
    box. ``marked_normals`` is the share of images without a box on which anything is marked, ``false_per_hundred`` how
    many marks there are on a hundred of them. ``sensitivity`` is the share of boxes that are hit (IoU 0.40) at the cut,
    ``froc`` the same by false marks an image, ``froc_mean`` its mean. ``pointing``: the middle of the most probable
    detection lies in a box.
    """

    label: str
    images: int
    positives: int
    positive_patients: int
    boxes: int
    cut: float
    all_images: Precision
    positive_images: Precision
    competition: Interval
    competition_positives: Interval
    marked_normals: Interval
    false_per_hundred: Interval
    sensitivity: Interval
    froc: dict[float, float]
    froc_mean: float
    pointing: Interval

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return asdict(self)


def marks_of(predicted: Values, true: Values, label: int) -> Marks:
    """One label's share of ``predicted [d, 6]`` (edges, score, label) and ``true [t, 5]`` (edges, label).

    Rows of score 0 are no detections.
    """
    own = (np.rint(predicted[:, 5]) == label) & (predicted[:, 4] > 0)
    return Marks(predicted[own, :5].astype(np.float64), true[np.rint(true[:, 4]) == label, :4].astype(np.float64))


def match(marks: Marks, threshold: float) -> Matched:
    """Which detections hit a box, by an IoU of ``threshold`` at least."""
    order = np.argsort(-marks.predicted[:, 4], kind="stable")
    table = overlaps(marks.predicted[order, :4], marks.true)
    hits = np.zeros(len(order), dtype=np.bool_)
    free = np.ones(len(marks.true), dtype=np.bool_)
    for row, own in enumerate(table):
        possible = np.where(free, own, -1.0)
        best = int(np.argmax(possible)) if len(possible) else -1
        if best >= 0 and possible[best] >= min(threshold, 1 - 1e-10):
            hits[row], free[best] = True, False
    return Matched(marks.predicted[order, 4], hits, len(marks.true))


def average_precision(matched: Sequence[Matched]) -> float:
    """COCO's average precision over images; NaN where no image has a box."""
    boxes = sum(image.boxes for image in matched)
    if boxes == 0:
        return math.nan
    scores, hits = _joined(matched)
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(hits[order])
    precision = found / np.arange(1, len(found) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(found / boxes, _RECALLS, side="left")
    return float(np.append(falling, 0.0)[np.minimum(place, len(falling))].mean())


def competition_score(marks: Marks, cut: float) -> float:
    """The RSNA challenge's figure of one image; NaN where there is neither a box nor a mark."""
    predicted = marks.predicted[marks.predicted[:, 4] >= cut]
    if not len(predicted) and not len(marks.true):
        return math.nan
    hits = np.array([match(Marks(predicted, marks.true), threshold).hits.sum() for threshold in RSNA])
    return float((hits / (len(predicted) + len(marks.true) - hits)).mean())


def sensitivity_at(matched: Sequence[Matched], false_marks: float) -> float:
    """Share of boxes that are hit when an image has at most so many false marks on average; NaN without a box.

    Detections of one score come together: the cut-off cannot part them.
    """
    boxes = sum(image.boxes for image in matched)
    if boxes == 0:
        return math.nan
    scores, hits = _joined(matched)
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], hits[order]
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    allowed = (np.cumsum(~hits) / len(matched) <= false_marks) & last
    return float(np.cumsum(hits)[allowed].max(initial=0) / boxes)


def points_at_a_box(marks: Marks) -> bool:
    """Whether the middle of the most probable detection lies in one of the boxes."""
    if not len(marks.predicted):
        return False
    left, top, right, bottom = marks.predicted[int(np.argmax(marks.predicted[:, 4])), :4]
    x, y = (left + right) / 2, (top + bottom) / 2
    inside = (marks.true[:, 0] <= x) & (x <= marks.true[:, 2]) & (marks.true[:, 1] <= y) & (y <= marks.true[:, 3])
    return bool(inside.any())


def detect(label: str, marks: Sequence[Marks], patients: Sequence[str], cut: float, rounds: int = 1000) -> Detected:
    """All figures of one finding, over images whose boxes are all known; intervals by patients."""
    positive = np.array([len(image.true) > 0 for image in marks], dtype=np.bool_)
    ill, whom = _chosen(marks, patients, positive)
    normal, well = _chosen(marks, patients, ~positive)
    matched = [match(image, RSNA[0]) for image in marks]
    above = np.array([int((image.predicted[:, 4] >= cut).sum()) for image in normal], dtype=np.float64)
    pointing = sum(points_at_a_box(image) for image in ill)
    return Detected(
        label=label,
        images=len(marks),
        positives=len(ill),
        positive_patients=len(set(whom)),
        boxes=sum(len(image.true) for image in marks),
        cut=cut,
        all_images=_precision(marks, patients, rounds),
        positive_images=_precision(ill, whom, rounds),
        competition=_mean([competition_score(image, cut) for image in marks], patients, rounds),
        competition_positives=_mean([competition_score(image, cut) for image in ill], whom, rounds),
        marked_normals=proportion(int((above > 0).sum()), len(normal)),
        false_per_hundred=_mean((100 * above).tolist(), well, rounds),
        sensitivity=_over_images(lambda images: _hit_share(images, cut), matched, patients, rounds),
        froc={point: sensitivity_at(matched, point) for point in FROC_POINTS},
        froc_mean=float(np.mean([sensitivity_at(matched, point) for point in FROC_POINTS])),
        pointing=proportion(pointing, len(ill)),
    )


def _precision(marks: Sequence[Marks], patients: Sequence[str], rounds: int) -> Precision:
    by_threshold = {cut: [match(image, cut) for image in marks] for cut in sorted({*NAMED, *COCO, *RSNA})}
    values = {cut: average_precision(images) for cut, images in by_threshold.items()}
    return Precision(
        at={cut: _over_images(average_precision, by_threshold[cut], patients, rounds) for cut in NAMED},
        coco=float(np.mean([values[cut] for cut in COCO])),
        rsna=float(np.mean([values[cut] for cut in RSNA])),
    )


def _hit_share(matched: Sequence[Matched], cut: float) -> float:
    boxes = sum(image.boxes for image in matched)
    return sum(int(image.hits[image.scores >= cut].sum()) for image in matched) / boxes if boxes else math.nan


def _over_images(
    figure: Callable[[Sequence[Matched]], float], matched: Sequence[Matched], patients: Sequence[str], rounds: int
) -> Interval:
    """A figure of images with its bootstrap interval over patients: what is drawn are numbers of images."""
    if not matched:
        return Interval(math.nan, math.nan, math.nan)
    numbers, everybody = np.arange(len(matched), dtype=np.float64), np.ones(len(matched), dtype=np.bool_)
    return by_patients(
        lambda drawn, _: figure([matched[int(number)] for number in drawn]), numbers, everybody, patients, rounds=rounds
    )


def _mean(values: Sequence[float], patients: Sequence[str], rounds: int) -> Interval:
    """A mean over images that have a value, with its interval."""
    finite = [(value, who) for value, who in zip(values, patients, strict=True) if math.isfinite(value)]
    if not finite:
        return Interval(math.nan, math.nan, math.nan)
    numbers, everybody = np.array([value for value, _ in finite]), np.ones(len(finite), dtype=np.bool_)
    return by_patients(
        lambda drawn, _: float(drawn.mean()), numbers, everybody, [who for _, who in finite], rounds=rounds
    )


def _chosen(marks: Sequence[Marks], patients: Sequence[str], wanted: Bools) -> tuple[list[Marks], list[str]]:
    pairs = [(image, who) for image, who, use in zip(marks, patients, wanted, strict=True) if use]
    return [image for image, _ in pairs], [who for _, who in pairs]


def _joined(matched: Sequence[Matched]) -> tuple[Values, Bools]:
    if not matched:
        return np.zeros(0), np.zeros(0, dtype=np.bool_)
    return np.concatenate([image.scores for image in matched]), np.concatenate([image.hits for image in matched])
