"""The ONNX twin of a foreign Keras file: exported once when it is added, so that CPUs run it fast and alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from models.contract import ModelSpec
from models.examination import compare
from models.manifest import file_digest
from models.runtime.executor import ModelLoadError, ModelOutputError, blank
from models.runtime.keras_executor import KerasExecutor
from models.runtime.onnx_executor import OnnxExecutor
from models.training.export import TOLERANCE, ExportError


def with_twin(spec: ModelSpec) -> ModelSpec:
    """Give a model's Keras file its ONNX twin, exported beside it unless the manifest brings one, and compare the two.

    Raises:
        ModelLoadError: the Keras file cannot be loaded.
        ExportError: the twin cannot be made, or its answers differ by more than ``TOLERANCE``.
    """
    original = KerasExecutor(spec, device="cpu", batch=1)
    twin = spec.onnx or _exported(spec)
    try:
        difference = compare(spec, original, OnnxExecutor(replace(spec, file=twin)))
    except (ModelLoadError, ModelOutputError) as error:
        raise ExportError(f"{spec.name}: its ONNX twin is another network: {error}") from error
    if not difference <= TOLERANCE:
        raise ExportError(f"{spec.name}: its ONNX twin differs by {difference:g}")
    return spec if spec.onnx else replace(spec, onnx=twin, onnx_digest=file_digest(twin))


def _exported(spec: ModelSpec) -> Path:
    twin = spec.file.with_suffix(".onnx")
    try:
        network = keras.saving.load_model(spec.file, compile=False, safe_mode=True)
        named = _named(network)
        named(blank(spec))  # Keras exports only what has been called
        named.export(str(twin), format="onnx", verbose=False)
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise ExportError(f"{spec.name}: {spec.file.name} cannot be exported to ONNX: {error}") from error
    return twin


def _named(network: keras.Model) -> keras.Model:
    """The network with its outputs by name: the names of a list are lost on the way to ONNX."""
    outputs: Any = network.output
    if isinstance(outputs, dict):
        return network
    listed = outputs if isinstance(outputs, list | tuple) else [outputs]
    return keras.Model(network.input, dict(zip(network.output_names, listed, strict=True)))
