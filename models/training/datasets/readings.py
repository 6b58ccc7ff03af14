"""The layout ``readings``: ``cxr/`` (the layout cxr) beside what experts read of its images, and further images.

- ``cxr_expert/chestxdet.csv``: readings of images in ``cxr/`` by three radiologists (ChestX-Det), a row an image with
  0/1 for each finding, and ``cxr_expert/masks/IMAGE.Finding.png``, what they drew.
- ``cxr_extra/index.csv``: more radiographs with NIH's labels, some with such readings and masks.

RSNA's readers, where they read an image, say whether it has a lung opacity, and where: what ships is measured against
their boxes. Elsewhere a consolidation that the three radiologists drew is a lung opacity; an image in which they found
none of its look-alikes either has none; of the rest nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from models.training.datasets.cxr import CXR, LUNG_OPACITY, NIH_FINDINGS, nih_labels, weak_labels
from models.training.datasets.layout import Gathered, Layout, Progress, read_table
from models.training.datasets.sample import Dataset, DrawnMask, Sample
from models.training.datasets.split import TRAINING

CONSOLIDATION = "Consolidation"
LOOK_ALIKES = frozenset({"Atelectasis", "Diffuse Nodule", "Effusion", "Fibrosis", "Mass", "Nodule"})
"""What is drawn white in a lung and may or may not count as an opacity."""
_NONE_OF_THEM = "none of 13"
_EXPERT, _EXTRA = "cxr_expert", "cxr_extra"


def _holds(folder: Path) -> bool:
    return CXR.holds(folder / "cxr") and ((folder / _EXPERT).is_dir() or (folder / _EXTRA).is_dir())


def _read(folder: Path, progress: Progress | None) -> Dataset:
    known = CXR.read(folder / "cxr", progress)
    gathered = Gathered(problems=list(known.problems))
    readings = dict(_readings(folder / _EXPERT, gathered))
    for sample in known.samples:
        reading = readings.pop(sample.name, None)
        # Patients are numbers, with zeros before them or not.
        sample = replace(sample, patient=_patient(sample.patient))
        gathered.samples[sample.name] = sample if reading is None else _read_by_experts(sample, *reading)
    for name in readings:
        gathered.leave_out(name, "experts have read it, and there is no such image")
    split_of = {sample.patient: sample.split for sample in gathered.samples.values()}
    for sample in _extra(folder / _EXTRA, gathered):
        gathered.samples[sample.name] = replace(sample, split=split_of.get(sample.patient, TRAINING))
    return gathered.dataset(READINGS.name)


def _readings(folder: Path, gathered: Gathered) -> Iterator[tuple[str, tuple[frozenset[str], Path]]]:
    """For each image that experts have read: what they found, and the file of a consolidation if any."""
    table = folder / "chestxdet.csv"
    for row in read_table(table, ("image", CONSOLIDATION)) if table.is_file() else ():
        found = frozenset(name for name, value in row.items() if value == "1")
        file = folder / "masks" / f"{Path(row['image']).stem}.{CONSOLIDATION}.png"
        if CONSOLIDATION in found and not file.is_file():
            gathered.leave_out(row["image"], "experts have read it, and its mask is missing")
        else:
            yield row["image"], (found, file)


def _extra(folder: Path, gathered: Gathered) -> Iterator[Sample]:
    table = folder / "index.csv"
    needed = ("file", "nih_labels", "mask_files", "patient_id", "chestxdet_expert")
    for row in read_table(table, needed) if table.is_file() else ():
        image = folder / row["file"]
        reason = _mistake(image, row, gathered.samples)
        if reason:
            gathered.leave_out(row["file"] or "?", reason)
            continue
        sample = _nih_sample(image, row)
        if expert := row["chestxdet_expert"]:
            found = frozenset() if expert == _NONE_OF_THEM else frozenset(expert.split("|"))
            file = folder / "masks" / f"{image.stem}.{CONSOLIDATION}.png"
            if CONSOLIDATION in found and not file.is_file():
                gathered.leave_out(row["file"], "its mask is missing")
                continue
            sample = _read_by_experts(sample, found, file)
        yield sample


def _mistake(image: Path, row: dict[str, str], already: Iterable[str]) -> str:
    """Why a row cannot be used; empty where it can."""
    if not row["patient_id"].isdigit():
        return "its patient is no number"
    if row["file"] != f"images/{image.name}" or not image.is_file():
        return "the image file is missing"
    return "the image is listed twice" if image.name in already else ""


def _nih_sample(image: Path, row: dict[str, str]) -> Sample:
    findings = frozenset(row["nih_labels"].split("|")) & frozenset(NIH_FINDINGS)
    age = row.get("age", "")
    return Sample(
        name=image.name,
        patient=_patient(row["patient_id"]),
        image=image,
        labels=nih_labels(findings),
        weak=weak_labels(findings),
        age=int(age) if age.isdigit() else None,
        sex=row.get("sex", ""),
        view=row.get("view", ""),
    )


def _read_by_experts(sample: Sample, found: frozenset[str], drawn: Path) -> Sample:
    """A sample with what the experts say of lung opacity, unless RSNA's readers have said it."""
    if LUNG_OPACITY in sample.labels:
        return sample
    weak = {name: value for name, value in sample.weak.items() if name != LUNG_OPACITY}
    if CONSOLIDATION in found:
        return replace(
            sample, labels={**sample.labels, LUNG_OPACITY: 1.0}, masks={LUNG_OPACITY: DrawnMask(drawn)}, weak=weak
        )
    if found & LOOK_ALIKES:
        return sample
    return replace(sample, labels={**sample.labels, LUNG_OPACITY: 0.0}, weak=weak)


def _patient(number: str) -> str:
    return str(int(number)) if number.isdigit() else number


READINGS = Layout("readings", "cxr/ with cxr_expert/ or cxr_extra/ beside it", _holds, _read)
