"""Executors: the same findings in any batch, and a precise error for everything that cannot be believed."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from models.manifest import read_manifest
from models.model_registry import BUNDLED
from models.model_spec import Activation, LabelSpec, ModelKind, ModelSpec, OutputNames
from models.runtime import onnx_executor
from models.runtime.batches import OutOfMemoryError
from models.runtime.executor import ModelLoadError, ModelOutputError, check_outputs
from models.runtime.loading import load
from tests.models.samples import LABELS, SIZE, classifier_graph, detector_graph, manifest


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return read_manifest(manifest(classifier_graph(tmp_path / "tiny.onnx"), "tiny"))


def batch(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(5).random((count, SIZE, SIZE, 1)).astype(np.float32)


def test_answers_by_contract_names(spec: ModelSpec) -> None:
    images = batch(3)
    found = load(spec, threads=1).run(images)
    assert set(found) == {"probabilities", "maps"}
    assert found["maps"].shape == (3, SIZE // 2, SIZE // 2, 2)
    pooled = images.reshape(3, SIZE // 2, 2, SIZE // 2, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(found["maps"][..., 1], pooled**2, atol=1e-6)
    np.testing.assert_allclose(found["probabilities"][:, 0], images.mean(axis=(1, 2, 3)), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 13])
def test_the_size_of_a_batch_changes_nothing(spec: ModelSpec, count: int) -> None:
    executor = load(spec)
    executor.warm()
    images = batch(13)
    alone = [executor.run(image[np.newaxis]) for image in images]
    together = executor.run(images[:count])
    for name, array in together.items():
        np.testing.assert_array_equal(array, np.concatenate([one[name] for one in alone[:count]]))


def test_threads_that_have_run_a_network_leave_their_cores_to_others() -> None:
    # Without a limit they take 14 ms of a core after each run of this network.
    executor = load(read_manifest(BUNDLED / "chest-gate.toml"), device="cpu", threads=2)

    def spent_at_rest() -> float:
        executor.warm()
        began = time.process_time()
        time.sleep(0.05)
        return time.process_time() - began

    assert min(spent_at_rest() for _ in range(5)) < 0.004


@pytest.mark.parametrize(
    ("version", "spins"), [("1.22.1", "0"), ("1.26.0", "1"), ("1.33.0.dev20261130", "1"), ("2.0", "1")]
)
def test_threads_spin_only_where_onnx_runtime_can_limit_it(version: str, spins: str) -> None:
    options = onnx_executor.spinning(version)
    assert options["allow_spinning"] == spins
    assert ("spin_duration_us" in options) == (spins == "1")


def test_refuses_another_input(spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes float32"):
        load(spec).run(np.zeros((1, 16, 16, 1), np.float32))
    with pytest.raises(ModelLoadError, match=r"its manifest says \[1, 64, 64, 1\]"):
        load(replace(spec, input=replace(spec.input, height=64, width=64)))


def test_refuses_a_file_that_is_no_network(spec: ModelSpec, tmp_path: Path) -> None:
    for name in ("broken.onnx", "broken.keras"):
        (tmp_path / name).write_bytes(b"not a network")
        with pytest.raises(ModelLoadError, match=name):
            load(replace(spec, file=tmp_path / name))
    with pytest.raises(ModelLoadError, match="nothing here runs"):
        load(replace(spec, file=tmp_path / "weights.bin"))


@pytest.mark.parametrize(
    ("bias", "message"),
    [(float("nan"), "NaN"), (float("inf"), "infinity"), (2.0, "outside of"), (-2.0, "outside of")],
)
def test_refuses_answers_that_cannot_be_believed(tmp_path: Path, bias: float, message: str) -> None:
    spec = read_manifest(manifest(classifier_graph(tmp_path / "bad.onnx", bias=bias), "bad"))
    with pytest.raises(ModelOutputError, match=message):
        load(spec).warm()


def test_refuses_a_missing_label(tmp_path: Path) -> None:
    spec = read_manifest(manifest(classifier_graph(tmp_path / "three.onnx", classes=3), "three"))
    with pytest.raises(ModelOutputError, match=r"shape \[1, 3\], \[1, 2\] is needed for 2 labels"):
        load(spec).warm()


def test_logits_become_probabilities(tmp_path: Path) -> None:
    spec = read_manifest(manifest(classifier_graph(tmp_path / "logit.onnx", bias=-3.0), "logit"))
    images = batch(2)
    found = load(replace(spec, activation=Activation.LOGIT)).run(images)["probabilities"][:, 0]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(3 - images.mean(axis=(1, 2, 3)))), atol=1e-6)


def test_softmax_is_over_all_classes_and_labels_come_in_their_own_order(spec: ModelSpec) -> None:
    named = replace(
        spec, activation=Activation.SOFTMAX, outputs=OutputNames(columns=("normal", "other", "lung_opacity"))
    )
    logits = np.array([[3.0, 1.0, 2.0], [900.0, -900.0, 0.0]], np.float32)
    wanted = np.exp(logits - logits.max(axis=1, keepdims=True))
    wanted /= wanted.sum(axis=1, keepdims=True)
    found = check_outputs(named, {"probabilities": logits}, 2)["probabilities"]
    np.testing.assert_allclose(found, wanted[:, [2, 1]], atol=1e-6)
    maps = np.zeros((2, 4, 5, 3), np.float32)
    maps[..., 0] = 2
    found = check_outputs(replace(named, kind=ModelKind.SEGMENTER), {"maps": maps}, 2)["maps"]
    assert found.shape == (2, 4, 5, 2)
    np.testing.assert_allclose(found, 1 / (2 + np.exp(2)), atol=1e-6)
    lone = replace(spec, activation=Activation.SOFTMAX, labels=spec.labels[:1])
    with pytest.raises(ModelOutputError, match="two classes at least"):
        check_outputs(lone, {"probabilities": logits[:, :1]}, 2)


def test_maps_of_a_network_with_channels_first_are_turned(spec: ModelSpec) -> None:
    turned = replace(spec, kind=ModelKind.SEGMENTER, input=replace(spec.input, layout="NCHW"))
    maps = np.random.default_rng(1).random((1, 2, 3, 4)).astype(np.float32)
    found = check_outputs(turned, {"maps": maps}, 1)["maps"]
    np.testing.assert_array_equal(found, maps.transpose(0, 2, 3, 1))


def test_a_detector_s_background_belongs_to_no_label(spec: ModelSpec) -> None:
    columns = OutputNames(columns=("background", "other", "lung_opacity"))
    detector = replace(spec, kind=ModelKind.DETECTOR, outputs=columns)
    found = check_outputs(
        detector,
        {
            "boxes": np.zeros((1, 4, 4), np.float32),
            "scores": np.full((1, 4), 0.9, np.float32),
            "classes": np.array([[0, 1, 2, 2]], np.float32),
        },
        1,
    )
    np.testing.assert_array_equal(found["classes"], [[-1, 1, 0, 0]])


def test_one_unnamed_output_is_the_answer_and_others_are_named(spec: ModelSpec) -> None:
    renamed = replace(spec, outputs=OutputNames(probabilities="dense_7"))
    values = np.array([[0.1, 0.2]], np.float32)
    assert set(check_outputs(spec, {"dense_7": values}, 1)) == {"probabilities"}
    assert set(check_outputs(renamed, {"dense_7": values, "x": values}, 1)) == {"probabilities"}
    with pytest.raises(ModelOutputError, match="no output 'probabilities'"):
        check_outputs(spec, {"a": values, "b": values}, 1)


def test_a_detector_of_several_labels_must_tell_them_apart(spec: ModelSpec) -> None:
    detector = replace(spec, kind=ModelKind.DETECTOR)
    found = {"boxes": np.zeros((1, 3, 4), np.float32), "scores": np.zeros((1, 3), np.float32)}
    with pytest.raises(ModelOutputError, match="tell them apart"):
        check_outputs(detector, found, 1)
    one: tuple[LabelSpec, ...] = detector.labels[:1]
    assert set(check_outputs(replace(detector, labels=one), found, 1)) == {"boxes", "scores"}


def test_runs_a_detector(tmp_path: Path) -> None:
    weights = detector_graph(tmp_path / "boxes.onnx", [[1, 2, 9, 8], [3, 3, 9, 9]], [0.9, 0.4], [0, 1])
    found = load(read_manifest(manifest(weights, "boxes", "detector", LABELS))).run(batch(2))
    np.testing.assert_array_equal(found["boxes"][1], [[1, 2, 9, 8], [3, 3, 9, 9]])


def test_onnx_runtime_is_told_not_to_round_to_tensor_float_32(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    session = onnxruntime.InferenceSession

    def started(file: str, options: Any, providers: list[Any]) -> onnxruntime.InferenceSession:
        asked.extend(providers)
        return session(file, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", started)
    with suppress(ModelLoadError):  # no GPU could be started here
        onnx_executor.OnnxExecutor(spec, device="gpu")
    assert [options["use_tf32"] for name, options in asked[:-1] if name == "CUDAExecutionProvider"] == ["0"]


@pytest.mark.slow
def test_keras_files_run_alike_in_any_batch_and_a_lambda_is_refused(spec: ModelSpec, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras", reason="Keras is missing: pip install '.[train]'")
    image = keras.Input((SIZE, SIZE, 1))
    maps = keras.layers.Conv2D(2, 3, activation="sigmoid", padding="same", name="maps")(image)
    mean = keras.layers.GlobalAveragePooling2D(name="probabilities")(maps)
    keras.Model(image, {"probabilities": mean, "maps": maps}).save(tmp_path / "saved.keras")
    from tensorflow.config import experimental

    experimental.enable_tensor_float_32_execution(True)  # as TensorFlow comes
    load(replace(spec, file=tmp_path / "saved.keras"), device="auto")
    assert not experimental.tensor_float_32_execution_enabled(), "convolutions on a GPU would round to 10 bits"
    executor = load(replace(spec, file=tmp_path / "saved.keras"), device="cpu", batch=4)
    executor.warm()
    images = batch(6)
    together = executor.run(images)
    assert together["maps"].shape == (6, SIZE, SIZE, 2)
    for number in range(6):
        alone = executor.run(images[number : number + 1])
        np.testing.assert_allclose(alone["probabilities"][0], together["probabilities"][number], atol=1e-6)
    with pytest.raises(ModelLoadError, match="its manifest says"):
        load(replace(spec, file=tmp_path / "saved.keras", input=replace(spec.input, height=64)), device="cpu")
    with pytest.raises(ModelLoadError, match="demands a GPU"):
        load(replace(spec, file=tmp_path / "saved.keras"), device="gpu")
    for name in ("lambda.keras", "lambda.h5"):
        keras.Sequential([image, keras.layers.Lambda(lambda x: x)]).save(tmp_path / name)
        with pytest.raises(ModelLoadError, match="Lambda"):
            load(replace(spec, file=tmp_path / name), device="cpu")


_SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from models.runtime.executor import ModelMemoryError
from models.runtime.onnx_executor import open_onnx

(size,) = (int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]) * 2**20,) * 2)
try:
    open_onnx(Path(sys.argv[1]))
except ModelMemoryError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("megabytes", [1, 24])  # too little to read the file, and too little to make a session of it
def test_a_network_for_which_memory_is_short_may_be_loaded_later(megabytes: int) -> None:
    """It is no fault of the file: a service manager that took it for one would never start the node again."""
    file = BUNDLED / "chest-classifier.onnx"
    command = [sys.executable, "-P", "-c", _SHORT_OF_MEMORY, str(file), str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{file} cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr  # of another error; ONNX Runtime's own words are different in each version


class Session:
    """ONNX Runtime on a GPU: answers with the mean of each image, unless more images come than fit."""

    def __init__(self, fits: int, first: int | str = "n") -> None:
        self.fits = fits
        self.sizes: list[int] = []
        self._first = first

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="x", shape=[self._first, SIZE, SIZE, 1], type="tensor(float)")]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="probabilities")]

    def run(self, names: list[str], feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        images = feed["x"]
        self.sizes.append(len(images))
        if len(images) > self.fits:
            raise RuntimeError("Non-zero status code: Failed to allocate memory for requested buffer")
        return [np.repeat(images.mean(axis=(1, 2, 3))[:, np.newaxis], 2, axis=1)]


@pytest.mark.parametrize(
    ("first", "fits", "count", "sizes"),
    [("n", 99, 1, [1]), ("n", 99, 11, [8, 4]), ("n", 2, 5, [8, 4, 2, 2, 1]), (1, 99, 3, [1, 1, 1])],
)
def test_a_gpu_gets_batches_of_few_sizes_and_smaller_ones_once_its_memory_was_full(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, first: int | str, fits: int, count: int, sizes: list[int]
) -> None:
    session = Session(fits, first)
    monkeypatch.setattr(onnx_executor, "open_onnx", lambda *arguments: session)
    executor = onnx_executor.OnnxExecutor(replace(spec, kind=ModelKind.GATE), device="gpu")
    assert executor.runs_on == "gpu"
    images = batch(count)
    found = executor.run(images)["probabilities"][:, 0]
    np.testing.assert_allclose(found, images.mean(axis=(1, 2, 3)), atol=1e-6)
    assert session.sizes == sizes


def test_an_image_that_does_not_fit_alone_is_an_error(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_executor, "open_onnx", lambda *arguments: Session(0))
    with pytest.raises(OutOfMemoryError, match="1 images do not fit"):
        onnx_executor.OnnxExecutor(replace(spec, kind=ModelKind.GATE), device="gpu").run(batch(2))


def test_a_gpu_that_is_demanded_is_never_a_silent_cpu(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelLoadError, match="install onnxruntime-gpu"):
        load(spec, device="gpu")
    available = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]  # noqa: E731
    monkeypatch.setattr(onnxruntime, "get_available_providers", available)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    # The CPU's build only warns of the provider.
    with pytest.raises(ModelLoadError, match=r"could not start tiny\.onnx on a GPU"):
        load(spec, device="gpu")
    assert load(spec, device="cpu").runs_on == load(spec, device="auto").runs_on == "cpu"
