"""The encoders are the published networks: their parameters counted, their layers compared, their strides looked at."""

import math
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.encoders import lite0_weights as weights  # noqa: E402
from models.encoders import resnet  # noqa: E402
from models.encoders.applications import Application  # noqa: E402
from models.encoders.parts import NORM_MOMENTUM  # noqa: E402
from models.encoders.table import ENCODERS, NAMES, STRIDES, encode  # noqa: E402
from models.training.onnx_export import export_onnx  # noqa: E402

pytestmark = pytest.mark.training


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
        ("resnet101", 44_601_832, 2048),  # of keras.applications
        ("se-resnext50", 27_559_896, 2048),
        ("se-resnext101", 48_955_416, 2048),
    ],
)
def test_has_as_many_parameters_as_published(name: str, published: int, top: int) -> None:
    assert trainable(network(name)) + 1000 * (top + 1) == published


@pytest.mark.parametrize(
    ("name", "published", "top", "channels"),
    [
        # Parameters as https://keras.io/api/applications lists them, less those of the layers behind the features.
        ("vgg16", 138_357_544, 123_642_856, {1: 64, 2: 128, 4: 256, 8: 512, 16: 512, 32: 512}),
        ("resnet50", 25_636_712, 2_049_000, {2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048}),
        ("densenet121", 8_062_504, 1_025_000, {2: 64, 4: 256, 8: 512, 16: 1024, 32: 1024}),
    ],
)
def test_is_the_network_of_keras_applications(
    name: str, published: int, top: int, channels: dict[int, int], tmp_path: Path
) -> None:
    """Between its layers too, and by any weights: means and variances of normalisation matter as well."""
    application = ENCODERS[name].build
    assert isinstance(application, Application)
    theirs = application.network(include_top=False, weights=None, input_shape=(64, 64, 3))
    rng = np.random.default_rng(3)
    theirs.set_weights(
        [
            rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape) if len(shape) == 4 else rng.uniform(0.5, 1, shape)
            for shape in (weight.shape for weight in theirs.get_weights())
        ]
    )
    image = keras.Input((64, 64, 1))
    features = encode(name, image, start=str(legacy_file(theirs, tmp_path / "weights.h5")))
    ours = keras.Model(image, list(features.values()))
    assert ours.count_params() + top == published
    assert {stride: feature.shape[-1] for stride, feature in features.items()} == channels
    grey = np.random.default_rng(0).random((1, 64, 64, 1), np.float32)
    module = {"vgg16": "vgg16", "densenet121": "densenet"}.get(name, "resnet")
    colours = getattr(keras.applications, module).preprocess_input(np.repeat(grey * 255, 3, axis=-1))
    named = [theirs.get_layer(layer).output for layer in application.features.values()]
    expected = keras.Model(theirs.input, named)(colours, training=False)
    for got, wanted in zip(ours(grey, training=False), expected, strict=True):
        largest = np.abs(wanted).max()
        assert 0 < largest < np.inf
        np.testing.assert_allclose(np.asarray(got) / largest, np.asarray(wanted) / largest, atol=1e-5)


@pytest.mark.parametrize(("name", "kept"), [("vgg16", 1), ("resnet50", 1), ("densenet121", 2)])
def test_a_narrow_network_of_keras_is_shallow_too_and_learns_quickly(name: str, kept: int) -> None:
    model = network(name, 0.125)
    numbers = [re.match(r"conv3_block(\d+)_1_conv|block3_conv(\d+)$", layer.name) for layer in model.layers]
    assert max(int(number[1] or number[2]) for number in numbers if number) == kept
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert (first.filters, first.get_config()["kernel_initializer"]["config"].get("scale", 2.0)) == (8, 2.0)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in norms} <= {NORM_MOMENTUM}


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


def test_a_file_that_does_not_fit_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = legacy_file(network("vgg-small", size=32), tmp_path / "small.h5", leave_out="block2_conv1")
    (tmp_path / "text.h5").write_text("no weights")
    for name in ("vgg-small", "vgg16"):
        for path in (file, tmp_path / "text.h5"):
            with pytest.raises(ValueError, match=rf"{path.name}.*(does not fit|cannot be had)"):
                encode(name, keras.Input((32, 32, 1)), start=str(path))


def test_an_own_encoder_starts_from_a_file_of_keras(tmp_path: Path) -> None:
    saved = network("vgg-small", size=32)
    ours = network("vgg-small", size=32, start=str(legacy_file(saved, tmp_path / "small.h5")))
    for got, expected in zip(ours.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_imagenet_without_a_net_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    if any(kept.glob("vgg16*")):
        pytest.skip(f"{kept} has the weights already")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens at the discard port
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ValueError, match=r"initial weights 'imagenet' cannot be had: .*vgg16"):
        encode("vgg16", keras.Input((32, 32, 1)), start="imagenet")


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
