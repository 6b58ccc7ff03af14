"""Which executor runs a model: its files and the device decide."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from models.model_spec import ModelKind, ModelSpec
from models.runtime.executor import Device, Executor, ModelLoadError, ModelMemoryError, has_gpu, library_of

log = logging.getLogger(__name__)


def load(spec: ModelSpec, *, device: Device = "auto", threads: int = 0, batch: int = 8) -> Executor:
    """Load one model; call it once in a process, after the fork.

    An ONNX file runs with ONNX Runtime, on ``threads`` threads (0 for one on each core) where it runs on the CPU. A
    Keras file, a SavedModel or a Keras graph runs with TensorFlow. A model with two of them runs on a GPU as the first
    that a library can run there, its ``file`` before the other, and on a CPU as ONNX. On a GPU ``batch`` images are run
    at a time. ``gpu`` insists on a GPU, ``cpu`` hides it, ``auto`` takes what is there.
    A model with an ``endpoint`` runs on that server, whatever the device.

    Raises:
        ModelLoadError: The file cannot be loaded, or what it needs is not there, or a server runs another model.
    """
    if spec.kind is ModelKind.FINDINGS:
        raise ModelLoadError(f"{spec.name} answers findings, which no network of tensors does")
    if spec.endpoint is not None:
        from models.remote.open_inference import OpenInferenceExecutor

        return OpenInferenceExecutor(spec)
    if device == "gpu" or (device == "auto" and has_gpu()):
        reasons: list[ModelLoadError] = []
        for way in ways(spec):
            try:
                return _executor(way, "gpu", threads, batch)
            except ModelLoadError as error:
                reasons.append(error)
        why = "; and ".join(map(str, reasons))
        if device == "gpu":
            kind = ModelMemoryError if any(isinstance(one, ModelMemoryError) for one in reasons) else ModelLoadError
            raise kind(f'the configuration demands a GPU, and {why}; or set workers.device = "auto"')
        log.warning("no GPU is used, though this machine has one: %s", why)
    return _executor(min(ways(spec), key=_is_tensorflow), "cpu", threads, batch)


def ways(spec: ModelSpec) -> Iterator[ModelSpec]:
    """The model as each of its files alone: that which was measured first."""
    alone = replace(spec, onnx=None, onnx_digest="", keras=None, keras_digest="")
    yield alone
    if spec.onnx is not None:
        yield replace(alone, file=spec.onnx, digest=spec.onnx_digest)
    if spec.keras is not None:
        yield replace(alone, file=spec.keras, digest=spec.keras_digest)


def _is_tensorflow(spec: ModelSpec) -> bool:
    return library_of(spec) == "TensorFlow"


def _executor(spec: ModelSpec, device: Literal["cpu", "gpu"], threads: int, batch: int) -> Executor:
    if not _is_tensorflow(spec):
        from models.runtime.onnx_executor import OnnxExecutor

        return OnnxExecutor(spec, threads, device=device, batch=batch)
    if spec.file.suffix in (".keras", ".h5", ".json") or spec.file.is_dir():
        from models.runtime.keras_executor import KerasExecutor

        return KerasExecutor(spec, device=device, batch=batch)
    raise ModelLoadError(f"{spec.name}: nothing here runs a file like {spec.file.name}")
