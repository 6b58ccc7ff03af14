"""The bundled networks in TensorFlow: the weights of their ONNX files, and the same answers."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.examination import compare, examine
from models.manifest import ManifestError, read_manifest, verify_digest
from models.model_registry import BUNDLED
from models.model_spec import ModelSpec
from models.runtime.executor import ModelLoadError, ModelOutputError
from models.runtime.loading import ways

keras = pytest.importorskip("keras", reason="Keras is missing: pip install '.[train]'")

from models.runtime.keras_executor import KerasExecutor  # noqa: E402
from models.runtime.onnx_executor import OnnxExecutor  # noqa: E402

MANIFESTS = sorted(BUNDLED.glob("*.toml"))
GATE = BUNDLED / "chest-gate.toml"
TOLERANCE = 1e-3


def both(spec: ModelSpec) -> tuple[OnnxExecutor, KerasExecutor]:
    exported, graph = ways(spec)
    return OnnxExecutor(exported, 1), KerasExecutor(graph, device="cpu")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_tensorflow_answers_as_onnx_runtime_does(path: Path) -> None:
    spec = read_manifest(path)
    verify_digest(spec)
    exported, network = both(spec)
    assert compare(spec, exported, network) < TOLERANCE
    images = np.random.default_rng(3).random((3, spec.input.height, spec.input.width, 1), np.float32)
    images[1:] = images[1:] ** 3 * np.linspace(0, 1, spec.input.width, dtype=np.float32)[:, np.newaxis]
    expected, found = exported.run(images), network.run(images)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=TOLERANCE)


def test_a_graph_holds_no_weights() -> None:
    assert sum((BUNDLED / f"{path.stem}.keras.json").stat().st_size for path in MANIFESTS) < 1e6


@pytest.fixture
def gate(tmp_path: Path) -> ModelSpec:
    for file in BUNDLED.glob("chest-gate.*"):
        shutil.copy(file, tmp_path)
    return read_manifest(tmp_path / "chest-gate.toml")


def loaded(spec: ModelSpec) -> KerasExecutor:
    return KerasExecutor(list(ways(spec))[1], device="cpu")


def test_a_graph_runs_with_no_other_weights_than_its_own(gate: ModelSpec) -> None:
    content = gate.file.read_bytes()
    gate.file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(
        ModelLoadError, match=r"chest-gate.keras.json belongs to chest-gate.onnx with the digest 4d16be"
    ):
        loaded(gate)
    gate.file.unlink()
    with pytest.raises(ModelLoadError, match=r"chest-gate\.onnx"):
        loaded(gate)


def test_a_graph_that_was_changed_is_noticed(gate: ModelSpec) -> None:
    assert gate.keras is not None
    graph = json.loads(gate.keras.read_text())
    gate.keras.write_text("{}")
    with pytest.raises(ManifestError, match=r"chest-gate.keras.json has the digest"):
        verify_digest(gate)
    with pytest.raises(ModelLoadError, match="is no Keras graph"):
        loaded(gate)
    graph["weights"].pop("stem/kernel")
    gate.keras.write_text(json.dumps(graph))
    with pytest.raises(ModelLoadError, match="stem/kernel"):
        loaded(gate)
    gate.keras.unlink()
    with pytest.raises(ManifestError, match=r"there is no file .*chest-gate\.keras\.json"):
        read_manifest(gate.file.with_suffix(".toml"))


def test_a_graph_that_answers_otherwise_is_noticed_where_models_are_verified(gate: ModelSpec) -> None:
    assert gate.keras is not None
    apart = examine(gate, lambda: 0.0, device="cpu").apart
    assert apart is not None
    assert apart < TOLERANCE
    graph = json.loads(gate.keras.read_text())
    name = next(path for path, place in graph["weights"].items() if "at" in place)
    graph["weights"][name] = {"value": 0.25}
    gate.keras.write_text(json.dumps(graph))
    changed = replace(gate, keras_digest=hashlib.sha256(gate.keras.read_bytes()).hexdigest())
    with pytest.raises(ModelOutputError, match=r"chest-gate.keras.json in TensorFlow answers otherwise"):
        examine(changed, lambda: 0.0, device="cpu")


def test_no_code_of_a_graph_runs(gate: ModelSpec) -> None:
    assert gate.keras is not None
    graph = json.loads(gate.keras.read_text())
    image = keras.Input((160, 160, 1))
    network = keras.Model(image, keras.layers.Lambda(lambda x: x)(image))
    graph |= {"network": keras.saving.serialize_keras_object(network), "weights": {}}
    gate.keras.write_text(json.dumps(graph))
    with pytest.raises(ModelLoadError, match="Lambda"):
        loaded(gate)


def test_the_command_finds_every_weight_where_it_was_found(gate: ModelSpec) -> None:
    pytest.importorskip("onnx", reason="pip install '.[train]'")
    from models.training.keras_graph import GraphError, with_graph
    from models.training.recipe import RECIPES, read_recipe

    assert gate.keras is not None
    before = json.loads(gate.keras.read_text())
    made = with_graph(gate, read_recipe(RECIPES / "bundled-gate.toml"))
    assert made.keras == gate.keras
    after = json.loads(gate.keras.read_text())
    assert {key: after[key] for key in ("onnx", "onnx_digest", "weights")} == {
        key: before[key] for key in ("onnx", "onnx_digest", "weights")
    }
    with pytest.raises(GraphError, match=r"chest-gate.onnx has no \w+ of the layer"):
        with_graph(replace(gate), read_recipe(RECIPES / "bundled-lungs.toml"))
