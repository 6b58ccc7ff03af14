"""Networks on the CPU with ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from models.contract import ModelSpec, Pixels
from models.runtime.executor import ModelLoadError, Outputs, blank, check_batch, check_outputs, input_shape
from models.runtime.onnx_runtime import onnxruntime


class OnnxExecutor:
    """An ONNX file in one inference session.

    Images of a batch are run one by one: on a CPU a larger batch gains nothing, and so an image's findings cannot
    depend on what happened to wait beside it.
    """

    def __init__(self, spec: ModelSpec, threads: int = 0) -> None:
        """Load ``spec.file``; ``threads`` is how many CPU threads one run takes, 0 for one on each core.

        Raises:
            ModelLoadError: The file is no ONNX network, or takes another input than the manifest says.
        """
        self.spec = spec
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        try:
            self._session = open_onnx(spec.file, options)
        except ModelLoadError as error:
            raise ModelLoadError(f"{spec.name}: {error}") from error
        inputs = self._session.get_inputs()
        _check_input(spec, tuple(inputs[0].shape), inputs[0].type)
        self._input = inputs[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, batch: Pixels) -> Outputs:
        """Answer a batch; see :class:`models.runtime.executor.Executor`."""
        check_batch(self.spec, batch)
        answers = [self._one(image[np.newaxis]) for image in batch]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def warm(self) -> None:
        """Run once on an empty image."""
        self.run(blank(self.spec))

    def _one(self, image: Pixels) -> dict[str, Pixels]:
        found = self._session.run(self._outputs, {self._input: image})
        return check_outputs(self.spec, dict(zip(self._outputs, found, strict=True)), 1)


def open_onnx(file: Path, options: onnxruntime.SessionOptions | None = None) -> onnxruntime.InferenceSession:
    """A session on the CPU of a network with one input, whatever its manifest says.

    Raises:
        ModelLoadError: it cannot be loaded, or has several inputs; the message names the file.
    """
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own that it does not export
        raise ModelLoadError(f"{file} cannot be loaded: {error}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ModelLoadError(f"{file} has {len(inputs)} inputs, one is expected")
    return session


def _check_input(spec: ModelSpec, shape: tuple[int | str | None, ...], kind: str) -> None:
    wanted = (1, *input_shape(spec))
    fits = len(shape) == len(wanted) and all(
        not isinstance(found, int) or found == want for found, want in zip(shape, wanted, strict=True)
    )
    if not fits or kind != "tensor(float)":
        raise ModelLoadError(f"{spec.name}: {spec.file} takes {kind} {list(shape)}, its manifest says {list(wanted)}")
