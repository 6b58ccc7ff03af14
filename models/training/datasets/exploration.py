"""Statistics of a data set before training: counts, distributions, places of findings, and problems.

Pure functions of samples; pixels are looked at in :func:`measure_images` alone.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.training.datasets import pixels, rle
from models.training.datasets.layout import Progress
from models.training.datasets.pixels import UnreadableImage
from models.training.datasets.sample import Dataset, Sample

GRID = 32
"""Side of the grid that shows where boxes and masks lie."""
AGE_EDGES = tuple(float(age) for age in range(0, 101, 10))

Grid = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """How often a finding is known and present, and who has it: what a network could learn instead of it."""

    label: str
    known: int
    present: int
    patients: int
    by_split: Mapping[str, int]
    present_by_view: Mapping[str, tuple[int, int]]
    present_by_sex: Mapping[str, tuple[int, int]]
    median_age_present: float | None
    median_age_absent: float | None


@dataclass(frozen=True, slots=True)
class Places:
    """What is marked of one finding: marks an image (boxes or regions), the share of the image each covers."""

    label: str
    images: int
    marked: int
    marks_an_image: Mapping[int, int]
    areas: tuple[float, ...]
    grid: Grid = field(repr=False)


@dataclass(frozen=True, slots=True)
class Images:
    """What the files hold; ``brightness`` and ``contrast`` are mean and standard deviation of the shown pixels."""

    sizes: Mapping[str, int]
    kinds: Mapping[str, int]
    brightness: tuple[float, ...]
    contrast: tuple[float, ...]
    problems: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Exploration:
    """All that is told of a data set."""

    layout: str
    images: int
    patients: int
    images_a_patient: Mapping[int, int]
    splits: Mapping[str, tuple[int, int]]
    labels: tuple[LabelCounts, ...]
    combinations: tuple[tuple[str, int], ...]
    ages: tuple[int, ...]
    sexes: Mapping[str, int]
    views: Mapping[str, int]
    boxes: tuple[Places, ...]
    masks: tuple[Places, ...]
    files: Images
    problems: tuple[tuple[str, str], ...]


def explore(data: Dataset, files: Images) -> Exploration:
    """Count all of a data set; ``files`` is what :func:`measure_images` found."""
    samples = data.samples
    patients = Counter(item.patient for item in samples)
    names = list(dict.fromkeys(name for item in samples for name in item.labels))
    people = {split: {i.patient for i in samples if i.split == split} for split in {i.split for i in samples}}
    return Exploration(
        layout=data.layout,
        images=len(samples),
        patients=len(patients),
        images_a_patient=dict(sorted(Counter(patients.values()).items())),
        splits={
            split or "(none)": (sum(item.split == split for item in samples), len(who))
            for split, who in sorted(people.items())
        },
        labels=tuple(label_counts(name, samples) for name in names),
        combinations=tuple(Counter(map(_present, samples)).most_common(12)),
        ages=tuple(item.age for item in samples if item.age is not None),
        sexes=_counts(item.sex for item in samples),
        views=_counts(item.view for item in samples),
        boxes=tuple(box_places(name, samples) for name in sorted({n for item in samples for n in item.boxed})),
        masks=tuple(mask_places(name, samples) for name in sorted({n for item in samples for n in item.runs})),
        files=files,
        problems=(*data.problems, *files.problems),
    )


def label_counts(label: str, samples: Sequence[Sample]) -> LabelCounts:
    """Count one finding; a soft label counts as present from a half on."""
    known = [item for item in samples if label in item.labels]
    ill = [item for item in known if item.labels[label] >= 0.5]
    well = [item for item in known if item.labels[label] < 0.5]
    return LabelCounts(
        label=label,
        known=len(known),
        present=len(ill),
        patients=len({item.patient for item in ill}),
        by_split=dict(sorted(Counter(item.split or "(none)" for item in ill).items())),
        present_by_view=_shares([item.view for item in known], [item.view for item in ill]),
        present_by_sex=_shares([item.sex for item in known], [item.sex for item in ill]),
        median_age_present=_median(ill),
        median_age_absent=_median(well),
    )


def box_places(label: str, samples: Sequence[Sample]) -> Places:
    """Readers' boxes of one finding."""
    known = [item for item in samples if label in item.boxed]
    counts: Counter[int] = Counter()
    areas, grid = [], np.zeros((GRID, GRID))
    for item in known:
        own = [box for box in item.boxes if box.label == label]
        counts[len(own)] += 1
        drawn = np.zeros((GRID, GRID), dtype=np.bool_)
        for box in own:
            areas.append(box.width * box.height)
            rows = slice(math.floor(box.y * GRID), math.ceil((box.y + box.height) * GRID))
            drawn[rows, math.floor(box.x * GRID) : math.ceil((box.x + box.width) * GRID)] = True
        grid += drawn
    marked = sum(count for number, count in counts.items() if number)
    return Places(label, len(known), marked, dict(sorted(counts.items())), tuple(areas), grid / max(1, marked))


