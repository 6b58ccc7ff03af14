"""The encoders are the published networks: their parameters counted, their layers compared, their strides looked at."""

import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.encoders import lite0_weights as weights  # noqa: E402
from models.encoders import resnet  # noqa: E402
from models.encoders.table import ENCODERS, NAMES, STRIDES, encode  # noqa: E402
from models.training.onnx_export import export_onnx  # noqa: E402


def network(name: str, width: float = 1.0, size: int = 64, start: str = "random") -> keras.Model:
    image = keras.Input((size, size, 1), name="image")
    return keras.Model(image, list(encode(name, image, width, start).values()))


def trainable(model: keras.Model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_variables)


@pytest.mark.parametrize("name", NAMES)
def test_a_narrow_encoder_has_features_at_every_stride(name: str) -> None:
    features = encode(name, keras.Input((64, 96, 1)), 0.125)
    assert [stride for stride in features if stride > 1] == list(STRIDES)
    for stride, feature in features.items():
        assert tuple(feature.shape[1:3]) == (64 // stride, 96 // stride)


@pytest.mark.parametrize(
    ("name", "published", "top"),
    [
        # As published with the classifier's last layer for 1,000 classes (torchvision; Cadene's pretrained models).
        ("resnet18", 11_689_512, 512),
        ("resnet34", 21_797_672, 512),
        ("se-resnext50", 27_559_896, 2048),
        ("se-resnext101", 48_955_416, 2048),
    ],
)
def test_has_as_many_parameters_as_published(name: str, published: int, top: int) -> None:
    assert trainable(network(name)) + 1000 * (top + 1) == published


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("vgg16", keras.applications.VGG16),
        ("resnet50", keras.applications.ResNet50),
        ("densenet121", keras.applications.DenseNet121),
    ],
)
def test_is_layer_by_layer_that_of_keras_applications(name: str, published: Callable[..., keras.Model]) -> None:
    theirs = published(weights=None, include_top=False, input_shape=(64, 64, 3))
    image = keras.Input((64, 64, 1))
    ours = keras.Model(image, ENCODERS[name].build(ENCODERS[name].scale(image), 1.0)[32])
    for model in (ours, theirs):
        # Any weights but the initial ones, the same in both, so that means and variances matter as well.
        rng = np.random.default_rng(3)
        for layer in sorted((layer for layer in model.layers if layer.weights), key=lambda layer: layer.name):
            layer.set_weights([rng.uniform(0.02, 0.06, weight.shape) for weight in layer.weights])
    grey = np.random.default_rng(0).random((1, 64, 64, 1), np.float32)
    module = {"vgg16": "vgg16", "resnet50": "resnet", "densenet121": "densenet"}[name]
    colours = getattr(keras.applications, module).preprocess_input(np.repeat(grey * 255, 3, axis=-1))
    expected = keras.ops.convert_to_numpy(theirs(colours, training=False))
    said = keras.ops.convert_to_numpy(ours(grey, training=False))
    np.testing.assert_allclose(said / np.abs(expected).max(), expected / np.abs(expected).max(), atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_grouped_convolution_is_that_of_keras(stride: int) -> None:
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 3, 4, 32)).astype(np.float32)
    pixels = rng.normal(size=(2, 8, 8, 32)).astype(np.float32)
    image = keras.Input((8, 8, 32))
    ours = keras.Model(image, resnet.grouped(image, 8, stride, "ours"))
    # Keras: [.., channel of the group, filter]; depthwise: [.., channel, filter of its group].
    depthwise = np.stack([kernel[:, :, c % 4, c // 4 * 4 : c // 4 * 4 + 4] for c in range(32)], axis=2)
    ours.get_layer("ours").set_weights([depthwise])
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = keras.ops.conv(padded, kernel, strides=stride, padding="valid")
    np.testing.assert_allclose(ours(pixels), keras.ops.convert_to_numpy(expected), atol=1e-4)


def test_the_grouped_convolution_starts_with_unit_variance() -> None:
    keras.utils.set_random_seed(5)
    image = keras.Input((16, 16, 64))
    model = keras.Model(image, resnet.grouped(image, 8, 1, "ours"))
    pixels = np.random.default_rng(1).normal(size=(4, 16, 16, 64)).astype(np.float32)
    inner = keras.ops.convert_to_numpy(model(pixels))[:, 1:-1, 1:-1]
    assert inner.var() == pytest.approx(2.0, rel=0.2)  # He: the ReLU behind it halves this


def test_se_resnext_trains_saves_and_exports(tmp_path: Path) -> None:
    image = keras.Input((64, 64, 1), name="image")
    features = encode("se-resnext50", image, 0.125)
    model = keras.Model(image, {"features": features[32]})
    pixels = np.random.default_rng(2).random((2, 64, 64, 1), np.float32)
    before = model.get_layer("conv3_block1_2_conv").get_weights()[0]
    model.compile("sgd", loss={"features": "mse"})
    model.fit(pixels, {"features": np.ones((2, 2, 2, features[32].shape[-1]), np.float32)}, verbose=0)
    assert not np.array_equal(before, model.get_layer("conv3_block1_2_conv").get_weights()[0])
    assert export_onnx(model, tmp_path / "model.onnx", pixels) < 1e-4
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(again(pixels)["features"], model(pixels)["features"], atol=1e-6)


def test_lite0_starts_from_imagenet() -> None:
    model = network("efficientnet-lite0", start="imagenet")
    state = weights.read_state(weights.published_file())
    kernel = model.get_layer("block15_project").get_weights()[0]
    np.testing.assert_array_equal(kernel, state["_blocks.15._project_conv.weight"].transpose(2, 3, 1, 0))


def legacy_file(model: keras.Model, file: Path, leave_out: str = "") -> Path:
    """Weights as ``keras.applications`` offers them for download."""
    kept = [layer for layer in model.layers if layer.name != leave_out]
    with h5py.File(file, "w") as stored:
        stored.attrs["layer_names"] = [layer.name.encode() for layer in kept]
        for layer in kept:
            group = stored.create_group(layer.name)
            names = [f"{layer.name}/{number}:0" for number in range(len(layer.weights))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, layer.get_weights(), strict=True):
                group[name] = array
    return file


def test_starts_from_a_file_of_keras_applications(tmp_path: Path) -> None:
    theirs = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    ours = network("vgg16", size=32, start=str(legacy_file(theirs, tmp_path / "vgg16.h5")))
    for name in ("block1_conv1", "block5_conv3"):
        for got, expected in zip(ours.get_layer(name).get_weights(), theirs.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_a_file_that_does_not_fit_is_named_with_its_layer(tmp_path: Path) -> None:
    file = legacy_file(network("vgg-small", size=32), tmp_path / "small.h5", leave_out="block2_conv1")
    with pytest.raises(ValueError, match=r"block2_conv1.*nothing for it"):
        encode("vgg-small", keras.Input((32, 32, 1)), start=str(file))
    with pytest.raises(ValueError, match="does not fit vgg16"):
        encode("vgg16", keras.Input((32, 32, 1)), start=str(file))
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(ValueError, match="cannot be read"):
        encode("vgg-small", keras.Input((32, 32, 1)), start=str(tmp_path / "text.h5"))


def test_refuses_what_is_not_to_be_had() -> None:
    image = keras.Input((64, 64, 1))
    with pytest.raises(ValueError, match="no ImageNet weights of resnet34"):
        encode("resnet34", image, start="imagenet")
    with pytest.raises(ValueError, match="width 1 only"):
        encode("efficientnet-lite0", image, 0.5, start="imagenet")
    with pytest.raises(ValueError, match="there is no file"):
        encode("light", image, start="somewhere.h5")
    with pytest.raises(ValueError, match="there is no encoder 'resnet19'"):
        encode("resnet19", image)
    with pytest.raises(ValueError, match="multiples of 32"):
        encode("light", keras.Input((72, 64, 1)))


def test_the_table_says_what_it_holds() -> None:
    assert all(encoder.title for encoder in ENCODERS.values())
    assert [name for name, encoder in ENCODERS.items() if encoder.packaged] == ["efficientnet-lite0"]
