"""Splits into training, validation and test, by patient: two images of one patient are not independent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from models.training.datasets.sample import DatasetError, Sample

ALL = "all"
TRAINING, VALIDATION = "train", "val"
HELD_BACK = 0.2
"""Share of patients that are held back where a data set has no validation split of its own."""


def folds(samples: Sequence[Sample], count: int, seed: int) -> list[int]:
    """The fold (0 … ``count`` - 1) of each sample: a patient is in one, and rare findings are in all of them.

    Patients are dealt out in random order within groups of equal rarest finding.

    Raises:
        ValueError: fewer than two folds, or more folds than patients.
    """
    rarest = _rarest(samples)
    if not 2 <= count <= len(rarest):
        raise ValueError(f"{len(rarest)} patients cannot be dealt into {count} folds")
    order = np.random.default_rng(seed).permutation(len(rarest))
    patients = sorted(rarest)
    ordered = sorted((patients[index] for index in order), key=lambda patient: rarest[patient])
    fold = {patient: index % count for index, patient in enumerate(ordered)}
    return [fold[item.patient] for item in samples]


def by_patient(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Samples to learn from, and those of about ``fraction`` of all patients to analyse by; both keep their order.

    Raises:
        ValueError: the fraction leaves nobody on one side.
    """
    rarest = _rarest(samples)
    held = round(fraction * len(rarest))
    if not 0 < held < len(rarest):
        raise ValueError(
            f"a share of {fraction:g} of {len(rarest)} patients leaves nobody to learn from or to analyse by"
        )
    order = np.random.default_rng(seed).permutation(len(rarest))
    patients = sorted(rarest)
    ordered = sorted((patients[index] for index in order), key=lambda patient: rarest[patient])
    # Evenly spaced over the order by rarest finding, so that both sides hold each finding in the same share.
    places = np.floor((np.arange(held) + 0.5) * len(ordered) / held).astype(int)
    chosen = {ordered[place] for place in places}
    return [item for item in samples if item.patient not in chosen], [
        item for item in samples if item.patient in chosen
    ]


def named(samples: Sequence[Sample], name: str) -> list[Sample]:
    """The samples of a split by name: the data set's own, or ``all`` of them.

    Where a data set has no ``val`` of its own, ``val`` is a fixed fifth of the patients of ``train`` (or of all, where
    there are no splits), and ``train`` is the rest: the same in training and in evaluation.

    Raises:
        DatasetError: there is no such split; the message lists those there are.
    """
    there = {item.split for item in samples}
    if name == ALL:
        return list(samples)
    if name in (TRAINING, VALIDATION) and VALIDATION not in there and there & {"", TRAINING}:
        pool = [item for item in samples if item.split in ("", TRAINING)]
        try:
            seen, held_back = by_patient(pool, HELD_BACK, seed=0)
        except ValueError as error:
            raise DatasetError(f"the data set has no split '{name}', and none can be made: {error}") from error
        return seen if name == TRAINING else held_back
    chosen = [item for item in samples if item.split == name]
    if not chosen:
        known = ", ".join(sorted(filter(None, there)) or ["none"])
        raise DatasetError(f"there is no split '{name}' (there are: {known}; '{ALL}' takes every image)")
    return chosen


def _rarest(samples: Sequence[Sample]) -> dict[str, tuple[int, str]]:
    """For each patient the rarest finding of any image, with how often it occurs."""
    counts = Counter(name for item in samples for name in _present(item))
    nothing = (len(samples) + 1, "")
    rarest: dict[str, tuple[int, str]] = {}
    for item in samples:
        key = min(((counts[name], name) for name in _present(item)), default=nothing)
        rarest[item.patient] = min(rarest.get(item.patient, key), key)
    return rarest


def _present(item: Sample) -> list[str]:
    return [name for name, value in item.labels.items() if value >= 0.5]
