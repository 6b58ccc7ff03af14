"""The feature pyramid: a map of a quarter of the size, what it learns from, and the mirror image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.architectures.base import Batch, Plan, check_plan  # noqa: E402
from models.fpn.architecture import FPN  # noqa: E402
from models.fpn.network import PRIOR  # noqa: E402
from models.training.onnx_export import export_onnx  # noqa: E402

PLAN = Plan("fpn", 64, ("lung_opacity",), "light", width=0.125)


def pixels(count: int = 2) -> np.ndarray:
    return np.random.default_rng(4).random((count, 64, 64, 1), np.float32)


def answer(model: keras.Model, given: np.ndarray, name: str = "maps") -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(given, training=False)[name]))


@pytest.mark.training
def test_has_a_map_of_a_quarter_of_the_size_that_says_little_at_first() -> None:
    check_plan(FPN, PLAN)
    network = FPN.build(replace(PLAN, labels=("lung_opacity", "pneumothorax")))
    assert network.output["map_logits"].shape == (None, 16, 16, 2)
    _, bias = network.get_layer("map_logits").get_weights()
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), PRIOR, rtol=1e-5)


@pytest.mark.training
def test_the_mirror_images_map_is_turned_back_and_the_export_says_the_same(tmp_path: Path) -> None:
    network = FPN.build(PLAN)
    alone, both = (FPN.serve(network, replace(PLAN, options={"mirrored": each})) for each in (False, True))
    given = pixels()
    straight, turned = answer(alone, given), answer(alone, given[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(answer(both, given), (straight + turned) / 2, atol=1e-6)
    np.testing.assert_allclose(answer(both, given[:, :, ::-1])[:, :, ::-1], answer(both, given), atol=1e-6)
    assert export_onnx(both, tmp_path / "both.onnx", given) < 1e-4


def test_an_image_without_the_finding_teaches_by_cross_entropy_alone() -> None:
    """Its Dice loss would be the same 1 whatever is said, and drown the rest."""
    loss = FPN.losses(replace(PLAN, options={"positive": 1.0, "dice": 1.0}))["map_logits"]
    logits = np.zeros((1, 4, 4, 1), np.float32)
    empty, full = (np.concatenate([np.full_like(logits, there), np.ones_like(logits)], -1) for there in (0.0, 1.0))
    assert float(loss(empty, logits)[0]) == pytest.approx(np.log(2), abs=1e-5)
    dice = 1 - (2 * 8 + 1) / (8 + 16 + 1)
    assert float(loss(full, logits)[0]) == pytest.approx(np.log(2) + dice, abs=1e-5)
    twice = FPN.losses(replace(PLAN, options={"positive": 2.0, "dice": 0.0}))["map_logits"]
    assert float(twice(full, logits)[0]) == pytest.approx(2 * np.log(2), abs=1e-5)
    assert float(twice(empty, logits)[0]) == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.parametrize("options", [{"filters": 0}, {"positive": 0.0}, {"dice": -1.0}])
def test_options_without_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="filters must be 1 or more"):
        FPN.build(replace(PLAN, options=options))


def test_a_data_set_without_masks_is_refused() -> None:
    labels = np.zeros((2, 1), np.float32)
    with pytest.raises(ValueError, match="learns from masks"):
        FPN.truths(PLAN, Batch(pixels(), labels, labels))
