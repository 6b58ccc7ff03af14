"""The exploratory report: one HTML file, and ``metrics.json`` beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from models.training import pages
from models.training.datasets import pixels, read_dataset
from models.training.datasets.exploration import (
    AGE_EDGES,
    Exploration,
    LabelCounts,
    Places,
    explore,
    figures,
    measure_images,
)
from models.training.datasets.layout import Progress
from models.training.datasets.pixels import UnreadableImage
from models.training.datasets.sample import Dataset, Sample
from models.training.pages import (
    Mark,
    facts,
    heading,
    joined,
    missing,
    note,
    number,
    picture,
    pictures,
    plots,
    problem_list,
    share,
    table,
)
from models.training.plots import bars, heat, histogram

SHOWN = 256
"""Side of a sample picture in pixels."""
_EACH = 3
_MOST = 24


def explore_folder(
    folder: Path,
    out: Path,
    *,
    layout: str = read_dataset.AUTO,
    decode: bool = True,
    patient: str = "",
    progress: Progress | None = None,
) -> Exploration:
    """Explore a data set and write ``report.html`` and ``metrics.json`` into ``out``.

    Raises:
        DatasetError: the folder is no data set of a known layout.
        OSError: ``out`` cannot be written.
    """
    data = read_dataset.read(folder, layout, progress, patient=patient)
    exploration = explore(data, measure_images(data.samples, decode=decode, progress=progress))
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(figures(exploration), indent=1) + "\n", encoding="utf-8")
    (out / "report.html").write_text(exploration_page(folder.name, exploration, data), encoding="utf-8")
    return exploration


def exploration_page(name: str, exploration: Exploration, data: Dataset) -> str:
    """The whole page."""
    sections = [("Findings", _findings(exploration)), ("Users", _users(exploration))]
    if exploration.boxes or exploration.masks:
        sections.append(("Places", _places(exploration)))
    sections += [
        ("Images", _images(exploration)),
        ("Samples", _samples(data.samples)),
        ("Left out", problem_list(exploration.problems)),
    ]
    lead = facts(
        (
            ("images", exploration.images),
            ("patients", exploration.patients),
            ("layout", exploration.layout),
            ("left out", len(exploration.problems)),
        )
    )
    return pages.page(f"Exploration of {name}", lead, sections)


def _findings(exploration: Exploration) -> Markup:
    present = sorted(exploration.labels, key=lambda item: -item.present)
    chart = bars(
        "images with each finding",
        [(item.label, item.present) for item in present],
        notes=[share(item.present, item.known) for item in present],
    )
    head = ("finding", "known", "present", "patients", "share")
    rows = [
        (item.label, str(item.known), str(item.present), str(item.patients), _percent(item.present, item.known))
        for item in exploration.labels
    ]
    splits = [(name, str(images), str(people)) for name, (images, people) in exploration.splits.items()]
    by_split = [
        (item.label, *(str(item.by_split.get(name, 0)) for name in exploration.splits)) for item in exploration.labels
    ]
    parts = [chart, table(head, rows)]
    if len(exploration.splits) > 1:
        parts.append(table(("present", *exploration.splits), by_split))
    parts.append(table(("split", "images", "patients"), splits))
    combinations = [(name, share(count, exploration.images)) for name, count in exploration.combinations]
    parts.append(table(("found together", "images"), combinations, "The most frequent combinations"))
    return plots(parts)


def _users(exploration: Exploration) -> Markup:
    charts = []
    if exploration.ages:
        counts, _ = np.histogram(np.clip(exploration.ages, 0, 99), AGE_EDGES)
        charts.append(histogram("age of the patient", "years", AGE_EDGES, [("images", counts.tolist())]))
    charts.append(
        bars(
            "sex",
            list(exploration.sexes.items()),
            notes=[share(n, exploration.images) for n in exploration.sexes.values()],
        )
    )
    charts.append(
        bars(
            "view",
            list(exploration.views.items()),
            notes=[share(n, exploration.images) for n in exploration.views.values()],
        )
    )
    several = [(f"{count} images", people) for count, people in list(exploration.images_a_patient.items())[:12]]
    charts.append(bars("images of one patient", several))
    return plots(charts) + _confounders(exploration)


def _confounders(exploration: Exploration) -> Markup:
    views, sexes = list(exploration.views)[:4], list(exploration.sexes)[:3]
    head = ("finding", *(f"{name} {kind}" for kind, names in (("view", views), ("sex", sexes)) for name in names))
    rows = [
        (item.label, *_cells(item.present_by_view, views), *_cells(item.present_by_sex, sexes), *_ages(item))
        for item in exploration.labels
    ]
    words = (
        "Share of images with the finding in each group, and the median age with and without it. Where groups differ, "
        "a network can learn the group instead of the finding."
    )
    return note(words) + table((*head, "age with", "age without"), rows)


def _cells(groups: Mapping[str, tuple[int, int]], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        part, whole = groups.get(name, (0, 0))
        yield f"{_percent(part, whole)} of {whole}"


def _ages(item: LabelCounts) -> tuple[str, str]:
    return number(item.median_age_present, 0), number(item.median_age_absent, 0)


def _places(exploration: Exploration) -> Markup:
    parts = []
    for what, each in (("boxes", exploration.boxes), ("mask rows", exploration.masks)):
        for item in each:
            parts += [heading(f"{item.label}: {what}"), _place(item, what)]
    return joined(parts)


def _place(item: Places, what: str) -> Markup:
    counts = [(f"{count} {what}", images) for count, images in item.marks_an_image.items()]
    charts = [bars(f"{what} an image", counts, notes=[share(images, item.images) for _, images in counts])]
    if item.areas:
        most = max(0.01, float(np.ceil(max(item.areas) * 20) / 20))
        heights, edges = np.histogram(item.areas, bins=20, range=(0.0, most))
        charts.append(histogram("share of the image", "area", edges.tolist(), [("marks", heights.tolist())]))
        charts.append(heat("where they lie", item.grid))
    return plots(charts)


def _images(exploration: Exploration) -> Markup:
    sizes = list(exploration.files.sizes.items())
    charts = [
        bars("width x height", [*sizes[:12], *([("others", sum(n for _, n in sizes[12:]))] if sizes[12:] else [])]),
        bars("kind of file", list(exploration.files.kinds.items())),
    ]
    for name, values in (
        ("mean grey value", exploration.files.brightness),
        ("standard deviation", exploration.files.contrast),
    ):
        if values:
            heights, edges = np.histogram(values, bins=20, range=(0.0, 1.0 if name.startswith("mean") else 0.5))
            charts.append(histogram(name, "0: black, 1: white", edges.tolist(), [("images", heights.tolist())]))
    return plots(charts)


def chosen_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Some samples of each finding, those with marks first, and some without any; the same in every call."""
    names = list(dict.fromkeys(name for item in samples for name in item.labels))
    chosen: dict[str, Sample] = {}
    for name in names:
        ill = [item for item in samples if item.labels.get(name, 0.0) >= 0.5 and item.name not in chosen]
        ill.sort(key=lambda item: not (item.boxes or any(item.runs.values())))
        chosen.update((item.name, item) for item in ill[:_EACH])
        if len(chosen) >= _MOST:
            break
    return list(chosen.values())[:_MOST]


def _samples(samples: Sequence[Sample]) -> Markup:
    parts = []
    for item in chosen_samples(samples):
        try:
            parts.append(picture(pixels.load(item, SHOWN), truth_marks(item, SHOWN), _caption(item)))
        except (UnreadableImage, ValueError) as error:
            parts.append(missing(item.name, str(error)))
    return note("What readers marked is drawn in green.") + pictures(parts)


def truth_marks(item: Sample, size: int) -> list[Mark]:
    """What readers marked on a sample, in its letterboxed picture."""
    boxes = pixels.boxes(item, size)
    marks = [Mark(pages.TRUTH, box=(left, top, right, bottom)) for _, left, top, right, bottom in boxes]
    marks += [Mark(pages.TRUTH, mask=pixels.mask(item, name, size)) for name, texts in item.runs.items() if texts]
    return marks


def _caption(item: Sample) -> str:
    known = ", ".join(name for name, value in item.labels.items() if value >= 0.5) or "nothing known"
    who = " ".join(filter(None, (item.sex, f"{item.age} years" if item.age is not None else "", item.view)))
    return f"{known} · {who}" if who else known


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "n/a"
