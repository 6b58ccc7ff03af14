from pathlib import Path

import numpy as np

from models.training.datasets.sample import Sample
from models.training.evaluation.breakdown import age_band, break_down, groups


def test_age_bands() -> None:
    assert [age_band(age) for age in (0, 19, 20, 79, None)] == ["0 to 19", "0 to 19", "20 to 39", "60 to 79", "unknown"]


def test_groups_by_hand() -> None:
    samples = [
        Sample("a", "1", Path("x"), age=30, sex="F", view="PA"),
        Sample("b", "2", Path("x"), age=30, sex="F", view="PA"),
        Sample("c", "3", Path("x"), age=70, sex="M", view="PA"),
        Sample("d", "4", Path("x"), sex="M", view="PA"),
    ]
    assert list(groups(samples)) == [
        ("sex", "F"),
        ("sex", "M"),
        ("age", "20 to 39"),
        ("age", "60 to 79"),
        ("age", "unknown"),
    ]
    scores, truths = np.array([0.9, 0.1, 0.2, 0.3]), np.array([True, False, True, False])
    rows = break_down(scores, truths, samples, 0.5, rounds=20)
    women, men = rows[:2]
    assert (women.images, women.positives, women.auc.value, women.sensitivity.value) == (2, 1, 1.0, 1.0)
    assert (men.auc.value, men.sensitivity.value, men.specificity.value) == (0.0, 0.0, 1.0)
    assert np.isnan(rows[2:][1].auc.value)
    assert {row.dice for row in rows} == {None}
    marked = break_down(scores, truths, samples, 0.5, rounds=20, dices={"a": 0.8, "c": 0.3})
    assert [row.dice.value for row in marked[:2] if row.dice] == [0.8, 0.3]
