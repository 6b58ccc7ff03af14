"""One radiograph of a public data set with its reference annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class DatasetError(ValueError):
    """The folder is not a data set of this layout at all, or lacks what is asked for."""


@dataclass(frozen=True, slots=True)
class Weak:
    """What is only likely of a finding: a value to learn with a small weight, never to measure by.

    ``nowhere`` is how far it can be trusted that no place of the image has the finding.
    """

    value: float
    weight: float
    nowhere: float = 0.0


@dataclass(frozen=True, slots=True)
class MarkedBox:
    """A reader's box round one finding, as fractions of the image's width and height."""

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class DrawnMask:
    """A picture file of what a reader drew, white on black, at the image's own shape.

    ``region`` is the number of one of its connected regions, counted by their middles from the left (None: all).
    """

    file: Path
    region: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A radiograph that a network can learn from or be analysed by.

    ``name`` is unique in its data set, ``image`` a DICOM, PNG or JPEG file. ``labels`` holds 1.0 or 0.0 (or how likely,
    for a soft label) for each finding that is known; what is missing there is not known. ``weak`` holds what a recipe
    may learn in their place. ``runs`` are run-length rows by finding in the data set's own code
    (:mod:`models.training.datasets.rle`); a finding with an empty tuple is known to have no pixel.
    ``masks`` are drawn masks by finding.
    ``boxed`` names the findings for which ``boxes`` are complete, also where there is none.
    ``aspect`` is the detector's width by height where the stored image was squeezed to a square.
    """

    name: str
    patient: str
    image: Path
    split: str = ""
    labels: Mapping[str, float] = field(default_factory=dict)
    weak: Mapping[str, Weak] = field(default_factory=dict)
    runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    masks: Mapping[str, DrawnMask] = field(default_factory=dict)
    boxes: tuple[MarkedBox, ...] = ()
    boxed: frozenset[str] = frozenset()
    age: int | None = None
    sex: str = ""
    view: str = ""
    aspect: float = 1.0


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a folder held: usable samples in file order, and everything that was left out with the reason."""

    layout: str
    samples: tuple[Sample, ...]
    problems: tuple[tuple[str, str], ...] = ()
