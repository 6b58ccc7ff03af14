from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training.datasets import split
from models.training.datasets.sample import DatasetError, Sample


def samples(patients: list[int], ill: set[int] = frozenset(), splits: str = "") -> list[Sample]:  # type: ignore[assignment]
    return [
        Sample(f"{number}", f"{patient}", Path("x"), splits, {"mass": float(patient in ill)})
        for number, patient in enumerate(patients)
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=12, max_size=80), st.integers(0, 99))
def test_a_patient_is_on_one_side(patients: list[int], seed: int) -> None:
    people = samples(patients, ill=set(range(5)))
    if len(set(patients)) < 5:
        return
    learn, held_out = split.by_patient(people, 0.3, seed)
    assert not {item.patient for item in learn} & {item.patient for item in held_out}
    assert sorted(item.name for item in (*learn, *held_out)) == sorted(item.name for item in people)
    assert len({item.patient for item in held_out}) == round(0.3 * len(set(patients)))
    dealt = split.folds(people, 4, seed)
    assert all(
        len({fold for fold, one in zip(dealt, people, strict=True) if one.patient == who}) == 1
        for who in {item.patient for item in people}
    )
    assert set(dealt) == {0, 1, 2, 3}


def test_a_rare_finding_is_in_every_fold_and_on_both_sides() -> None:
    people = samples(list(range(100)), ill=set(range(40, 50)))
    dealt = split.folds(people, 5, seed=1)
    ill = [fold for fold, item in zip(dealt, people, strict=True) if item.labels["mass"]]
    assert np.bincount(ill).tolist() == [2] * 5
    _, held_out = split.by_patient(people, 0.2, seed=1)
    assert sum(item.labels["mass"] for item in held_out) == 2


def test_seeds() -> None:
    people = samples(list(range(50)))
    assert split.folds(people, 5, 3) == split.folds(people, 5, 3)
    assert split.folds(people, 5, 3) != split.folds(people, 5, 4)
    assert split.by_patient(people, 0.2, 3) == split.by_patient(people, 0.2, 3)


def test_too_few_patients() -> None:
    with pytest.raises(ValueError, match="1 patients cannot be dealt into 2 folds"):
        split.folds(samples([1, 1]), 2, 0)
    with pytest.raises(ValueError, match="leaves nobody"):
        split.by_patient(samples([1, 2]), 0.1, 0)


def test_splits_by_name() -> None:
    people = samples(list(range(10)), splits="train") + samples(list(range(10, 15)), splits="test")
    learn, held_out = split.named(people, "train"), split.named(people, "val")
    assert (len(learn), len(held_out)) == (8, 2)
    assert {item.split for item in held_out} == {"train"}
    assert len(split.named(people, "test")) == 5
    assert len(split.named(people, "all")) == 15
    own = samples([1, 2], splits="train") + samples([3], splits="val")
    assert [item.patient for item in split.named(own, "val")] == ["3"]
    assert len(split.named(own, "train")) == 2
    with pytest.raises(DatasetError, match="there are: train, val; 'all' takes every image"):
        split.named(own, "test")
    with pytest.raises(DatasetError, match="none can be made"):
        split.named(samples([1]), "val")
