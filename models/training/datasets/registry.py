"""Every layout of data set that can be read, by name, and which of them a folder has."""

from __future__ import annotations

from pathlib import Path

from models.training.dataset import DatasetError
from models.training.datasets.cxr import CXR
from models.training.datasets.layout import Layout, Progress
from models.training.datasets.sample import Dataset

AUTO = "auto"
LAYOUTS: tuple[Layout, ...] = (CXR,)
"""In the order in which they are tried."""


def names() -> tuple[str, ...]:
    """What a command may be told: ``auto`` and each layout."""
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


def read(folder: Path, layout: str = AUTO, progress: Progress | None = None) -> Dataset:
    """Read a data set; what cannot be used is listed in it with the reason. Pixels are not decoded here.

    Raises:
        DatasetError: the folder has not that layout, or there is no such layout.
    """
    if layout == AUTO:
        return detect(folder).read(folder, progress)
    for known in LAYOUTS:
        if known.name == layout:
            if not folder.is_dir():
                raise DatasetError(f"there is no folder {folder}")
            return known.read(folder, progress)
    raise DatasetError(f"there is no layout '{layout}'; there are: {', '.join(names())}")
