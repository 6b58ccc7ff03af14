"""The layout of Pleura's own experiments: ``labels.csv`` with a ``split`` column, and ``images/`` beside it.

Labels are those of NIH (mined from reports) and, where the RSNA challenge had the image read by radiologists, theirs.
"""

from __future__ import annotations

from pathlib import Path

from models.training.dataset import NIH_FINDINGS, Example, read_cxr
from models.training.datasets.layout import Gathered, Layout, Progress
from models.training.datasets.sample import Dataset, MarkedBox, Sample

LUNG_OPACITY, ABNORMAL, NORMAL = "lung_opacity", "abnormal", "normal"
OTHER_ABNORMALITY = "other_abnormality"
"""RSNA's class *No Lung Opacity / Not Normal*."""


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


def sample_of(example: Example) -> Sample:
    """One row; a reader's class outranks what was mined from the report."""
    read = rsna_labels(example.rsna_class) if example.rsna_class else {}
    return Sample(
        name=example.image,
        patient=example.patient,
        image=example.path,
        split=example.split,
        labels={**nih_labels(example.findings), **read},
        boxes=tuple(MarkedBox(LUNG_OPACITY, box.x, box.y, box.width, box.height) for box in example.boxes),
        boxed=frozenset({LUNG_OPACITY}) if example.rsna_class else frozenset(),
        age=example.age,
        sex=example.sex,
        view=example.view,
        aspect=example.aspect,
    )


def _holds(folder: Path) -> bool:
    return (folder / "labels.csv").is_file()


def _read(folder: Path, progress: Progress | None) -> Dataset:
    examples, problems = read_cxr(folder)
    gathered = Gathered({item.image: sample_of(item) for item in examples})
    for problem in problems:
        gathered.leave_out(problem.image, problem.reason)
    if progress is not None:
        progress("rows", len(examples) + len(problems), len(examples) + len(problems))
    return gathered.dataset(CXR.name)


CXR = Layout("cxr", "labels.csv with a split column, and images/", _holds, _read)
