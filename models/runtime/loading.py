"""Which executor runs a model: its file decides, and the device for those that can choose one."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

from models.model_spec import ModelKind, ModelSpec
from models.runtime.executor import Device, Executor, ModelLoadError, has_gpu


def load(spec: ModelSpec, *, device: Device = "auto", threads: int = 0, batch: int = 8) -> Executor:
    """Load one model; call it once in a process, after the fork.

    An ONNX file runs with ONNX Runtime, on ``threads`` threads (0 for one on each core) where it runs on the CPU. A
    Keras file or a SavedModel runs with TensorFlow. On a GPU ``batch`` images are run at a time. ``gpu`` insists on a
    GPU, ``cpu`` hides it, ``auto`` takes what is there. Without a GPU a Keras file's ONNX export runs in its place.
    A model with an ``endpoint`` runs on that server, whatever the device.

    Raises:
        ModelLoadError: The file cannot be loaded, or what it needs is not there, or a server runs another model.
    """
    if spec.kind is ModelKind.FINDINGS:
        raise ModelLoadError(f"{spec.name} answers findings, which no network of tensors does")
    if spec.endpoint is not None:
        from models.remote.open_inference import OpenInferenceExecutor

        return OpenInferenceExecutor(spec)
    if spec.onnx is not None and not _wants_keras(device):
        spec = replace(spec, file=spec.onnx, digest=spec.onnx_digest, onnx=None, onnx_digest="")
    if spec.file.suffix == ".onnx":
        from models.runtime.onnx_executor import OnnxExecutor

        return OnnxExecutor(spec, threads, device=device, batch=batch)
    if spec.file.suffix in (".keras", ".h5") or spec.file.is_dir():
        from models.runtime.keras_executor import KerasExecutor

        return KerasExecutor(spec, device=device, batch=batch)
    raise ModelLoadError(f"{spec.name}: nothing here runs a file like {spec.file.name}")


def _wants_keras(device: Device) -> bool:
    """Whether a GPU is demanded, or may be used and looks as if it were there."""
    return device == "gpu" or (device == "auto" and has_gpu() and find_spec("tensorflow") is not None)
