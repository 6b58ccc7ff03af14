"""The layout of Pleura's own experiments: ``labels.csv`` with a ``split`` column, and ``images/`` beside it.

Labels are those of NIH (mined from reports) and, where the RSNA challenge had the image read by radiologists, theirs.
"""

from __future__ import annotations

import json
from pathlib import Path

from models.training.datasets.layout import Gathered, Layout, Progress, read_table
from models.training.datasets.sample import Dataset, DatasetError, MarkedBox, Sample, Weak

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
LUNG_OPACITY, ABNORMAL, NORMAL = "lung_opacity", "abnormal", "normal"
OTHER_ABNORMALITY = "other_abnormality"
"""RSNA's class *No Lung Opacity / Not Normal*."""
WEAK_WEIGHT = 0.3
WEAK_OPACITY = {
    "Edema": 0.7,
    "Pneumonia": 0.45,
    "Infiltration": 0.4,
    "Effusion": 0.35,
    "Consolidation": 0.3,
    "Atelectasis": 0.2,
}
"""Share of RSNA-read training images with this NIH label that radiologists called *Lung Opacity* (rounded)."""
WEAK_OPACITY_NONE = 0.07
"""The same share for images without any NIH label."""
WEAK_ABNORMAL = 0.7
"""Weight of NIH's labels for *abnormal*, where no radiologist has read the image."""
_NEEDED = ("image", "split", "patient_id", "rsna_class", "rsna_boxes")
_GRID = 1024
"""Side of the pixel grid in which ``rsna_boxes`` are given."""


def rsna_labels(name: str) -> dict[str, float]:
    """The truths that one of RSNA's three classes holds."""
    return {
        LUNG_OPACITY: float(name == "Lung Opacity"),
        OTHER_ABNORMALITY: float(name == "No Lung Opacity / Not Normal"),
        NORMAL: float(name == "Normal"),
        ABNORMAL: float(name != "Normal"),
    }


def nih_labels(findings: frozenset[str]) -> dict[str, float]:
    """The truths of an image with these of NIH's findings, in their own spelling."""
    known = {name.lower(): float(name in findings) for name in NIH_FINDINGS}
    return {**known, ABNORMAL: float(bool(findings)), NORMAL: float(not findings)}


def weak_labels(findings: frozenset[str]) -> dict[str, Weak]:
    """What NIH's labels make likely of an image that no radiologist of RSNA has read."""
    abnormal = Weak(float(bool(findings)), WEAK_ABNORMAL)
    if not findings:
        return {LUNG_OPACITY: Weak(WEAK_OPACITY_NONE, WEAK_WEIGHT, nowhere=WEAK_WEIGHT), ABNORMAL: abnormal}
    shares = [WEAK_OPACITY[name] for name in findings if name in WEAK_OPACITY]
    return {LUNG_OPACITY: Weak(max(shares), WEAK_WEIGHT) if shares else Weak(0.0, 0.0), ABNORMAL: abnormal}


def _holds(folder: Path) -> bool:
    return (folder / "labels.csv").is_file()


def _read(folder: Path, progress: Progress | None) -> Dataset:
    table = folder / "labels.csv"
    if not table.is_file():
        raise DatasetError(f"{table} is missing")
    rows = read_table(table, _NEEDED)
    gathered = Gathered()
    for row in rows:
        try:
            sample = _sample(row, folder / "images", gathered)
            gathered.samples[sample.name] = sample
        except ValueError as error:
            gathered.leave_out(row["image"] or "?", str(error))
    if progress is not None:
        progress("rows", len(rows), len(rows))
    return gathered.dataset(CXR.name)


def _sample(row: dict[str, str], images: Path, gathered: Gathered) -> Sample:
    """One row; a reader's class outranks what was mined from the report."""
    name, read = row["image"], row["rsna_class"]
    if not name or Path(name).name != name:
        raise ValueError("the image name is empty or holds a folder")
    if name in gathered.samples:
        raise ValueError("the image is listed twice")
    if not (images / name).is_file():
        raise ValueError("the image file is missing")
    if read not in RSNA_CLASSES:
        raise ValueError(f"unknown class {read!r}")
    if not row["patient_id"] or not row["split"]:
        raise ValueError("patient or split is empty")
    findings = frozenset(item for item in NIH_FINDINGS if row.get(item) == "1")
    age = row.get("age", "")
    return Sample(
        name=name,
        patient=row["patient_id"],
        image=images / name,
        split=row["split"],
        labels={**nih_labels(findings), **(rsna_labels(read) if read else {})},
        weak={} if read else weak_labels(findings),
        boxes=_boxes(row["rsna_boxes"]),
        boxed=frozenset({LUNG_OPACITY}) if read else frozenset(),
        age=int(age) if age.isdigit() else None,
        sex=row.get("sex", ""),
        view=row.get("view", ""),
        aspect=_aspect(row),
    )


def _aspect(row: dict[str, str]) -> float:
    """Width by height of the detector image; 1 where unknown (the data set stores every image as a square)."""
    try:
        aspect = float(row["original_width"]) / float(row["original_height"])
    except (KeyError, ValueError, ZeroDivisionError):
        return 1.0
    return aspect if 0.5 <= aspect <= 2.0 else 1.0


def _boxes(text: str) -> tuple[MarkedBox, ...]:
    try:
        boxes = [tuple(float(value) for value in box) for box in json.loads(text or "[]")]
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"the boxes cannot be read: {error}") from error
    for box in boxes:
        if len(box) != 4:
            raise ValueError("a box needs four numbers")
        x, y, width, height = box
        if min(x, y) < 0 or min(width, height) <= 0 or max(x + width, y + height) > _GRID:
            raise ValueError(f"box {list(box)} lies outside the image")
    return tuple(MarkedBox(LUNG_OPACITY, *(value / _GRID for value in box)) for box in boxes)


CXR = Layout("cxr", "labels.csv with a split column, and images/", _holds, _read)
