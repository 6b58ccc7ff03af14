"""U-Nets: the published one counted, odd sizes and borders, truths, losses by name, ONNX."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.architectures.base import Batch, Option, Plan, check_plan  # noqa: E402
from models.architectures.losses import map_bce, map_dice, map_focal  # noqa: E402
from models.encoders.table import NAMES  # noqa: E402
from models.training.onnx_export import export_onnx  # noqa: E402
from models.unet.architecture import LOSSES, UNET, read_loss  # noqa: E402
from models.unet.network import framed, unframed  # noqa: E402

SMALL = Plan("unet", 64, ("pneumothorax",), "light", width=0.125)
NUMBERS: dict[str, Any] = {"smoothing": 1.0, "gamma": 2.0, "alpha": 0.25, "share": 1.0}


def build(plan: Plan) -> keras.Model:
    check_plan(UNET, plan)
    return UNET.build(plan)


def pixels(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(4).random((count, size, size, 1), np.float32)


def answer(model: keras.Model, given: np.ndarray, name: str) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(given, training=False)[name]))


def test_the_plain_unet_by_hand() -> None:
    def convolutions(entering: int, filters: int) -> int:
        return 9 * entering * filters + 9 * filters * filters + 4 * filters  # two, each with scale and shift

    down = sum(convolutions(a, b) for a, b in [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1024)])
    up = sum(convolutions(a + b, b) for a, b in [(1024, 512), (512, 256), (256, 128), (128, 64)])
    model = build(Plan("unet", 128, ("pneumothorax",), "plain"))
    assert sum(math.prod(weight.shape) for weight in model.trainable_variables) == down + up + 9 * 64 + 1


@pytest.mark.parametrize("name", NAMES)
def test_has_a_map_of_the_inputs_size_over_every_encoder(name: str) -> None:
    model = build(replace(SMALL, encoder=name, labels=("opacity", "pneumothorax")))
    assert model.output["map_logits"].shape == (None, 64, 64, 2)


def test_an_odd_size_is_filled_up_and_cut_again() -> None:
    model = build(replace(SMALL, size=72))
    assert answer(model, pixels(72), "map_logits").shape == (2, 72, 72, 1)


def test_a_border_is_not_looked_at_and_nothing_is_marked_there(tmp_path: Path) -> None:
    plan = replace(SMALL, options={"border": 0.125})
    served = UNET.serve(build(plan), plan)
    given = pixels(64)
    changed = given.copy()
    changed[:, :8], changed[:, -8:], changed[:, :, :8], changed[:, :, -8:] = 1, 0, 1, 0
    found, other = answer(served, given, "maps"), answer(served, changed, "maps")
    np.testing.assert_array_equal(found, other)
    inner = np.zeros((64, 64), bool)
    inner[8:-8, 8:-8] = True
    assert found[:, ~inner].max() < 1e-4
    assert found[:, inner].min() > 1e-3
    assert export_onnx(served, tmp_path / "model.onnx", given) < 1e-4


@pytest.mark.parametrize("size", [64, 72])
def test_a_place_inside_the_border_stays_where_it_is(size: int) -> None:
    given, border = pixels(size), 6
    shown, inner = framed(given, border)
    found = keras.ops.convert_to_numpy(unframed(shown, inner, border))
    inside = slice(border, -border)
    np.testing.assert_array_equal(found[:, inside, inside], given[:, inside, inside])


def test_truths_pack_masks_with_how_far_they_are_known() -> None:
    masks = np.zeros((2, 64, 64, 1), np.float32)
    masks[0, 3, 5] = 1
    batch = Batch(
        pixels(64),
        np.ones((2, 1), np.float32),
        np.ones((2, 1), np.float32),
        masks,
        np.array([[1.0], [0.0]], np.float32),
    )
    truth = UNET.truths(SMALL, batch)["map_logits"]
    assert truth.shape == (2, 64, 64, 2)
    assert truth[0, 3, 5].tolist() == [1, 1]
    assert truth[0, 0, 0].tolist() == [0, 1]
    assert not truth[1, ..., 1].any()


def test_a_data_set_without_masks_is_refused() -> None:
    with pytest.raises(ValueError, match="learns from masks"):
        UNET.truths(SMALL, Batch(pixels(64), np.ones((2, 1), np.float32), np.ones((2, 1), np.float32)))


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_one_that_is_named(name: str) -> None:
    rng = np.random.default_rng(0)
    truth = np.concatenate([rng.random((2, 8, 8, 1)) < 0.3, np.ones((2, 8, 8, 1))], axis=-1).astype(np.float32)
    logits = rng.normal(size=(2, 8, 8, 1)).astype(np.float32)
    numbers = {"smoothing": 2.0, "gamma": 1.5, "alpha": 0.4, "share": 3.0}
    parts = {"bce": map_bce, "dice": map_dice(2.0), "focal": map_focal(1.5, 0.4)}
    first, *rest = [keras.ops.convert_to_numpy(parts[part](truth, logits)) for part in name.split("+")]
    expected = first + 3.0 * sum(rest)
    np.testing.assert_allclose(read_loss(name, **numbers)(truth, logits), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"smoothing": 0.0}, {"gamma": -1.0}, {"alpha": 1.0}, {"share": 0.0}, {"name": "iou"}]
)
def test_a_loss_without_sense_is_refused(wrong: dict[str, Option]) -> None:
    with pytest.raises(ValueError, match="must be"):
        read_loss(**{"name": "dice+bce", **NUMBERS, **wrong})


def test_a_border_without_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="border must be"):
        build(replace(SMALL, options={"border": 0.5}))


COARSE: dict[str, Option] = {"deepest": 16, "finest": 2, "decoder": 0.5}


def test_a_coarse_map_is_taught_as_shares_of_its_places() -> None:
    plan = replace(SMALL, options=COARSE)
    model = build(plan)
    assert model.output["map_logits"].shape == (None, 32, 32, 1)
    assert model.count_params() < build(SMALL).count_params()
    masks = np.zeros((1, 64, 64, 1), np.float32)
    masks[0, 10:13, 20:22] = 1
    batch = Batch(
        pixels(64, 1), np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), masks, np.ones((1, 1), np.float32)
    )
    truth = UNET.truths(plan, batch)["map_logits"]
    assert truth.shape == (1, 32, 32, 2)
    assert (truth[0, 5, 10, 0], truth[0, 6, 10, 0], truth[0, 7, 10, 0]) == (1.0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("size", "options"),
    [(72, COARSE), (64, {**COARSE, "border": 0.1}), (64, {"deepest": 8}), (64, {"finest": 3}), (64, {"decoder": 0.0})],
)
def test_a_shape_without_sense_is_refused(size: int, options: dict[str, Option]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs border"):
        build(replace(SMALL, size=size, options=options))
