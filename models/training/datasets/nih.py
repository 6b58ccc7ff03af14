"""NIH ChestX-ray14: ``Data_Entry_2017*.csv`` and PNG files in ``images*/``; lists of splits and boxes where present.

The labels were mined from reports. ``BBox_List_2017.csv`` marks some findings of about a thousand images.
"""

from __future__ import annotations

import re
from pathlib import Path

from models.training.datasets.cxr import NIH_FINDINGS, nih_labels
from models.training.datasets.layout import Gathered, Layout, Progress, age_in_years, read_table
from models.training.datasets.sample import Dataset, DatasetError, MarkedBox, Sample

_NEEDED = ("Image Index", "Finding Labels", "Patient ID")
_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}
_BOXES = "BBox_List_2017.csv"
_GRID = 1024
_NOTHING = "No Finding"
_MARKED = {**{name: name for name in NIH_FINDINGS}, "Infiltrate": "Infiltration"}

Row = dict[str, str]


def _table(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("Data_Entry_2017*.csv"))), None)


def _holds(folder: Path) -> bool:
    return _table(folder) is not None


def _read(folder: Path, progress: Progress | None) -> Dataset:
    table = _table(folder)
    if table is None:
        raise DatasetError(f"{folder / 'Data_Entry_2017.csv'} is missing")
    gathered = Gathered()
    splits, boxes = _splits(folder), _boxes(folder / _BOXES, gathered)
    files = {file.name: file for file in sorted(folder.glob("images*/**/*.png"))}
    rows = read_table(table, _NEEDED)
    named: set[str] = set()
    for number, row in enumerate(rows):
        name = row["Image Index"]
        try:
            if name in named:
                raise ValueError("the image is listed twice")
            named.add(name)
            gathered.samples[name] = _sample(row, files, splits, boxes.get(name, ()))
        except ValueError as error:
            gathered.leave_out(name or "?", str(error))
        if progress is not None and (number % 1000 == 0 or number + 1 == len(rows)):
            progress("rows", number + 1, len(rows))
    for name in sorted(files.keys() - named):
        gathered.leave_out(name, "no row names this image")
    return gathered.dataset(NIH.name)


def _sample(row: Row, files: dict[str, Path], splits: dict[str, str], boxes: tuple[MarkedBox, ...]) -> Sample:
    name = row["Image Index"]
    findings = frozenset(row["Finding Labels"].split("|")) - {_NOTHING, ""}
    if not findings <= set(NIH_FINDINGS):
        raise ValueError(f"it has an unknown finding: {', '.join(sorted(findings - set(NIH_FINDINGS)))}")
    if not row["Finding Labels"] or not row["Patient ID"]:
        raise ValueError("findings or patient are empty")
    if name not in files:
        raise ValueError("the image file is missing")
    if splits and splits.get(name, "") not in _LISTS.values():
        raise ValueError("it is in both lists of splits" if name in splits else "it is in no list of splits")
    return Sample(
        name=name,
        patient=row["Patient ID"],
        image=files[name],
        split=splits.get(name, ""),
        labels=nih_labels(findings),
        boxes=boxes,
        boxed=frozenset(box.label for box in boxes),
        age=age_in_years(row.get("Patient Age", "")),
        sex=(row.get("Patient Gender") or row.get("Patient Sex") or "").upper()[:1],
        view=row.get("View Position", "").upper(),
        aspect=_aspect(row),
    )


def _aspect(row: Row) -> float:
    """Width by height of the detector image; the heads of these two columns are torn apart at a comma."""
    try:
        aspect = float(row["OriginalImage[Width"]) / float(row["Height]"])
    except (KeyError, ValueError, ZeroDivisionError):
        return 1.0
    return aspect if 0.5 <= aspect <= 2.0 else 1.0


def _splits(folder: Path) -> dict[str, str]:
    """The split of each listed image; ``both`` where two lists have it."""
    splits: dict[str, str] = {}
    for file, split in _LISTS.items():
        if (folder / file).is_file():
            for name in (folder / file).read_text(encoding="utf-8").split():
                splits[name] = split if splits.get(name, split) == split else "both"
    return splits


def _boxes(file: Path, gathered: Gathered) -> dict[str, tuple[MarkedBox, ...]]:
    """Marked findings by image; the head's ``Bbox [x,y,w,h]`` is torn apart at its commas."""
    found: dict[str, tuple[MarkedBox, ...]] = {}
    if not file.is_file():
        return found
    for row in read_table(file, ("Image Index", "Finding Label")):
        name = row["Image Index"]
        values = [value for key, value in row.items() if re.fullmatch(r"(Bbox \[)?[xywh]\]?", key)]
        try:
            x, y, width, height = (float(value) / _GRID for value in values)
            label = _MARKED[row["Finding Label"]].lower()
        except (ValueError, KeyError) as error:
            gathered.leave_out(name, f"a box cannot be read: {error}")
            continue
        if not (x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= 1 and y + height <= 1):
            gathered.leave_out(name, "a box lies outside the image; the image is used without it")
            continue
        found[name] = (*found.get(name, ()), MarkedBox(label, x, y, width, height))
    return found


NIH = Layout("nih", "Data_Entry_2017*.csv and PNG files in images*/", _holds, _read)
