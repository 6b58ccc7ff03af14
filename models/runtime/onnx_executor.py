"""Networks with ONNX Runtime: on the CPU, or on a GPU where onnxruntime-gpu is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from models.contract import Pixels
from models.model_spec import ModelSpec
from models.runtime.batches import Batches, OutOfMemoryError
from models.runtime.executor import (
    ModelLoadError,
    Outputs,
    RunsOn,
    blank,
    check_batch,
    check_outputs,
    input_shape,
    is_out_of_memory,
    load_error,
)
from models.runtime.onnx_runtime import onnxruntime

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SPIN_MICROSECONDS = 50
_SPIN_IS_BOUNDED = (1, 26)  # versions before this one ignore spin_duration_us


Processor = Literal["cpu", "gpu"]


class OnnxExecutor:
    """An ONNX file in one inference session.

    On the CPU images of a batch are run one by one: a larger batch gains nothing, and so an image's findings cannot
    depend on what happened to wait beside it. So it is on a GPU with a network that takes one image at a time.
    """

    def __init__(self, spec: ModelSpec, threads: int = 0, *, device: Processor = "cpu", batch: int = 8) -> None:
        """Load ``spec.file``; ``threads`` is how many CPU threads one run takes, 0 for one on each core.

        Raises:
            ModelLoadError: The file is no ONNX network, or takes another input than the manifest says, or cannot run on
                a GPU where it is to.
        """
        self.spec = spec
        try:
            self._session = open_onnx(spec.file, _options(threads), device)
        except ModelLoadError as error:
            raise type(error)(f"{spec.name}: {error}") from error
        self.runs_on: RunsOn = "gpu" if _CUDA in self._session.get_providers() else "cpu"
        inputs = self._session.get_inputs()
        takes_many = self.runs_on == "gpu" and not isinstance(inputs[0].shape[0], int)
        self._batches = Batches(spec.name, batch if takes_many else 1)
        _check_input(spec, tuple(inputs[0].shape), inputs[0].type)
        self._input = inputs[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, batch: Pixels) -> Outputs:
        """Answer a batch; see :class:`models.runtime.executor.Executor`."""
        check_batch(self.spec, batch)
        return self._batches.run(batch, self._answer)

    def warm(self) -> None:
        """Run once on an empty image."""
        self.run(blank(self.spec))

    def _answer(self, images: Pixels) -> dict[str, Pixels]:
        try:
            found = self._session.run(self._outputs, {self._input: images})
        except Exception as error:  # onnxruntime raises classes of its own that it does not export
            if self.runs_on == "gpu" and is_out_of_memory(error):
                raise OutOfMemoryError(f"{self.spec.name}: {len(images)} images do not fit into memory") from error
            raise
        return check_outputs(self.spec, dict(zip(self._outputs, found, strict=True)), len(images))


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    for name, value in spinning(onnxruntime.__version__).items():
        options.add_session_config_entry(f"session.intra_op.{name}", value)
    return options


def spinning(version: str) -> dict[str, str]:
    """How long threads that wait for their next part of a network spin before they sleep, as options of ONNX Runtime.

    Without a limit they did so between two images, too: on cores that other processes share, that was 0.24 s of CPU an
    image instead of 0.09. Not at all, and waking them took a twentieth of the input quality check's time.
    """
    major, minor = map(int, version.split(".")[:2])
    if (major, minor) < _SPIN_IS_BOUNDED:
        return {"allow_spinning": "0"}
    return {"allow_spinning": "1", "spin_duration_us": str(_SPIN_MICROSECONDS)}


def open_onnx(
    file: Path, options: onnxruntime.SessionOptions | None = None, device: Processor = "cpu"
) -> onnxruntime.InferenceSession:
    """A session of a network with one input, whatever its manifest says.

    ONNX Runtime goes on with the CPU where its CUDA provider cannot be started; with ``gpu`` that is an error.

    Raises:
        ModelLoadError: it cannot be loaded, has several inputs, or needs a GPU that is not there.
    """
    providers = _providers(device)
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # onnxruntime raises classes of its own that it does not export
        raise load_error(file, error) from error
    if device == "gpu" and _CUDA not in session.get_providers():
        raise ModelLoadError(f"ONNX Runtime could not start {file.name} on a GPU (CUDA, cuDNN?)")
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ModelLoadError(f"{file} has {len(inputs)} inputs, one is expected")
    return session


def _providers(device: Processor) -> list[Any]:
    """Where to run; options as they must be for an image to have the same findings every time.

    Raises:
        ModelLoadError: it is to be a GPU, and this ONNX Runtime is made for the CPU.
    """
    if device == "cpu":
        return [_CPU]
    if _CUDA in onnxruntime.get_available_providers():
        # The CUDA libraries that TensorFlow's packages bring are found by no path.
        onnxruntime.preload_dlls()
        return [(_CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}), _CPU]
    raise ModelLoadError("this ONNX Runtime runs on the CPU alone: install onnxruntime-gpu in the place of onnxruntime")


def _check_input(spec: ModelSpec, shape: tuple[int | str | None, ...], kind: str) -> None:
    wanted = (1, *input_shape(spec))
    fits = len(shape) == len(wanted) and all(
        not isinstance(found, int) or found == want for found, want in zip(shape, wanted, strict=True)
    )
    if not fits or kind != "tensor(float)":
        raise ModelLoadError(f"{spec.name}: {spec.file} takes {kind} {list(shape)}, its manifest says {list(wanted)}")
