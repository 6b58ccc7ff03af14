"""Which file and library run a model on a GPU: what can, in the manifest's order, or an error that says why not."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from config.settings import Settings, Workers
from models.contract import ModelInput
from models.manifest import read_manifest
from models.model_registry import BUNDLED
from models.model_spec import ModelSpec
from models.pipeline import Pipeline
from models.predictor import Predictor
from models.runtime import executor as device_files
from models.runtime import loading
from models.runtime.executor import Executor, ModelLoadError, device_name, has_gpu
from models.runtime.loading import load
from tests.models.samples import classifier_graph, manifest
from workers.pipeline_digest import name_of_analysis, run_otherwise

GATE = read_manifest(BUNDLED / "chest-gate.toml")


@pytest.fixture
def tensorflow_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow that sees a GPU; the CPU computes in its place."""
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is missing: pip install '.[train]'")
    gpu = SimpleNamespace(name="GPU:0", device_type="GPU")
    monkeypatch.setattr(tensorflow.config, "list_physical_devices", lambda kind=None: [gpu])
    monkeypatch.setattr(tensorflow.config, "get_visible_devices", lambda kind=None: [gpu])
    monkeypatch.setattr(tensorflow.config.experimental, "set_memory_growth", lambda device, grows: None)


class CudaSession:
    """A session of ONNX Runtime that says that it runs on a GPU; the CPU computes in its place."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def onnx_runtime_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The build of ONNX Runtime with CUDA, with a GPU."""
    session = onnxruntime.InferenceSession

    def started(file: str, options: Any, providers: list[Any]) -> Any:
        made = session(file, options, providers=["CPUExecutionProvider"])
        return made if providers == ["CPUExecutionProvider"] else CudaSession(made)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", started)


def file_of(loaded: Executor) -> str:
    return loaded.spec.file.name


def test_a_bundled_network_runs_in_tensorflow_on_a_gpu_without_onnxruntime_gpu(tensorflow_gpu: None) -> None:
    network = load(GATE, device="gpu")
    assert (network.runs_on, file_of(network)) == ("gpu", "chest-gate.keras.json")
    assert vars(network)["_network"].jit_compile is False, "the first batch of each size would wait for XLA"
    images = np.random.default_rng(0).random((3, 160, 160, 1), np.float32)
    found, expected = network.run(images), load(GATE, device="cpu").run(images)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-3)


def test_with_onnxruntime_gpu_it_runs_as_onnx(tensorflow_gpu: None, onnx_runtime_gpu: None) -> None:
    network = load(GATE, device="gpu")
    assert (network.runs_on, file_of(network)) == ("gpu", "chest-gate.onnx")


def test_a_gpu_that_nothing_can_use_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is missing: pip install '.[train]'")
    with pytest.raises(ModelLoadError) as caught:
        load(GATE, device="gpu")
    for words in ("demands a GPU", "install onnxruntime-gpu", "TensorFlow sees no GPU", 'workers.device = "auto"'):
        assert words in str(caught.value)
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    with pytest.raises(
        ModelLoadError, match=r"chest-gate.keras.json needs TensorFlow and Keras; install pleura\[gpu\]"
    ):
        load(GATE, device="gpu")


def test_auto_takes_a_gpu_that_is_there_and_can_be_used(
    tensorflow_gpu: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "has_gpu", lambda: False)
    assert load(GATE).runs_on == "cpu"
    monkeypatch.setattr(loading, "has_gpu", lambda: True)
    with caplog.at_level(logging.WARNING):
        assert load(GATE).runs_on == "gpu"
        assert caplog.messages == []
        alone = replace(GATE, keras=None, keras_digest="")
        assert (load(alone).runs_on, file_of(load(alone))) == ("cpu", "chest-gate.onnx")
    assert "no GPU is used, though this machine has one: chest-gate: this ONNX Runtime" in caplog.messages[0]


def test_a_network_of_both_files_runs_on_a_gpu_as_the_one_that_can(tmp_path: Path, onnx_runtime_gpu: None) -> None:
    spec = read_manifest(manifest(classifier_graph(tmp_path / "tiny.onnx"), "tiny"))
    trained = replace(spec, file=tmp_path / "tiny.keras", onnx=spec.file, onnx_digest=spec.digest, digest="ab" * 32)

    network = load(trained, device="gpu")  # no TensorFlow sees a GPU
    assert (network.runs_on, file_of(network)) == ("gpu", "tiny.onnx")
    assert load(trained, device="cpu").spec.digest == trained.onnx_digest


def test_a_container_with_the_second_gpu_alone_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_files, "_DEVICES", tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert not has_gpu()
    (tmp_path / "nvidia1").touch()
    assert has_gpu()


def predictor(spec: ModelSpec, device: Any) -> Predictor:
    return Predictor(Pipeline(spec, ()), {spec.name: load(spec, device=device)})


def test_results_of_tensorflow_and_onnx_runtime_are_never_mixed(tensorflow_gpu: None) -> None:
    """Device, library and file stand in the record of a job, in what a result says of its models, and in its UIDs."""
    on_cpu, on_gpu = predictor(GATE, "cpu"), predictor(GATE, "gpu")
    assert (on_cpu.device, on_gpu.device) == ("cpu", "gpu (TensorFlow)")
    assert (device_name(on_cpu.device), device_name(on_gpu.device)) == ("CPU", "GPU (TensorFlow)")
    assert on_cpu.uses == on_cpu.pipeline.uses
    assert [use.digest for use in on_gpu.uses] == [GATE.keras_digest]
    image = ModelInput(np.random.default_rng(1).random((200, 200), np.float32), "")
    assert [use.digest for use in on_gpu.predict(image).models] == [GATE.keras_digest]
    auto, gpu = Settings(), Settings(workers=Workers(device="gpu"))
    assert run_otherwise(auto, on_cpu.runs_on, on_cpu.other_files) == ()
    as_keras = (f"chest-gate={GATE.keras_digest}",)
    assert run_otherwise(gpu, on_gpu.runs_on, on_gpu.other_files) == as_keras
    assert run_otherwise(auto, on_gpu.runs_on, on_gpu.other_files) == ("device=gpu", *as_keras)
    assert name_of_analysis("ab", as_keras) != name_of_analysis("ab", ())


def test_onnx_on_a_gpu_that_is_demanded_is_the_analysis_of_the_pipeline(onnx_runtime_gpu: None) -> None:
    on_gpu = predictor(GATE, "gpu")
    assert (on_gpu.device, on_gpu.other_files) == ("gpu", {})
    assert run_otherwise(Settings(workers=Workers(device="gpu")), on_gpu.runs_on, on_gpu.other_files) == ()
    assert run_otherwise(Settings(), on_gpu.runs_on, on_gpu.other_files) == ("device=gpu",)
