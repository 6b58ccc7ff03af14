"""Pooling of places against the formulas in double precision; patches against numpy's own slices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.mil.network import attend, cut, lay, noisy_or, pool, prior  # noqa: E402  # noqa: E402


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def test_noisy_or_by_hand() -> None:
    # Chances of 1/2 and 1/4 that are independent: 1 - 1/2 x 3/4 = 5/8.
    places = np.log([[1.0, 1 / 3]]).reshape(1, 1, 2, 1).astype(np.float32)
    assert sigmoid(np.asarray(noisy_or(places)))[0, 0] == pytest.approx(5 / 8, abs=1e-6)


@given(arrays(np.float32, (2, 3, 3, 2), elements=st.floats(-12, 30, width=32)))
def test_noisy_or_is_one_minus_the_chance_that_all_are_empty(places: np.ndarray) -> None:
    expected = -np.expm1(np.log1p(-np.minimum(sigmoid(places), 1 - 1e-15)).sum(axis=(1, 2)))
    found = np.asarray(noisy_or(places))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(sigmoid(found), expected, atol=1e-5)


def test_noisy_or_does_not_overflow() -> None:
    both = np.array([-200.0, 200.0], np.float32).reshape(2, 1, 1, 1)
    found = np.asarray(noisy_or(np.tile(both, (1, 4, 4, 1))))
    assert np.isfinite(found).all()
    assert sigmoid(found)[0, 0] < 1e-5
    assert sigmoid(found)[1, 0] == 1.0


def test_the_prior_makes_an_untaught_bag_uncertain() -> None:
    places = np.full((1, 16, 16, 1), prior("noisy-or", 256), np.float32)
    assert 0.3 < sigmoid(np.asarray(noisy_or(places)))[0, 0] < 0.8


def test_max_and_mean_by_hand() -> None:
    places = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    assert np.asarray(pool(None, places, "max", 1.0)[0]).tolist() == [[6, 7]]
    assert np.asarray(pool(None, places, "mean", 1.0)[0]).tolist() == [[3, 4]]
    with pytest.raises(ValueError, match="pooling must be one of"):
        pool(None, places, "median", 1.0)


def test_attention_is_the_published_formula() -> None:
    rng = np.random.default_rng(3)
    features, places = keras.Input((3, 3, 4)), keras.Input((3, 3, 2))
    model = keras.Model([features, places], attend(features, places, 0.125))
    seen, gate, head = (model.get_layer(name) for name in ("attention_seen", "attention_gate", "attention"))
    for layer in (seen, gate, head):
        layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    f, z = (rng.normal(size=(2, 3, 3, n)).astype(np.float32) for n in (4, 2))
    (v, vb), (u, ub), (w, wb) = ([a.squeeze() for a in layer.get_weights()] for layer in (seen, gate, head))
    scores = (np.tanh(f @ v + vb) * sigmoid(f @ u + ub)) @ w + wb
    weights = np.exp(scores) / np.exp(scores).sum(axis=(1, 2), keepdims=True)
    logits, maps = (np.asarray(output) for output in model([f, z]))
    np.testing.assert_allclose(logits, (weights * z).sum(axis=(1, 2)), atol=1e-5)
    best = weights.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(maps, z + np.log(weights / best), atol=1e-4)


def test_patches_are_slices_and_are_laid_back() -> None:
    image = np.random.default_rng(0).random((2, 64, 64, 1), np.float32)
    patches = np.asarray(cut(image, 2))
    assert patches.shape == (8, 32, 32, 1)
    np.testing.assert_array_equal(patches[5], image[1, :32, 32:])  # the second image's top right
    np.testing.assert_array_equal(np.asarray(lay(patches, 2)), image)


@pytest.mark.parametrize("grid", [0, 3, 4])
def test_patches_of_odd_sizes_are_refused(grid: int) -> None:
    with pytest.raises(ValueError, match="patches = "):
        cut(np.zeros((1, 64, 64, 1), np.float32), grid)
