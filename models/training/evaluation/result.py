"""All that an evaluation found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.notice import NOTICE
from models.model_spec import ModelSpec
from models.training.evaluation.breakdown import Group
from models.training.evaluation.classification import Classified, Confusion
from models.training.evaluation.detection import Detected
from models.training.evaluation.lesions import LesionFigures
from models.training.evaluation.measure import Measured
from models.training.evaluation.segmentation import Segmented
from models.training.figures import LabelFigures


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured, and the folder that holds it; ``not_evaluated`` says why a label has no figures.

    ``learnt`` of the images the network has learnt from, as far as its evidence tells: on those it shows its memory.
    """

    spec: ModelSpec
    layout: str
    split: str
    measured: Measured
    classified: Mapping[str, Classified]
    places: Mapping[str, Segmented]
    lesions: Mapping[str, Mapping[str, LesionFigures]]
    boxes: Mapping[str, Detected]
    confusions: tuple[Confusion, ...]
    groups: Mapping[str, Sequence[Group]]
    not_evaluated: Mapping[str, str]
    problems: tuple[tuple[str, str], ...]
    folder: Path
    learnt: int = 0

    @property
    def warning(self) -> str:
        """What must stand before figures of images that the network knows; empty where it knows none of them."""
        if not self.learnt:
            return ""
        return (
            f"{self.learnt} of {len(self.measured.samples)} images are among those that {self.spec.name} has learnt"
            " from: these figures show what it remembers. What it finds in unseen patients stands in its card."
        )

    @property
    def figures(self) -> dict[str, LabelFigures]:
        """What a manifest's evidence is made of, by label."""
        return {label: item.figures for label, item in self.classified.items()}

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        spec, samples = self.spec, self.measured.samples
        return {
            "notice": NOTICE,
            "model": {
                "name": spec.name,
                "version": spec.version,
                "kind": spec.kind.value,
                "file": spec.file.name,
                "digest": spec.digest,
            },
            "data": {
                "layout": self.layout,
                "split": self.split,
                "images": len(samples),
                "patients": len({item.patient for item in samples}),
                "learnt_from": self.learnt,
            },
            "labels": {label: item.as_dict() for label, item in self.classified.items()},
            "places": {label: item.as_dict() for label, item in self.places.items()},
            "lesions": {
                label: {against: item.as_dict() for against, item in found.items()}
                for label, found in self.lesions.items()
            },
            "boxes": {label: item.as_dict() for label, item in self.boxes.items()},
            "confusion": [item.as_dict() for item in self.confusions],
            "groups": {label: [item.as_dict() for item in rows] for label, rows in self.groups.items()},
            "not_evaluated": dict(self.not_evaluated),
            "left_out": [{"image": name, "reason": reason} for name, reason in self.problems],
        }
