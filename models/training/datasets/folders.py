"""A folder for each class, with or without a level for the split above it: images of any kind.

The class of an image is the folder it lies in (``pneumothorax/``, ``normal/``), the split the folder round it
(``train/``, ``val/``, ``test/``). The patient is what a DICOM file says; of other files what a pattern finds in the
name, or the whole name where it finds nothing: then each image counts as a patient of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from models.training.datasets.headers import Header, content_digest, counted, read_header
from models.training.datasets.layout import DICOM_FILES, PICTURES, Gathered, Layout, Progress
from models.training.datasets.pixels import UnreadableImage
from models.training.datasets.sample import Dataset, DatasetError, Sample

PATIENT = re.compile(r"(?P<patient>\d{5,}|(?:person|patient)\d+)_")
"""Beginnings of file names that tell the patient: ``00000075_000.png``, ``person12_bacteria_3.jpeg``."""

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
NORMAL, ABNORMAL = "normal", "abnormal"


def _is_image(file: Path) -> bool:
    suffix = file.suffix.lower()
    return (suffix in PICTURES or suffix in DICOM_FILES) and not file.name.startswith(".") and file.is_file()


def _class_folders(folder: Path) -> list[tuple[str, Path]]:
    """Each class folder with its split."""
    found: list[tuple[str, Path]] = []
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        split = _SPLITS.get(child.name.lower())
        if split is None:
            found.append(("", child))
        else:
            found += [(split, path) for path in sorted(child.iterdir()) if path.is_dir()]
    return found


def _holds(folder: Path) -> bool:
    classes = {class_name(path) for _, path in _class_folders(folder) if any(map(_is_image, path.rglob("*")))}
    return len(classes) > 1


def class_name(folder: Path) -> str:
    """A folder's name as a label: lower case, with ``_`` for all that is no letter or digit."""
    return re.sub(r"[^a-z0-9]+", "_", folder.name.lower()).strip("_")


def read_folders(folder: Path, progress: Progress | None = None, patient: re.Pattern[str] = PATIENT) -> Dataset:
    """Read a folder of classes; ``patient`` has a group of that name, or its first group tells the patient.

    Raises:
        DatasetError: fewer than two classes.
    """
    places = _class_folders(folder)
    classes = sorted({class_name(path) for _, path in places})
    if len(classes) < 2:
        raise DatasetError(f"{folder} holds no folders of two classes or more")
    gathered = Gathered()
    files = {file: (split, class_name(path)) for split, path in places for file in sorted(path.rglob("*"))}
    images = [file for file in files if _is_image(file)]
    copies = _copies(images, files, gathered)
    for file in counted(images, "files", progress):
        if file in copies:
            continue
        split, own = files[file]
        name = file.relative_to(folder).as_posix()
        try:
            header = None if file.suffix.lower() in PICTURES else read_header(file)
            gathered.samples[name] = _sample(name, file, split, _labels(own, classes), header, patient)
        except UnreadableImage as error:
            gathered.leave_out(name, str(error))
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in PICTURES:
            gathered.leave_out(file.name, "it lies in no class folder")
    return gathered.dataset(FOLDERS.name)


def _labels(own: str, classes: list[str]) -> dict[str, float]:
    labels = {name: float(name == own) for name in classes}
    if NORMAL in labels:
        labels.setdefault(ABNORMAL, 1.0 - labels[NORMAL])
    return labels


def _sample(
    name: str, file: Path, split: str, labels: dict[str, float], header: Header | None, pattern: re.Pattern[str]
) -> Sample:
    if header is not None and header.patient:
        patient = header.patient
    else:
        found = pattern.match(file.name)
        patient = (found.groupdict().get("patient") or found.group(1)) if found else name
    return Sample(
        name=name,
        patient=patient,
        image=file,
        split=split,
        labels=labels,
        age=header.age if header else None,
        sex=header.sex if header else "",
        view=header.view if header else "",
    )


def _copies(images: list[Path], files: dict[Path, tuple[str, str]], gathered: Gathered) -> set[Path]:
    """Files that hold what an earlier one holds; where the classes differ, both are left out."""
    sizes: dict[int, list[Path]] = {}
    for file in images:
        sizes.setdefault(file.stat().st_size, []).append(file)
    same: dict[str, list[Path]] = {}
    for alike in sizes.values():
        for file in alike if len(alike) > 1 else ():
            same.setdefault(content_digest(file), []).append(file)
    out: set[Path] = set()
    for group in same.values():
        differ = len({files[file][1] for file in group}) > 1
        reason = "the same image is in several classes" if differ else "the same image is there twice"
        for file in group if differ else group[1:]:
            gathered.leave_out(file.name, f"{reason}: {group[0].parent.name}/{group[0].name}")
            out.add(file)
    return out


def _read(folder: Path, progress: Progress | None) -> Dataset:
    return read_folders(folder, progress)


FOLDERS = Layout("folders", "a folder of images for each class", _holds, _read)
