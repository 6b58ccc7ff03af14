"""Several judgements made one: fair means, measured only on groups that they were not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.training.calibrate import crossed_means, crossed_probabilities, fit_mean  # noqa: E402
from models.training.metrics import auc, calibration_error  # noqa: E402

LABELS = 6
ALONE = np.arange(LABELS) == 2
AVERAGED = np.flatnonzero(~ALONE)


def test_members_of_different_scale_have_one_voice_each() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, (48, LABELS))
    second = rng.normal(-3, 5, first.shape)
    final = fit_mean(np.stack([first, second], axis=1), ALONE)(np.concatenate([first, second], axis=1))
    expected = (first - first.mean(0)) / first.std(0) + (second - second.mean(0)) / second.std(0)
    for column in AVERAGED:
        assert np.corrcoef(final[:, column], expected[:, column])[0, 1] == pytest.approx(1.0)
    # In the logits' own units, so that calibration starts near what a network means by them.
    np.testing.assert_allclose(final.mean(0)[AVERAGED], ((first.mean(0) + second.mean(0)) / 2)[AVERAGED])


def test_what_is_outlined_is_analysed_by_the_network_that_drew_it() -> None:
    logits = np.random.default_rng(5).normal(0, 2, (48, 2, LABELS))
    final = fit_mean(logits, ALONE)(logits.reshape(48, -1))
    np.testing.assert_allclose(final[:, ALONE], logits[:, 0, ALONE], atol=1e-12)


def test_one_member_alone_says_what_it_said() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (48, 1, LABELS))
    np.testing.assert_allclose(fit_mean(logits, ALONE)(logits[:, 0]), logits[:, 0], atol=1e-12)


def test_a_member_that_never_differs_has_no_voice() -> None:
    first = np.random.default_rng(1).normal(0, 2, (48, LABELS))
    both = np.stack([first, np.zeros_like(first)], axis=1)
    final = fit_mean(both, ALONE)(both.reshape(48, -1))
    assert np.isfinite(final).all()
    for column in AVERAGED:
        assert np.corrcoef(final[:, column], first[:, column])[0, 1] == pytest.approx(1.0)


def test_nobody_predicts_how_loud_his_own_group_is_heard() -> None:
    logits = np.random.default_rng(2).normal(0, 1, (48, 2, LABELS))
    groups = [str(index % 3) for index in range(48)]
    inside = np.array(groups) == "0"
    before = crossed_means(logits, groups, ALONE)
    louder = logits.copy()
    louder[inside, 1] *= 10
    after = crossed_means(louder, groups, ALONE)
    # What group 0 says counts as before in group 0 (a sum of its members' parts), and otherwise in the others.
    parts = after[inside] - before[inside]
    loud = logits[inside, 1]
    for column in AVERAGED:
        assert np.corrcoef(parts[:, column], loud[:, column])[0, 1] == pytest.approx(1.0)
    assert np.abs(after[~inside] - before[~inside]).max() > 1e-3


def test_calibration_is_measured_on_other_groups() -> None:
    rng = np.random.default_rng(0)
    ill = rng.random((120, 1)) < 0.5
    logits = np.where(ill, 20.0, -20.0) + rng.normal(0, 1, ill.shape)
    for groups in ([str(index % 4) for index in range(120)], ["val"] * 120):
        probabilities = crossed_probabilities(logits, ill, np.ones_like(ill), groups)[:, 0]
        assert auc(probabilities, ill[:, 0]) == 1.0
        assert calibration_error(probabilities, ill[:, 0]) < 0.02


def test_a_single_group_is_scaled_as_the_network_that_ships_is() -> None:
    rng = np.random.default_rng(3)
    ill = rng.random((200, 1)) < 0.5
    logits = 3 + ill * 1.0 + rng.normal(0, 1, ill.shape)
    probabilities = crossed_probabilities(logits, ill, np.ones_like(ill), ["val"] * 200)
    assert probabilities.mean() == pytest.approx(ill.mean(), abs=0.02), "a cut-off must hold for served probabilities"
