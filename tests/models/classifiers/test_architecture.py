"""The published classifiers: their sizes, and what their served twins answer."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.architectures.base import Plan, check_plan  # noqa: E402
from models.architectures.catalogue import find  # noqa: E402
from models.training.onnx_export import export_onnx  # noqa: E402

SMALL = Plan("vgg16", 64, ("opacity", "pneumothorax"), width=0.125)


def trainable(model: keras.Model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_variables)


def build(plan: Plan) -> keras.Model:
    architecture = find(plan.architecture)
    check_plan(architecture, plan)
    return architecture.build(plan)


def pixels(count: int = 3, size: int = 64) -> np.ndarray:
    return np.random.default_rng(4).random((count, size, size, 1), np.float32)


def test_lenet_has_the_published_layers() -> None:
    # LeNet-5 on 32 x 32 with full connections between its maps: 156 + 2,416 + 48,120 + 10,164, and 85 a class.
    model = build(Plan("lenet", 32, ("pneumothorax",)))
    assert trainable(model) == 156 + 2_416 + 48_120 + 10_164 + 85


def test_alexnet_has_the_published_layers() -> None:
    # One tower on 224 x 224: weights of the paper's layers without their division into two groups, for 3 colours.
    convolutions = 34_944 + 614_656 + 885_120 + 1_327_488 + 884_992
    dense = (6 * 6 * 256 + 1) * 4096 + (4096 + 1) * 4096
    normalisation = 2 * (96 + 256)
    model = build(Plan("alexnet", 224, ("pneumothorax",)))
    assert trainable(model) == convolutions + dense + normalisation + 4097


def test_the_simple_cnn_by_hand() -> None:
    model = build(Plan("simple-cnn", 64, ("pneumothorax",)))
    assert trainable(model) == 896 + 9_248 + 18_496 + (8 * 8 * 64 + 1) * 64 + 65


def test_logits_are_the_dense_layer_on_averaged_features() -> None:
    model = build(SMALL)
    features = keras.Model(model.input, model.get_layer("block5_pool").output)(pixels(), training=False)
    kernel, bias = model.get_layer("map_logits").get_weights()
    averaged = keras.ops.convert_to_numpy(features).mean(axis=(1, 2))
    found = keras.ops.convert_to_numpy(model(pixels(), training=False)["logits"])
    np.testing.assert_allclose(found, averaged @ kernel[0, 0] + bias, atol=1e-5)


def test_a_class_that_means_nothing_is_not_served(tmp_path: Path) -> None:
    architecture = find("vgg16")
    plan = replace(
        SMALL, labels=("normal", "opacity", "pneumothorax"), options={"head": "softmax", "first_is_nothing": True}
    )
    network = build(plan)
    served = architecture.serve(network, plan)
    assert architecture.served(plan) == ("opacity", "pneumothorax")
    logits = keras.ops.convert_to_numpy(network(pixels(), training=False)["logits"]).astype(float)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = served(pixels(), training=False)
    np.testing.assert_allclose(found["probabilities"], expected[:, 1:], atol=1e-5)
    assert found["maps"].shape == (3, 2, 2, 2)
    assert export_onnx(served, tmp_path / "model.onnx", pixels()) < 1e-4
    served.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(again(pixels())["probabilities"], found["probabilities"], atol=1e-6)


def test_chexnet_takes_no_head() -> None:
    with pytest.raises(ValueError, match="chexnet has no option 'head'"):
        build(Plan("chexnet", 64, ("opacity",), width=0.125, options={"head": "softmax"}))


@pytest.mark.parametrize("name", ["simple-cnn", "lenet", "alexnet"])
def test_nobody_publishes_weights_of_the_small_ones(name: str) -> None:
    with pytest.raises(ValueError, match="only 'random'"):
        build(Plan(name, 64, ("opacity",), initial="imagenet"))


def test_alexnet_needs_room() -> None:
    with pytest.raises(ValueError, match="64 x 64 or more"):
        build(Plan("alexnet", 48, ("opacity",)))
