"""What is asked beside the trained network: sides stay sides, and a probe is a logistic regression."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

from models.architectures.base import Batch, Plan, check_plan  # noqa: E402
from models.architectures.linear import Linear  # noqa: E402
from models.efficientnet.architecture import EFFICIENTNET_CLASSIFIER as CLASSIFIER  # noqa: E402
from models.efficientnet.ensemble import ensemble, regression  # noqa: E402
from models.efficientnet.network import feature_network  # noqa: E402

PLAN = Plan(CLASSIFIER.name, 64, ("lung_opacity", "mass"), width=0.125)


def test_a_probe_is_a_logistic_regression() -> None:
    rng = np.random.default_rng(3)
    features, truths = rng.normal(5, 3, (24, 6)), rng.random(24) < 0.5
    weights, offset = regression(features, truths, np.ones(24, bool), 0.5)
    scaled = (features - features.mean(0)) / features.std(0)
    theirs = LogisticRegression(C=0.5).fit(scaled, truths).decision_function(scaled)
    np.testing.assert_allclose(features @ weights + offset, theirs, atol=1e-3)
    weights, offset = regression(features, np.zeros(24, bool), np.ones(24, bool), 0.5)
    assert not weights.any(), "of what nobody has nothing can be said"


def test_the_mirror_image_is_analysed_alike_and_places_keep_their_sides() -> None:
    model, frozen = CLASSIFIER.build(PLAN), feature_network(64, PLAN.width, "random")
    rng = np.random.default_rng(4)
    probe = Linear(rng.normal(0, 1, (frozen.output_shape[1], 2)), rng.normal(0, 1, 2))
    both = ensemble(model, (frozen, probe), mirrored=True)
    images = rng.random((5, 64, 64, 1)).astype(np.float32)
    turned = images[:, :, ::-1].copy()
    first, again = both(images, training=False), both(turned, training=False)
    np.testing.assert_allclose(first["members"], again["members"], atol=1e-5)
    np.testing.assert_allclose(first["maps"], keras.ops.convert_to_numpy(again["maps"])[:, :, ::-1], atol=1e-6)
    # The graph says what its parts say.
    straight, flipped = model(images, training=False), model(turned, training=False)
    np.testing.assert_allclose(first["members"][:, 0], (straight["logits"] + flipped["logits"]) / 2, atol=1e-4)
    features = (frozen(images, training=False) + frozen(turned, training=False)) / 2
    np.testing.assert_allclose(first["members"][:, 1], probe(keras.ops.convert_to_numpy(features)), atol=1e-3)


def test_outlined_labels_alone_are_taught_places() -> None:
    masks = np.zeros((1, 64, 64, 2), np.float32)
    masks[0, :16, :8, 0] = 1
    labels = np.array([[1, 0]], np.float32)
    batch = Batch(np.zeros((1, 64, 64, 1), np.float32), labels, labels * 0 + 1, masks, np.ones((1, 2), np.float32))
    plan = replace(PLAN, options={"label_weights": "2,1", "smoothing": 0.01})
    truths = CLASSIFIER.truths(plan, batch)
    np.testing.assert_allclose(truths["logits"], [[0.99, 0.01, 2, 1]], rtol=1e-6)
    assert truths["maps"].shape == (1, 4, 4, 2)
    assert truths["maps"][0, 0, 0].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("option", "complaint"),
    [({"outlined": "cough"}, "cough"), ({"label_weights": "1"}, "label_weights needs 2"), ({"read": 1.0}, "no option")],
)
def test_what_cannot_be_is_refused(option: dict[str, str | float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        _refused(replace(PLAN, options=option))


def _refused(plan: Plan) -> None:
    check_plan(CLASSIFIER, plan)
    CLASSIFIER.losses(plan)
