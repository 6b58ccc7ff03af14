"""How well each lesion is found: what readers drew beside what is marked, lesion by lesion and region by region.

An overlap of whole masks does not tell whether the second of two lesions was found, whether one region joins both
lungs, or how much is marked on healthy people. These figures do. Images whose places readers gave as boxes, and those
where they drew outlines, are two groups with figures of their own: no contour covers the corners of a box.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract import Mask
from models.localise import region_boxes, region_masks
from models.training.datasets.sample import Sample
from models.training.metrics import Interval, by_patients, proportion

Values = NDArray[np.float64]
SAID, TRUE, BOTH, LESIONS, HIT, REGIONS, FALSE, ACROSS = range(8)
"""Columns of a row: pixels marked, true and both; true lesions, and those hit; regions marked, those of them that lie
on no lesion at all, and those that reach across the middle."""
COLUMNS = 8
COLUMN_NAMES = ("marked", "true", "both", "lesions", "hit", "regions", "stray", "across")
"""How evidence files name them."""
HIT_AT = 0.3
"""Intersection over union from which a marked region hits a lesion."""
MIDLINE = 0.08
"""A region reaches across the middle where it extends by this share of the width beyond it, on both sides."""
BOXES, OUTLINES = "boxes", "outlines"
LESION_WORDS = (
    "Area: the median of marked by true area. Stray: regions on no lesion, on images with the finding. A region hits a "
    f"lesion from an IoU of {HIT_AT:g}. Normal: called so by readers, or by the report where nobody has read the image."
)
ABSENT, NORMAL = "absent", "normal"
"""Images without the finding; of these, images that readers or reports call normal."""


@dataclass(frozen=True, slots=True)
class LesionFigures:
    """Figures of one finding, against readers' boxes or their outlines (``against``).

    ``iou`` is over all images with the finding, nothing marked counting 0; ``iou_marked`` and ``precision`` (the share
    of a mask inside the truth) are over those where something is marked, as is ``area``, the median of marked by true
    area. ``hit`` is of single lesions, ``stray`` of the regions on images with the finding: those on no lesion.
    ``across`` is the share of all marked images, healthy ones too, with a region that reaches across the middle.
    ``false_normal`` and ``false_absent`` are regions an image on the ``normals`` and on all the ``absent`` images
    without the finding.
    """

    label: str
    against: str
    positives: int
    positive_patients: int
    marked: int
    lesions: int
    iou: Interval
    iou_marked: Interval
    precision: Interval
    area: Interval
    hit: Interval
    stray: Interval
    marked_anywhere: int
    across: Interval
    normals: int
    false_normal: Interval
    absent: int
    false_absent: Interval

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json`` and the evidence."""
        return asdict(self)


def kind_of(sample: Sample, names: Sequence[str]) -> str:
    """Which group an image belongs to, of those whose place is known."""
    if any(name in sample.masks or sample.runs.get(name) for name in names):
        return OUTLINES
    if any(box.label in names for box in sample.boxes):
        return BOXES
    return NORMAL if sample.labels.get(NORMAL, 0.0) >= 0.5 else ABSENT


def compare(mask: Mask, lesions: Sequence[Mask]) -> Values:
    """One row (:data:`SAID` …) of a mask ``bool[rows, columns]`` and the true lesions on the same grid."""
    regions = region_masks(mask)
    truth = np.logical_or.reduce(lesions) if lesions else np.zeros_like(mask)
    hits = sum(any(_iou(region, lesion) >= HIT_AT for region in regions) for lesion in lesions)
    edges = region_boxes(mask).astype(np.float64) / mask.shape[1]
    across = (edges[:, 0] < 0.5 - MIDLINE) & (edges[:, 2] > 0.5 + MIDLINE)
    row = np.zeros(COLUMNS)
    row[[SAID, TRUE, BOTH]] = mask.sum(), truth.sum(), (mask & truth).sum()
    row[[LESIONS, HIT, REGIONS]] = len(lesions), hits, len(regions)
    row[[FALSE, ACROSS]] = sum(not (region & truth).any() for region in regions), across.sum()
    return row


def silenced(rows: Values, present: NDArray[np.bool_]) -> Values:
    """The same rows ``[n, COLUMNS]`` where nothing is marked on images on which the finding is not called present."""
    kept = rows.copy()
    for column in (SAID, BOTH, HIT, REGIONS, FALSE, ACROSS):
        kept[~present, column] = 0.0
    return kept


