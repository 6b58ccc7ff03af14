"""Header attributes of the DICOM files of a data set, read without pixels."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.radiograph.decode import UnreadablePixels, read_file
from models.training.datasets.layout import DICOM_FILES, Progress, age_in_years
from models.training.datasets.pixels import UnreadableImage

_STEPS = 200


@dataclass(frozen=True, slots=True)
class Header:
    """One file: ``uid`` is its SOP Instance UID; ``patient`` is empty where the file says none."""

    file: Path
    uid: str
    patient: str
    age: int | None
    sex: str
    view: str
    rows: int
    columns: int


def read_header(file: Path) -> Header:
    """Read a file up to its pixels; values that break the rules of their VR count as absent.

    Raises:
        UnreadableImage: it is no DICOM file, or no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # real files of these data sets hold ages like "62"
            found = read_file(file, stop_before_pixels=True)
            words = {
                name: str(found.get(name) or "").strip()
                for name in ("SOPInstanceUID", "PatientID", "PatientAge", "PatientSex", "ViewPosition")
            }
            rows, columns = int(found.get("Rows") or 0), int(found.get("Columns") or 0)
    except UnreadablePixels as error:
        raise UnreadableImage(f"cannot be decoded: {error.sentence}") from error
    except (OSError, TypeError, ValueError) as error:
        raise UnreadableImage(f"cannot be decoded: {error}") from error
    if not words["SOPInstanceUID"] or not rows or not columns:
        raise UnreadableImage("cannot be decoded: it is a DICOM object without pixels or without a UID")
    return Header(
        file=file,
        uid=words["SOPInstanceUID"],
        patient=words["PatientID"],
        age=age_in_years(words["PatientAge"]),
        sex=words["PatientSex"].upper()[:1],
        view=words["ViewPosition"].upper(),
        rows=rows,
        columns=columns,
    )


def dicom_files(folder: Path) -> list[Path]:
    """Files anywhere below a folder that may be DICOM by their name, in order; a UID as a name counts too."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if (file.suffix.lower() in DICOM_FILES or file.suffix[1:].isdigit()) and file.is_file() and file.name[0] != "."
    ]


def counted(files: Sequence[Path], what: str, progress: Progress | None) -> Iterator[Path]:
    """The files one by one, while a progress bar is told."""
    for number, file in enumerate(files):
        if progress is not None and number % _STEPS == 0:
            progress(what, number, len(files))
        yield file
    if progress is not None:
        progress(what, len(files), len(files))


def content_digest(file: Path) -> str:
    """What tells whether two files hold the same bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
