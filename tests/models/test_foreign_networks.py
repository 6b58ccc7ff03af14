"""Networks that others have made plug in by their manifest alone: their heads, classes, shapes and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402
import tensorflow  # noqa: E402

from models.contract import Prediction  # noqa: E402
from models.examination import examine  # noqa: E402
from models.manifest import ManifestError, file_digest, read_manifest, verify_digest  # noqa: E402
from models.model_spec import Activation, Fit  # noqa: E402
from models.model_store import add_model, remove_model  # noqa: E402
from models.pipeline import Pipeline  # noqa: E402
from models.predictor import load_predictor  # noqa: E402
from models.runtime.executor import ModelLoadError, ModelOutputError  # noqa: E402
from models.runtime.loading import load  # noqa: E402
from models.training.onnx_export import with_onnx  # noqa: E402
from tests.models.samples import chestlike, model_input  # noqa: E402

SIDE = 150
PNEUMONIA = """
[[labels]]
name = "pneumonia"
code = { value = "233604007", scheme = "SCT", meaning = "Pneumonia" }
threshold = 0.5
"""


def written(network: Path, *, activation: str, rest: str = "", side: int = SIDE, channels: int = 3) -> Path:
    """The manifest of a classifier of *normal* and *pneumonia*, stretched and scaled to -1 … 1."""
    path = network.with_suffix(".toml")
    path.write_text(
        f"""