def mask_places(label: str, samples: Sequence[Sample]) -> Places:
    """Run-length masks of one finding: rows an image, the share of the image that all of them cover, and where."""
    known = [item for item in samples if label in item.runs]
    counts: Counter[int] = Counter()
    areas, grid = [], np.zeros((GRID, GRID))
    for item in known:
        texts = item.runs[label]
        counts[len(texts)] += 1
        if texts:
            mask = rle.decode_all(texts)
            areas.append(float(mask.mean()))
            side = rle.SIDE // GRID
            grid += mask.reshape(GRID, side, GRID, side).mean(axis=(1, 3))
    marked = sum(count for number, count in counts.items() if number)
    return Places(label, len(known), marked, dict(sorted(counts.items())), tuple(areas), grid / max(1, marked))


def measure_images(samples: Sequence[Sample], *, decode: bool = True, progress: Progress | None = None) -> Images:
    """Open every file: sizes from the headers and, with ``decode``, brightness and contrast from the pixels."""
    sizes: Counter[str] = Counter()
    problems, brightness, contrast = [], [], []
    for number, item in enumerate(samples):
        try:
            if decode:
                found = pixels.read(item.image)
                rows, columns = found.shape
                brightness.append(float(found.pixels.mean()))
                contrast.append(float(found.pixels.std()))
            else:
                place = pixels.letterbox(item, GRID)
                rows, columns = place.rows, place.columns
            sizes[f"{columns} x {rows}"] += 1
        except UnreadableImage as error:
            problems.append((item.name, str(error)))
        if progress is not None:
            progress("images", number + 1, len(samples))
    kinds = Counter(item.image.suffix.lower().removeprefix(".") or "dcm" for item in samples)
    return Images(dict(sizes.most_common()), dict(kinds), tuple(brightness), tuple(contrast), tuple(problems))


def figures(exploration: Exploration) -> dict[str, Any]:
    """For ``metrics.json``: all counts, distributions as quantiles, every problem."""
    return {
        "layout": exploration.layout,
        "images": exploration.images,
        "patients": exploration.patients,
        "images_a_patient": exploration.images_a_patient,
        "splits": {name: {"images": n, "patients": who} for name, (n, who) in exploration.splits.items()},
        "labels": {item.label: asdict(item) for item in exploration.labels},
        "combinations": dict(exploration.combinations),
        "age": quantiles(exploration.ages),
        "sex": exploration.sexes,
        "view": exploration.views,
        "boxes": {item.label: _place_figures(item) for item in exploration.boxes},
        "masks": {item.label: _place_figures(item) for item in exploration.masks},
        "sizes": exploration.files.sizes,
        "kinds": exploration.files.kinds,
        "brightness": quantiles(exploration.files.brightness),
        "contrast": quantiles(exploration.files.contrast),
        "problem_counts": dict(Counter(reason.split(":")[0] for _, reason in exploration.problems).most_common()),
        "problems": [list(item) for item in exploration.problems],
    }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Count, least, quartiles and most; the count alone where there is nothing."""
    if not len(values):
        return {"count": 0}
    least, low, middle, high, most = np.percentile(values, (0, 25, 50, 75, 100)).tolist()
    return {"count": len(values), "least": least, "lower": low, "median": middle, "upper": high, "most": most}


def _place_figures(item: Places) -> dict[str, Any]:
    return {
        "images": item.images,
        "marked": item.marked,
        "marks_an_image": item.marks_an_image,
        "area": quantiles(item.areas),
    }


def _present(item: Sample) -> str:
    return ", ".join(name for name, value in item.labels.items() if value >= 0.5) or "nothing"


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(value or "unknown" for value in values).most_common())


def _shares(everybody: Sequence[str], ill: Sequence[str]) -> dict[str, tuple[int, int]]:
    """For each value how many have the finding, and how many there are."""
    whole, part = _counts(everybody), _counts(ill)
    return {name: (part.get(name, 0), count) for name, count in whole.items()}


def _median(samples: Sequence[Sample]) -> float | None:
    ages = [item.age for item in samples if item.age is not None]
    return float(statistics.median(ages)) if ages else None
