"""``pleura models new``: what a file tells is written, the rest must be filled in before anything is loaded."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from models.examination import examine
from models.manifest import ManifestError, left_open, read_manifest
from models.new_manifest import look_at, new_manifest
from models.runtime.executor import ModelLoadError
from node.cli.main import cli
from tests.models.samples import SIZE, classifier_graph, detector_graph
from tests.models.training.keras_or_skip import require_keras

ANSWERS = {
    "name": '"a-network"',
    "title": '"A network"',
    "fit": '"stretch"',
    "value_range": "[0, 1]",
    "threshold": "0.5",
    "map_threshold": "0.5",
    "height": "64",
    "width": "64",
}
CODE = '{ value = "36118008", scheme = "SCT", meaning = "Pneumothorax" }'


def filled(text: str, **answers: str) -> str:
    """The manifest as a person would complete it."""
    text = re.sub(r"code = \{ value = \"FILL IN.*", f"code = {CODE}", text)
    for key, answer in (ANSWERS | answers).items():
        text = re.sub(rf'^{key} = "FILL IN[^"]*"', f"{key} = {answer}", text, flags=re.MULTILINE)
    numbers = iter(range(9))
    return re.sub(r"\[\[labels\]\]\nname = .*", lambda _: f'[[labels]]\nname = "class-{next(numbers)}"', text)


def segmenter_graph(path: Path) -> Path:
    """A network from PyTorch: channels first, any size, one map of numbers above 1."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "h", "w"])
    maps = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "h", "w"])
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "exp", [image], [maps])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_classifier_is_described_and_refused_until_it_is_filled_in(tmp_path: Path) -> None:
    file = classifier_graph(tmp_path / "network.onnx")
    done = CliRunner().invoke(cli, ["models", "new", str(file)])
    assert done.exit_code == 0, done.output
    assert "labels #2.code.meaning" in done.stdout.replace("\n", " ")
    path = tmp_path / "network.toml"
    with pytest.raises(ManifestError, match=r"not filled in yet: model\.name, model\.title, model\.activation, input"):
        read_manifest(path)
    path.write_text(filled(path.read_text(), activation='"logit"'))
    spec = read_manifest(path)
    assert (spec.input.height, spec.input.channels, spec.outputs.maps, len(spec.labels)) == (SIZE, 1, "maps", 2)
    assert spec.device_uid.startswith("2.25.")
    examine(spec, lambda: 0.0)
    again = CliRunner().invoke(cli, ["models", "new", str(file)])
    assert again.exit_code == 1
    assert "is there already" in again.stderr


def test_a_segmenter_from_pytorch_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "network.toml"
    path.write_text(filled(new_manifest(look_at(segmenter_graph(tmp_path / "network.onnx")))))
    spec = read_manifest(path)
    assert (spec.kind, spec.input.layout, spec.input.height, spec.activation) == ("segmenter", "NCHW", 64, "logit")
    assert spec.labels[0].localised
    examine(spec, lambda: 0.0)


def test_a_detector_names_its_outputs(tmp_path: Path) -> None:
    file = detector_graph(tmp_path / "network.onnx", [[1, 2, 9, 8]], [0.9], [0])
    path = tmp_path / "network.toml"
    path.write_text(filled(new_manifest(look_at(file)), activation='"probability"'))
    spec = read_manifest(path)
    assert (spec.kind, spec.outputs.boxes, spec.outputs.scores) == ("detector", "boxes", "scores")
    examine(spec, lambda: 0.0)


@pytest.mark.parametrize("kind", ["keras", "savedmodel"])
def test_a_softmax_is_seen(tmp_path: Path, kind: str) -> None:
    require_keras()
    import keras

    image = keras.Input((SIZE, SIZE, 3))
    flat = keras.layers.GlobalAveragePooling2D()(image)
    network = keras.Model(image, keras.layers.Dense(2, activation="softmax")(flat))
    file = tmp_path / f"network.{kind}"
    if kind == "keras":
        network.save(file)
    else:
        network.export(str(file), format="tf_saved_model", verbose=False)
    text = new_manifest(look_at(file))
    assert tomllib.loads(text)["model"]["activation"] == "probability"
    columns = ["FILL IN: name of class 0", "FILL IN: name of class 1"]
    assert tomllib.loads(text)["outputs"]["columns"] == columns
    named = text.replace(columns[0], "normal").replace(columns[1], "class-0")
    path = tmp_path / "network.toml"
    path.write_text(filled(named))
    spec = read_manifest(path)
    assert [label.name for label in spec.labels] == ["class-0"]
    examine(spec, lambda: 0.0, device="cpu")


def test_what_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    (tmp_path / "folder").mkdir()
    sound = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16000])
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "e", [sound], [sound])
    graph.output[0].name = "y"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "sound.onnx"
    )
    for name, message in (
        ("broken.onnx", "cannot be loaded"),
        ("folder", "no SavedModel"),
        ("sound.onnx", r"takes \[None, 16000\]"),
    ):
        with pytest.raises(ModelLoadError, match=message):
            look_at(tmp_path / name)


def test_every_open_question_is_found() -> None:
    values = {"a": {"b": "FILL IN", "c": ["x", "FILL IN: y"]}, "d": [{"e": "FILL IN"}], "f": 1}
    assert list(left_open(values)) == ["a.b", "a.c #2", "d #1.e"]


def test_noise_is_the_same_each_time(tmp_path: Path) -> None:
    file = classifier_graph(tmp_path / "network.onnx")
    one, other = look_at(file), look_at(file)
    for name, answer in one.answers.items():
        np.testing.assert_array_equal(answer, other.answers[name])