[model]
name = "foreign"
version = "1"
title = "A network of somebody else"
kind = "classifier"
file = "{network.name}"
digest = "{file_digest(network)}"
device_uid = "2.25.17"
activation = "{activation}"
[input]
height = {side}
width = {side}
channels = {channels}
fit = "stretch"
value_range = [-1, 1]
[outputs]
columns = ["normal", "pneumonia"]
{rest}{PNEUMONIA}"""
    )
    return path


def small(head: str | None) -> keras.Model:
    """Two classes from nine numbers, so that nothing takes long."""
    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    network = keras.Model(image, keras.layers.Dense(2, activation=head, name="head")(features))
    network(np.zeros((1, 32, 32, 3), np.float32))  # Keras exports only what has been called
    return network


def asked_of_keras(network: keras.Model, pixels: np.ndarray, side: int) -> float:
    """What a user of Keras would compute: resize, scale to -1 … 1 as ``keras.applications.xception`` does, predict."""
    resized = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))
    coloured = np.repeat(resized[np.newaxis, ..., np.newaxis] * 255, 3, axis=-1)
    scaled = keras.applications.xception.preprocess_input(coloured)
    return float(network.predict_on_batch(scaled)[0, 1])


def predicted(path: Path, pixels: np.ndarray) -> Prediction:
    spec = read_manifest(path)
    return load_predictor(Pipeline(None, (spec,)), device="cpu", batch=1).predict(model_input(pixels))


def test_a_two_class_xception_says_what_keras_says(tmp_path: Path) -> None:
    keras.utils.set_random_seed(17)
    network = keras.applications.Xception(weights=None, classes=2, input_shape=(SIDE, SIDE, 3))
    network.save(tmp_path / "xception.keras")
    path = written(tmp_path / "xception.keras", activation="probability")
    pixels = chestlike(420, 300)
    (finding,) = predicted(path, pixels).findings
    assert finding.label == "pneumonia"
    assert finding.probability == pytest.approx(asked_of_keras(network, pixels, SIDE), abs=1e-4)


@pytest.mark.parametrize(("head", "activation"), [("softmax", "probability"), (None, "softmax")])
@pytest.mark.parametrize("kind", ["keras", "h5", "savedmodel", "onnx"])
def test_every_file_and_head_gives_the_same_probability(
    tmp_path: Path, head: str | None, activation: str, kind: str
) -> None:
    network, file = small(head), tmp_path / f"small.{kind}"
    if kind in ("keras", "h5"):
        network.save(file)
    else:
        network.export(str(file), format="tf_saved_model" if kind == "savedmodel" else "onnx", verbose=False)
    path = written(file, activation=activation, side=32)
    pixels = chestlike()
    (finding,) = predicted(path, pixels).findings
    assert finding.probability == pytest.approx(asked_of_keras(small("softmax"), pixels, 32), abs=1e-5)
    examine(read_manifest(path), lambda: 0.0, device="cpu")


def test_softmax_is_not_applied_twice(tmp_path: Path) -> None:
    small("softmax").save(tmp_path / "small.keras")
    spec = read_manifest(written(tmp_path / "small.keras", activation="softmax", side=32))
    assert spec.activation is Activation.SOFTMAX
    with pytest.raises(ModelOutputError, match='are probabilities already, their sum is 1: say activation = "prob'):
        load(spec, device="cpu").warm()


def test_a_saved_model_gets_its_onnx_export_and_goes_in_and_out_of_a_folder(tmp_path: Path) -> None:
    small("softmax").export(str(tmp_path / "given"), format="tf_saved_model", verbose=False)
    site = tmp_path / "site"
    spec = add_model(site, written(tmp_path / "given", activation="probability", side=32), None, with_onnx, _text)
    assert (site / "given" / "saved_model.pb").is_file()
    assert spec.onnx == site / "given.onnx"
    assert spec.input.fit is Fit.STRETCH
    verify_digest(spec)
    variables = next((site / "given" / "variables").glob("*.data*"))
    variables.write_bytes(variables.read_bytes() + b"x")
    with pytest.raises(ManifestError, match="its manifest says"):
        verify_digest(spec)
    assert len(remove_model(site, "foreign", ())) == 3
    assert list(site.iterdir()) == []


def _text(spec: object) -> str:
    from models.manifest import manifest_text
    from models.model_spec import ModelSpec

    assert isinstance(spec, ModelSpec)
    return manifest_text(spec)


class Writing(tensorflow.Module):
    """A graph that writes a file when it is asked about an image."""

    def __init__(self, aim: Path, by_saver: bool) -> None:
        super().__init__()
        self._aim, self._by_saver = str(aim), by_saver

    @tensorflow.function(input_signature=[tensorflow.TensorSpec((None, 32, 32, 3), tensorflow.float32)])
    def __call__(self, image: tensorflow.Tensor) -> dict[str, tensorflow.Tensor]:
        if self._by_saver:
            tensorflow.raw_ops.SaveV2(
                prefix=self._aim, tensor_names=["a"], shape_and_slices=[""], tensors=[tensorflow.constant(1.0)]
            )
        else:
            tensorflow.io.write_file(self._aim, "owned")
        return {"probabilities": tensorflow.reduce_mean(image, (1, 2))[:, :2]}


@pytest.mark.parametrize("by_saver", [False, True])
def test_a_saved_model_that_would_write_a_file_is_refused(tmp_path: Path, by_saver: bool) -> None:
    module = Writing(tmp_path / "owned", by_saver)
    tensorflow.saved_model.save(module, str(tmp_path / "bad"), signatures=module.__call__)
    spec = read_manifest(written(tmp_path / "bad", activation="probability", side=32))
    with pytest.raises(ModelLoadError, match="SaveV2" if by_saver else "WriteFile"):
        load(spec, device="cpu")
    assert list(tmp_path.glob("owned*")) == []


def test_a_saved_model_that_is_damaged_is_named(tmp_path: Path) -> None:
    small("softmax").export(str(tmp_path / "given"), format="tf_saved_model", verbose=False)
    index = next((tmp_path / "given" / "variables").glob("*.index"))
    index.write_bytes(index.read_bytes()[:40])
    spec = read_manifest(written(tmp_path / "given", activation="probability", side=32))
    with pytest.raises(ModelLoadError, match="given cannot be loaded: cannot be read"):
        load(spec, device="cpu")
    (tmp_path / "given" / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ModelLoadError, match="given cannot be loaded: cannot be read"):
        load(spec, device="cpu")


def test_a_folder_without_a_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match=r"holds no saved_model\.pb"):
        read_manifest(written(tmp_path / "empty", activation="probability", side=32))
