"""Every layout of data set that can be read, by name, and which of them a folder has."""

from __future__ import annotations

import re
from pathlib import Path

from models.training.datasets.cxr import CXR
from models.training.datasets.folders import FOLDERS, read_folders
from models.training.datasets.layout import Layout, Progress
from models.training.datasets.lungs import LUNGS
from models.training.datasets.nih import NIH
from models.training.datasets.readings import READINGS
from models.training.datasets.rsna import RSNA
from models.training.datasets.sample import Dataset, DatasetError
from models.training.datasets.siim import SIIM

AUTO = "auto"
LAYOUTS: tuple[Layout, ...] = (CXR, READINGS, SIIM, RSNA, NIH, LUNGS, FOLDERS)
"""In the order in which they are tried."""


def names() -> tuple[str, ...]:
    """Names for a command: ``auto`` and each layout."""
    return (AUTO, *(layout.name for layout in LAYOUTS))


def detect(folder: Path) -> Layout:
    """The layout that a folder has.

    Raises:
        DatasetError: there is no such folder, or nothing known in it; the message says what was looked for.
    """
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}")
    for layout in LAYOUTS:
        if layout.holds(folder):
            return layout
    known = "; ".join(f"{layout.name}: {layout.title}" for layout in LAYOUTS)
    raise DatasetError(f"{folder} has no layout that is known here ({known})")


def read(folder: Path, layout: str = AUTO, progress: Progress | None = None, *, patient: str = "") -> Dataset:
    """Read a data set; what cannot be used is listed in it with the reason. Pixels are not decoded here.

    ``patient`` is a regular expression for a folder of classes: its group ``patient``, or its first, tells the patient
    from the beginning of a file's name.

    Raises:
        DatasetError: the folder has not that layout, there is no such layout, or the expression is wrong.
    """
    chosen = _chosen(folder, layout)
    if not patient:
        return chosen.read(folder, progress)
    if chosen is not FOLDERS:
        raise DatasetError(f"the layout '{chosen.name}' says itself who the patient is; a pattern is for folders only")
    try:
        pattern = re.compile(patient)
    except re.error as error:
        raise DatasetError(f"the pattern for the patient cannot be used: {error}") from error
    if not pattern.groups:
        raise DatasetError("the pattern for the patient has no group in brackets that would tell who it is")
    return read_folders(folder, progress, pattern)


def _chosen(folder: Path, layout: str) -> Layout:
    if layout == AUTO or not folder.is_dir():
        return detect(folder)
    for known in LAYOUTS:
        if known.name == layout:
            return known
    raise DatasetError(f"there is no layout '{layout}'; there are: {', '.join(names())}")
