"""Radiographs with both lungs drawn: ``index.csv``, ``images/`` and ``masks/``.

A mask shows both lungs as two regions, the heart's shadow over the left lung included. The images are hung as usual,
so the region on the left of the picture is the patient's right lung.
"""

from __future__ import annotations

from pathlib import Path

from models.training.datasets.layout import Gathered, Layout, Progress, read_table
from models.training.datasets.sample import Dataset, DrawnMask, Sample

LEFT_LUNG, RIGHT_LUNG = "left_lung", "right_lung"
_NEEDED = ("image", "mask", "patient_id")


def _holds(folder: Path) -> bool:
    return (folder / "index.csv").is_file() and (folder / "masks").is_dir() and (folder / "images").is_dir()


def _read(folder: Path, progress: Progress | None) -> Dataset:
    rows = read_table(folder / "index.csv", _NEEDED)
    gathered = Gathered()
    for row in rows:
        reason = _mistake(row, folder, gathered)
        if reason:
            gathered.leave_out(row["image"] or "?", reason)
            continue
        mask = folder / "masks" / row["mask"]
        gathered.samples[row["image"]] = Sample(
            name=row["image"],
            patient=row["patient_id"],
            image=folder / "images" / row["image"],
            labels={RIGHT_LUNG: 1.0, LEFT_LUNG: 1.0},
            masks={RIGHT_LUNG: DrawnMask(mask, 0), LEFT_LUNG: DrawnMask(mask, 1)},
            sex=row.get("sex", ""),
            view=row.get("view", ""),
        )
    if progress is not None:
        progress("rows", len(rows), len(rows))
    return gathered.dataset(LUNGS.name)


def _mistake(row: dict[str, str], folder: Path, gathered: Gathered) -> str:
    """Why a row cannot be used; empty where it can."""
    if not row["patient_id"]:
        return "patient is empty"
    for key, inside in (("image", "images"), ("mask", "masks")):
        name = row[key]
        if not name or Path(name).name != name:
            return f"the {key} name is empty or holds a folder"
        if not (folder / inside / name).is_file():
            return f"the {key} file is missing"
    return "the image is listed twice" if row["image"] in gathered.samples else ""


LUNGS = Layout("lungs", "index.csv with images/ and masks/ of both lungs", _holds, _read)
