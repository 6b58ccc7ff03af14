from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training import augment, phantoms
from models.training.recipe import Augmentation

STILL = Augmentation()
BUSY = Augmentation(10.0, 0.15, 0.07, 0.18, 0.3, 0.5, 0.35, 0.12, 0.25, 0.3, 0.03, 0.15, 0.2)


def a_chest(side: int = 64) -> np.ndarray:
    return np.clip(np.add.outer(np.arange(side), np.arange(side)) + 1, 1, 255).astype(np.uint8)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_values_stay_in_range_and_padding_stays_black(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plan = replace(BUSY, collimate=0.0, marker=0.0)
    warped = augment.warp(a_chest(), augment.random_affine(plan, 0.8, rng), 48)
    greys = augment.random_greys(warped, plan, rng)
    assert greys.shape == (48, 48)
    assert greys.dtype == np.float32
    assert greys.min() >= 0
    assert greys.max() <= 1
    assert not greys[warped == 0].any()


def test_the_same_seed_gives_the_same_image() -> None:
    one, two = (augment.random_greys(a_chest(), BUSY, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_everything_off_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    warped = augment.warp(a_chest(), augment.random_affine(STILL, 1.0, rng), 64)
    assert np.abs(warped.astype(int) - a_chest()).max() <= 1
    np.testing.assert_allclose(augment.random_greys(a_chest(), STILL, rng), a_chest() / 255, atol=1e-6)


def test_a_place_moves_as_the_image_does() -> None:
    image = np.zeros((128, 128), np.uint8)
    image[80:90, 30:40] = 255
    for seed in range(20):
        affine = augment.random_affine(BUSY, 1.0, np.random.default_rng(seed))
        warped = augment.warp(image, affine, 64)
        rows, columns = np.nonzero(warped > 128)
        x, y = (columns.mean() + 0.5) / 64, (rows.mean() + 0.5) / 64
        a, b, c, d, e, f = affine
        # The coefficients lead from the output back to the source's middle (35, 85) of 128.
        assert (a * x + b * y + c) * 128 == pytest.approx(35, abs=1.5)
        assert (d * x + e * y + f) * 128 == pytest.approx(85, abs=1.5)


def test_equalisation_spreads_values() -> None:
    pixels = np.random.default_rng(0).uniform(0.4, 0.5, (64, 64)).astype(np.float32)
    assert augment.equalised(pixels).std() > 5 * pixels.std()


def test_equalisation_of_black_is_black() -> None:
    assert not augment.equalised(np.zeros((4, 4), np.float32)).any()


@pytest.mark.parametrize("drawing", dict.fromkeys(phantoms.DRAWINGS))
def test_drawings_are_images(drawing: phantoms.Drawing) -> None:
    for seed in range(10):
        pixels = drawing(48, np.random.default_rng(seed))
        assert pixels.shape == (48, 48)
        assert np.isfinite(pixels).all()
        assert pixels.min() >= 0
        assert pixels.max() <= 1
