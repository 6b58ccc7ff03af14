"""Shared by the readers of all layouts: how they are listed, how they read tables, and how invalid rows are kept."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from models.training.datasets.sample import Dataset, DatasetError, Sample

Progress = Callable[[str, int, int], None]
"""What is being done, how far it is, and how much there is."""

PICTURES = (".png", ".jpg", ".jpeg")
DICOM_FILES = (".dcm", ".dicom", ".dic", "")


@dataclass(frozen=True, slots=True)
class Layout:
    """One way of laying out a data set: ``holds`` says whether a folder is of it, ``read`` reads it."""

    name: str
    title: str
    holds: Callable[[Path], bool]
    read: Callable[[Path, Progress | None], Dataset]


@dataclass(slots=True)
class Gathered:
    """Samples while a folder is read, and what was left out with the reason.

    A reason is one sentence; what differs from row to row stands behind a colon, so that reasons can be counted.
    """

    samples: dict[str, Sample] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def leave_out(self, name: str, reason: str) -> None:
        """List what is not used, and why."""
        self.problems.append((name, reason))

    def dataset(self, layout: str) -> Dataset:
        """All samples in their order, but for those of patients who are in several splits."""
        splits: dict[str, set[str]] = {}
        for item in self.samples.values():
            splits.setdefault(item.patient, set()).add(item.split)
        crossing = {patient for patient, names in splits.items() if len(names) > 1}
        kept = [item for item in self.samples.values() if item.patient not in crossing]
        lost = [item.name for item in self.samples.values() if item.patient in crossing]
        problems = [*self.problems, *((name, "its patient is in several splits") for name in lost)]
        return Dataset(layout, tuple(kept), tuple(problems))


def read_table(file: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV file, compressed with gzip or not; names and values without the blanks round them.

    What a short row lacks is empty.

    Raises:
        DatasetError: the file cannot be read or lacks a column.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        head = [name.strip() for name in next(reader, [])]
        rows = [dict(zip_longest(head, map(str.strip, row[: len(head)]), fillvalue="")) for row in reader if row]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file} cannot be read: {error}") from error
    missing = sorted(set(needed) - set(head))
    if missing:
        raise DatasetError(f"{file} lacks the columns {', '.join(missing)}")
    return rows


def age_in_years(text: str) -> int | None:
    """An age as any of the data sets writes it (``58``, ``058Y``, ``011M``); None where it is none.

    DICOM's Age String (PS3.5 6.2) has a unit; real files of these data sets leave it out.
    """
    text = text.strip().upper()
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("Y", "M", "W", "D") else (text, "Y")
    if not number.isascii() or not number.isdigit():
        return None
    years = int(number) // {"Y": 1, "M": 12, "W": 52, "D": 365}[unit]
    return years if years <= 120 else None
