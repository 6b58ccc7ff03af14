"""Deep features under a support vector machine: the exact plane is what the served network says."""

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.architectures.base import Batch, Plan  # noqa: E402
from models.svm.architecture import DENSENET121_SVM, features_of  # noqa: E402
from models.svm.losses import DegenerateData  # noqa: E402

PLAN = Plan("densenet121-svm", 64, ("bright",), "vgg-small", width=0.125, options={"cost": 0.5})


class _Images:
    def __init__(self, one_kind: bool = False) -> None:
        self._one_kind = one_kind

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng(index)
        bright = np.arange(8) % 2 * (not self._one_kind)
        pixels = rng.random((8, 64, 64, 1)) * 0.5 + 0.3 * bright[:, None, None, None]
        labels = bright[:, None].astype(np.float32)
        return Batch(pixels.astype(np.float32), labels, np.ones_like(labels))


def test_the_served_probability_is_the_calibrated_margin_of_the_exact_machine() -> None:
    from sklearn.svm import LinearSVC

    keras.utils.set_random_seed(5)
    network = DENSENET121_SVM.build(PLAN)
    network = DENSENET121_SVM.fit(network, PLAN, _Images())
    features, truths, _ = features_of(network, _Images())
    spread = features.std(axis=0)
    standard = np.where(
        spread < 1e-7, 0.0, (features - features.mean(axis=0)) / np.sqrt(np.maximum(spread**2, 1e-14) + 1e-6)
    )
    reference = LinearSVC(loss="squared_hinge", C=0.5, tol=1e-10, max_iter=100_000, class_weight="balanced")
    margins = reference.fit(standard, truths[:, 0]).decision_function(standard)
    pixels = np.concatenate([_Images()[index].pixels for index in range(4)])
    answer = network(pixels, training=False)
    np.testing.assert_allclose(np.asarray(answer["margins"])[:, 0], margins, atol=2e-3)
    served = np.asarray(DENSENET121_SVM.serve(network, PLAN)(pixels, training=False)["probabilities"])
    assert np.array_equal(np.argsort(served[:, 0]), np.argsort(np.asarray(answer["margins"])[:, 0]))


def test_one_kind_of_example_names_the_label() -> None:
    with pytest.raises(DegenerateData, match="bright: 32 examples, all of one kind"):
        DENSENET121_SVM.fit(DENSENET121_SVM.build(PLAN), PLAN, _Images(one_kind=True))