def lesion_figures(
    label: str, rows: Values, kinds: Sequence[str], patients: Sequence[str], rounds: int = 1000
) -> dict[str, LesionFigures]:
    """The figures of rows ``[n, COLUMNS]``, by what the truth is; ``kinds`` are those of :func:`kind_of`."""
    kind, who = np.array(kinds), np.array(patients)
    found = {}
    for against in (BOXES, OUTLINES):
        ill = kind == against
        if ill.any():
            chosen = ill | (kind == NORMAL) | (kind == ABSENT)
            found[against] = _figures(label, against, rows[chosen], kind[chosen], who[chosen], rounds)
    return found


def _figures(
    label: str, against: str, rows: Values, kind: NDArray[np.str_], who: NDArray[np.str_], rounds: int
) -> LesionFigures:
    ill, normal, absent = kind == against, kind == NORMAL, (kind == NORMAL) | (kind == ABSENT)
    predicted = rows[:, SAID] > 0
    shown = ill & predicted

    def over(chosen: NDArray[np.bool_], figure: Callable[[Values], float]) -> Interval:
        if not chosen.any():
            return Interval(math.nan, math.nan, math.nan)
        own, everybody = rows[chosen], np.ones(int(chosen.sum()), np.bool_)
        return by_patients(
            lambda drawn, _: figure(drawn.astype(np.float64)), own, everybody, who[chosen].tolist(), rounds=rounds
        )

    return LesionFigures(
        label=label,
        against=against,
        positives=int(ill.sum()),
        positive_patients=len(set(who[ill].tolist())),
        marked=int(shown.sum()),
        lesions=int(rows[ill, LESIONS].sum()),
        iou=over(ill, _mean_iou),
        iou_marked=over(shown, _mean_iou),
        precision=over(shown, lambda drawn: float((drawn[:, BOTH] / drawn[:, SAID]).mean())),
        area=over(shown, lambda drawn: float(np.median(drawn[:, SAID] / drawn[:, TRUE]))),
        hit=over(ill, lambda drawn: float(drawn[:, HIT].sum() / drawn[:, LESIONS].sum())),
        stray=over(shown, lambda drawn: float(drawn[:, FALSE].sum() / drawn[:, REGIONS].sum())),
        marked_anywhere=int(predicted.sum()),
        across=proportion(int((rows[predicted, ACROSS] > 0).sum()), int(predicted.sum())),
        normals=int(normal.sum()),
        false_normal=over(normal, lambda drawn: float(drawn[:, REGIONS].mean())),
        absent=int(absent.sum()),
        false_absent=over(absent, lambda drawn: float(drawn[:, REGIONS].mean())),
    )


def lesion_rows(items: Sequence[LesionFigures], show: Callable[[Interval], str]) -> list[tuple[str, ...]]:
    """A table with a row a figure, its head first; ``show`` writes an interval."""
    figures: tuple[tuple[str, Callable[[LesionFigures], str]], ...] = (
        ("images with it / patients / marked", lambda i: f"{i.positives} / {i.positive_patients} / {i.marked}"),
        ("IoU, all images with it", lambda item: show(item.iou)),
        ("IoU, where something is marked", lambda item: show(item.iou_marked)),
        ("share of the mask inside", lambda item: show(item.precision)),
        ("area", lambda item: show(item.area)),
        ("lesions hit", lambda item: f"{show(item.hit)}, {item.lesions} lesions"),
        ("stray regions", lambda item: show(item.stray)),
        ("images with a region across the middle", lambda i: f"{show(i.across)}, {i.marked_anywhere} marked images"),
        ("regions a normal image", lambda item: f"{show(item.false_normal)}, {item.normals} images"),
        ("regions an image without it", lambda item: f"{show(item.false_absent)}, {item.absent} images"),
    )
    head = ("figure", *(f"{item.label}, against {item.against}" for item in items))
    return [head, *((name, *(cell(item) for item in items)) for name, cell in figures)]


def _mean_iou(rows: Values) -> float:
    return float((rows[:, BOTH] / (rows[:, SAID] + rows[:, TRUE] - rows[:, BOTH])).mean())


def _iou(first: Mask, second: Mask) -> float:
    both = int((first & second).sum())
    return both / (int(first.sum()) + int(second.sum()) - both)
