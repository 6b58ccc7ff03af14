"""The RSNA pneumonia detection challenge of 2018: two tables of labels, and ``stage_2_train_images/`` in DICOM.

An image with several opacities has several rows in both tables. Boxes are in the image's own pixels (1024 x 1024).
"""

from __future__ import annotations

from pathlib import Path

from models.training.datasets.cxr import LUNG_OPACITY, RSNA_CLASSES, rsna_labels
from models.training.datasets.headers import Header, counted, read_header
from models.training.datasets.layout import Gathered, Layout, Progress, read_table
from models.training.datasets.pixels import UnreadableImage
from models.training.datasets.sample import Dataset, MarkedBox, Sample

LABELS = "stage_2_train_labels.csv"
CLASSES = "stage_2_detailed_class_info.csv"
IMAGES = "stage_2_train_images"

Row = dict[str, str]


def _holds(folder: Path) -> bool:
    return (folder / LABELS).is_file()


def _read(folder: Path, progress: Progress | None) -> Dataset:
    gathered = Gathered()
    rows: dict[str, list[Row]] = {}
    for row in read_table(folder / LABELS, ("patientId", "x", "y", "width", "height", "Target")):
        rows.setdefault(row["patientId"], []).append(row)
    classes = _classes(folder / CLASSES)
    images = sorted((folder / IMAGES).glob("*.dcm"))
    files = {file.stem: file for file in images}
    for file in counted(images, "headers", progress):
        if file.stem not in rows:
            gathered.leave_out(file.stem, "no row names this image")
            continue
        try:
            own = classes.get(file.stem, frozenset())
            gathered.samples[file.stem] = _sample(read_header(file), file.stem, rows[file.stem], own)
        except UnreadableImage as error:
            gathered.leave_out(file.stem, str(error))
        except ValueError as error:
            gathered.leave_out(file.stem, str(error))
    for name in rows.keys() - files.keys():
        gathered.leave_out(name, "the image file is missing")
    for name in classes.keys() - rows.keys():
        gathered.leave_out(name, f"{LABELS} does not name it, {CLASSES} does")
    return gathered.dataset(RSNA.name)


def _classes(file: Path) -> dict[str, frozenset[str]]:
    """The classes that the table gives each image: one, if the table is right."""
    if not file.is_file():
        return {}
    classes: dict[str, frozenset[str]] = {}
    for row in read_table(file, ("patientId", "class")):
        classes[row["patientId"]] = classes.get(row["patientId"], frozenset()) | {row["class"]}
    return classes


def _sample(header: Header, name: str, rows: list[Row], classes: frozenset[str]) -> Sample:
    """One image from all its rows.

    Raises:
        ValueError: the rows contradict each other, or a box is wrong.
    """
    targets = {row["Target"] for row in rows}
    if len(targets) != 1 or not targets <= {"0", "1"}:
        raise ValueError("its rows do not agree on the target")
    opaque = targets == {"1"}
    if len(classes) > 1 or not classes <= set(RSNA_CLASSES):
        raise ValueError(f"its class is unknown or not one alone: {', '.join(sorted(classes))}")
    if classes and (classes == {"Lung Opacity"}) != opaque:
        raise ValueError("its class and its target contradict each other")
    boxes = tuple(dict.fromkeys(_box(row, header) for row in rows)) if opaque else ()
    if not opaque and any(row["x"] for row in rows):
        raise ValueError("it has a box and no opacity")
    return Sample(
        name=name,
        patient=header.patient or name,
        image=header.file,
        labels=rsna_labels(*classes) if classes else {LUNG_OPACITY: float(opaque)},
        boxes=boxes,
        boxed=frozenset({LUNG_OPACITY}),
        age=header.age,
        sex=header.sex,
        view=header.view,
    )


def _box(row: Row, header: Header) -> MarkedBox:
    try:
        x, y, width, height = (float(row[name]) for name in ("x", "y", "width", "height"))
    except ValueError as error:
        raise ValueError(f"a box cannot be read: {error}") from error
    if not (
        x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= header.columns and y + height <= header.rows
    ):
        raise ValueError(f"a box lies outside the image: {x:g}, {y:g}, {width:g}, {height:g}")
    return MarkedBox(LUNG_OPACITY, x / header.columns, y / header.rows, width / header.columns, height / header.rows)


RSNA = Layout("rsna", f"{LABELS}, {CLASSES} and {IMAGES}/ in DICOM", _holds, _read)
