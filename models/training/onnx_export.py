"""From a trained Keras network to the ONNX file that the node serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow
import tf2onnx
from numpy.typing import NDArray

from models.agreement import difference
from models.examination import compare
from models.manifest import file_digest
from models.model_spec import ModelSpec
from models.runtime.executor import ModelLoadError, ModelOutputError, blank
from models.runtime.keras_executor import KerasExecutor
from models.runtime.onnx_executor import OnnxExecutor
from models.runtime.onnx_runtime import onnxruntime
from models.runtime.saved_model import SavedModel

Array = NDArray[np.float32]
TOLERANCE = 1e-4
ROWS = ("neighbours",)
"""Outputs that number the rows of an index: two rows at one distance may change places, so distances are compared."""


class ExportError(RuntimeError):
    """The exported network does not say what the trained one says."""


def export_onnx(model: keras.Model, file: Path, probe: Array) -> float:
    """Write ``model`` as ONNX with a free batch size; returns the largest difference of any output on ``probe``.

    See :func:`models.agreement.difference`.

    Raises:
        ExportError: an output is missing, NaN, or differs by more than ``TOLERANCE``, in one batch or image by image.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    names = list(model.output)
    expected = {name: keras.ops.convert_to_numpy(value) for name, value in model(probe, training=False).items()}
    model.export(str(file), format="onnx", verbose=False)
    session = open_session(file)
    missing = set(names) - {item.name for item in session.get_outputs()}
    if missing:
        raise ExportError(f"{file.name} lacks the outputs {', '.join(sorted(missing))}")
    whole = run_session(session, probe, names)
    single = [run_session(session, probe[index : index + 1], names) for index in range(len(probe))]
    alone = {name: np.concatenate([item[name] for item in single]) for name in names}
    worst = max(difference(expected, answer, leaving_out=ROWS) for answer in (whole, alone))
    if not worst <= TOLERANCE:
        raise ExportError(f"{file.name} differs from the trained network by {worst:g}")
    return worst


def open_session(file: Path) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU."""
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, batch: Array, names: Sequence[str]) -> dict[str, Array]:
    """Named outputs of one batch."""
    answers = session.run(list(names), {session.get_inputs()[0].name: batch})
    return {name: np.asarray(answer) for name, answer in zip(names, answers, strict=True)}


def with_onnx(spec: ModelSpec) -> ModelSpec:
    """Give a model's Keras file or SavedModel its ONNX export, and compare the two.

    The export is exported beside it unless the manifest brings one.

    Raises:
        ModelLoadError: the Keras file cannot be loaded.
        ExportError: the export cannot be made, or its answers differ by more than ``TOLERANCE``.
    """
    original = KerasExecutor(spec, device="cpu", batch=1)
    exported = spec.onnx or _exported(spec)
    try:
        difference = compare(spec, original, OnnxExecutor(replace(spec, file=exported)))
    except (ModelLoadError, ModelOutputError) as error:
        raise ExportError(f"{spec.name}: its ONNX export is another network: {error}") from error
    if not difference <= TOLERANCE:
        raise ExportError(f"{spec.name}: its ONNX export differs by {difference:g}")
    return spec if spec.onnx else replace(spec, onnx=exported, onnx_digest=file_digest(exported))


def _exported(spec: ModelSpec) -> Path:
    exported = spec.file.with_suffix(".onnx")
    try:
        if spec.file.is_dir():
            _export_saved_model(SavedModel(spec.file), exported)
        else:
            named = _named(keras.saving.load_model(spec.file, compile=False, safe_mode=True))
            named(blank(spec))  # Keras exports only what has been called
            named.export(str(exported), format="onnx", verbose=False)
    except (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise ExportError(f"{spec.name}: {spec.file.name} cannot be exported to ONNX: {error}") from error
    return exported


def _export_saved_model(network: SavedModel, exported: Path) -> None:
    signature, name = network.signature, network.input_name
    run = tensorflow.function(lambda image: signature(**{name: image}))
    image = tensorflow.TensorSpec(network.input.shape, network.input.dtype, name="image")
    tf2onnx.convert.from_function(run, input_signature=[image], output_path=str(exported))


def _named(network: keras.Model) -> keras.Model:
    """The network with its outputs by name: the names of a list are lost on the way to ONNX."""
    outputs: Any = network.output
    if isinstance(outputs, dict):
        return network
    listed = outputs if isinstance(outputs, list | tuple) else [outputs]
    return keras.Model(network.input, dict(zip(network.output_names, listed, strict=True)))
