"""The radiographs a network learns from: ``labels.csv`` with a ``split`` column, and ``images/`` beside it.

Reading never fails on a bad row: it is left out, counted and listed with the reason (:class:`Problem`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

NIH_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
RSNA_CLASSES = ("", "Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
BOX_GRID = 1024
"""Side of the pixel grid in which ``rsna_boxes`` are given."""

Grey = NDArray[np.uint8]


class DatasetError(ValueError):
    """The folder is not a data set of this layout at all."""


@dataclass(frozen=True, slots=True)
class RowBox:
    """A reader's box as fractions of the image's width and height (left, top, width, height)."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Example:
    """One radiograph with all that is known about it; nothing here identifies a person beyond a study number."""

    image: str
    path: Path
    split: str
    patient: str
    age: int | None
    sex: str
    view: str
    aspect: float
    rsna_class: str
    boxes: tuple[RowBox, ...]
    findings: frozenset[str]


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that was left out, and why."""

    image: str
    reason: str


def read_cxr(data: Path) -> tuple[list[Example], list[Problem]]:
    """All usable examples of the folder ``data`` in file order, and what was wrong with the others.

    Raises:
        DatasetError: ``labels.csv`` is missing or lacks a column.
    """
    table = data / "labels.csv"
    if not table.is_file():
        raise DatasetError(f"{table} is missing")
    with table.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = {"image", "split", "patient_id", "rsna_class", "rsna_boxes"} - set(reader.fieldnames or ())
        if missing:
            raise DatasetError(f"{table} lacks the columns {', '.join(sorted(missing))}")
        rows = list(reader)
    examples: list[Example] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for row in rows:
        try:
            example = _example(row, data / "images", seen)
        except ValueError as error:
            problems.append(Problem(row.get("image") or "?", str(error)))
            continue
        seen.add(example.image)
        examples.append(example)
    crossing = patients_in_several_splits(examples)
    problems.extend(
        Problem(item.image, "its patient is in several splits") for item in examples if item.patient in crossing
    )
    return [item for item in examples if item.patient not in crossing], problems


def patients_in_several_splits(examples: Iterable[Example]) -> set[str]:
    """Patients whose images are not all in one split: they would leak from training into evaluation."""
    splits: dict[str, set[str]] = {}
    for item in examples:
        splits.setdefault(item.patient, set()).add(item.split)
    return {patient for patient, names in splits.items() if len(names) > 1}


def _example(row: dict[str, str], images: Path, seen: set[str]) -> Example:
    name = row["image"]
    if not name or Path(name).name != name:
        raise ValueError("the image name is empty or holds a folder")
    if name in seen:
        raise ValueError("the image is listed twice")
    path = images / name
    if not path.is_file():
        raise ValueError("the image file is missing")
    if row["rsna_class"] not in RSNA_CLASSES:
        raise ValueError(f"unknown class {row['rsna_class']!r}")
    if not row["patient_id"] or not row["split"]:
        raise ValueError("patient or split is empty")
    age = row.get("age") or ""
    return Example(
        image=name,
        path=path,
        split=row["split"],
        patient=row["patient_id"],
        age=int(age) if age.isdigit() else None,
        sex=row.get("sex") or "",
        view=row.get("view") or "",
        aspect=_aspect(row),
        rsna_class=row["rsna_class"],
        boxes=_boxes(row["rsna_boxes"]),
        findings=frozenset(item for item in NIH_FINDINGS if (row.get(item) or "0") == "1"),
    )


def _aspect(row: dict[str, str]) -> float:
    """Width by height of the detector image; 1 where unknown (the data set stores every image as a square)."""
    try:
        aspect = float(row["original_width"]) / float(row["original_height"])
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return 1.0
    return aspect if 0.5 <= aspect <= 2.0 else 1.0


def _boxes(text: str) -> tuple[RowBox, ...]:
    if not text:
        return ()
    try:
        boxes = [tuple(float(value) for value in box) for box in json.loads(text)]
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"the boxes cannot be read: {error}") from error
    for box in boxes:
        if len(box) != 4:
            raise ValueError("a box needs four numbers")
        x, y, width, height = box
        if min(x, y) < 0 or min(width, height) <= 0 or max(x + width, y + height) > BOX_GRID:
            raise ValueError(f"box {list(box)} lies outside the image")
    return tuple(RowBox(*(value / BOX_GRID for value in box)) for box in boxes)


def load_images(examples: Sequence[Example], size: int) -> tuple[Grey, list[Problem]]:
    """All images as ``uint8[n, size, size]``; one that cannot be decoded stays black and is listed."""
    pixels = np.zeros((len(examples), size, size), np.uint8)
    problems = []
    for index, item in enumerate(examples):
        try:
            with Image.open(item.path) as image:
                pixels[index] = np.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR))
        except (OSError, UnidentifiedImageError) as error:
            problems.append(Problem(item.image, f"cannot be decoded: {error}"))
    return pixels, problems


def folds_by_patient(examples: Sequence[Example], count: int, seed: int) -> list[int]:
    """The fold (0 … ``count`` - 1) of each example, so that a patient is in one fold and findings are spread evenly.

    Patients are dealt out in random order within groups of equal rarest finding, so a rare finding cannot end up in one
    fold alone.
    """
    frequency = {name: sum(name in item.findings for item in examples) for name in NIH_FINDINGS}
    rarest: dict[str, tuple[int, str]] = {}
    for item in examples:
        named = [(frequency[name], name) for name in item.findings]
        named += [(frequency["Pneumothorax"] + 1, "box")] if item.boxes else []
        key = min(named, default=(len(examples), item.rsna_class))
        rarest[item.patient] = min(rarest.get(item.patient, key), key)
    rng = np.random.default_rng(seed)
    patients = sorted(rarest)
    shuffled = [patients[index] for index in rng.permutation(len(patients))]
    ordered = sorted(shuffled, key=lambda patient: rarest[patient])
    fold = {patient: index % count for index, patient in enumerate(ordered)}
    return [fold[item.patient] for item in examples]
