"""The same figure for groups of patients: by sex, by age band, by view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.training.datasets.sample import Sample
from models.training.evaluation.classification import operating
from models.training.evaluation.segmentation import mean_by_patients
from models.training.metrics import Interval, auc, by_patients

BAND = 20
"""Years of an age band."""


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of one finding among the images of one group; NaN where the group has one class only.

    ``dice`` is the mean over its images with a known mask; None where the model has no map of this finding.
    """

    kind: str
    name: str
    images: int
    positives: int
    auc: Interval
    sensitivity: Interval
    specificity: Interval
    dice: Interval | None = None

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return asdict(self)


def age_band(age: int | None) -> str:
    """Twenty-year bands."""
    if age is None:
        return "unknown"
    return f"{age // BAND * BAND} to {age // BAND * BAND + BAND - 1}"


def groups(samples: Sequence[Sample]) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Who belongs to each group ``bool[n]``, by kind and name; a kind with one group says nothing and is left out."""
    kinds = {
        "sex": [item.sex or "unknown" for item in samples],
        "age": [age_band(item.age) for item in samples],
        "view": [item.view or "unknown" for item in samples],
    }
    found: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for kind, names in kinds.items():
        different = sorted(set(names), key=lambda name: (name == "unknown", len(name), name))
        if len(different) > 1:
            found.update({(kind, name): np.array([own == name for own in names]) for name in different})
    return found


def break_down(
    scores: NDArray[np.floating],
    truths: NDArray[np.bool_],
    samples: Sequence[Sample],
    threshold: float,
    rounds: int = 200,
    dices: Mapping[str, float] | None = None,
) -> list[Group]:
    """Figures of scores ``[n]`` in each group of their samples; ``dices`` are by the name of the sample."""
    rows = []
    for (kind, name), inside in groups(samples).items():
        patients = [item.patient for item, use in zip(samples, inside, strict=True) if use]
        point = operating(scores[inside], truths[inside], threshold)
        area = by_patients(auc, scores[inside], truths[inside], patients, rounds=rounds)
        positives = int(truths[inside].sum())
        overlap = None
        if dices is not None:
            own = [item for item, use in zip(samples, inside, strict=True) if use and item.name in dices]
            values = np.array([dices[item.name] for item in own])
            overlap = mean_by_patients(values, [item.patient for item in own], rounds)
        count = int(inside.sum())
        rows.append(Group(kind, name, count, positives, area, point.sensitivity, point.specificity, overlap))
    return rows
