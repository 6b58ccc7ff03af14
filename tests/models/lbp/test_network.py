"""Local binary patterns in a network against scikit-image."""

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.architectures.base import Batch, Plan  # noqa: E402
from models.lbp.architecture import LBP_SVM  # noqa: E402
from models.lbp.network import UNIFORM_PATTERNS, histograms, uniform_index  # noqa: E402


def test_there_are_58_uniform_patterns_and_a_bin_for_the_rest() -> None:
    numbers = uniform_index()
    assert sorted(set(numbers)) == list(range(UNIFORM_PATTERNS))
    assert int(np.sum(numbers == UNIFORM_PATTERNS - 1)) == 256 - 58


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_histograms_are_those_of_scikit_image(radius: int) -> None:
    from skimage.feature import local_binary_pattern

    rng = np.random.default_rng(radius)
    image = rng.random((1, 64, 64, 1)).astype(np.float32)
    given = keras.Input((64, 64, 1))
    found = np.asarray(keras.Model(given, histograms(given, radius, 1))(image))[0]
    side = 64 - 2 * radius
    patterns = local_binary_pattern(image[0, :, :, 0].astype(np.float64), 8, radius, "default").astype(int)
    inner = patterns[radius : radius + side, radius : radius + side]
    expected = np.bincount(uniform_index()[inner.ravel()], minlength=UNIFORM_PATTERNS) / side**2
    assert found.sum() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(found, expected, atol=2.5 / side**2)  # a tie may fall to either side in 32 bits


def test_brightness_and_contrast_change_nothing() -> None:
    rng = np.random.default_rng(9)
    image = np.round(rng.random((1, 32, 32, 1)) * 64).astype(np.float32) / 128
    given = keras.Input((32, 32, 1))
    network = keras.Model(given, histograms(given, 1, 2))
    np.testing.assert_allclose(np.asarray(network(image)), np.asarray(network(image * 0.5 + 0.25)), atol=0.02)


class _Textures:
    """Smooth and rough images, which differ in nothing but their texture."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng(index)
        rough = np.arange(8) % 2 == 1
        noise = rng.random((8, 64, 64)).astype(np.float32)
        smooth = (noise + np.roll(noise, 1, 1) + np.roll(noise, 1, 2) + np.roll(noise, (1, 1), (1, 2))) / 4
        pixels = np.where(rough[:, None, None], noise, smooth)[..., None].astype(np.float32)
        labels = rough[:, None].astype(np.float32)
        return Batch(pixels, labels, np.ones_like(labels))


def test_it_learns_a_texture_that_it_has_not_seen_and_serves_probabilities() -> None:
    plan = Plan("lbp-svm", 64, ("rough",))
    network = LBP_SVM.fit(LBP_SVM.build(plan), plan, _Textures())
    served = LBP_SVM.serve(network, plan)
    unseen = _Textures()[77]
    found = np.asarray(served(unseen.pixels, training=False)["probabilities"])
    assert list(found[:, 0] > 0.5) == list(unseen.labels[:, 0] > 0.5)
    assert float(found.min()) > 0.0
    assert float(found.max()) < 1.0


def test_cells_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="cells"):
        LBP_SVM.build(Plan("lbp-svm", 64, ("rough",), options={"cells": 32}))
