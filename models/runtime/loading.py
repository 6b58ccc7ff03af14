"""Which executor runs a model: its file decides, and the device for those that can choose one."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from models.contract import ModelSpec
from models.runtime.executor import Executor, ModelLoadError

Device = Literal["auto", "cpu", "gpu"]
_GPU = Path("/dev/nvidia0")


def load(spec: ModelSpec, *, device: Device = "auto", threads: int = 0, batch: int = 8) -> Executor:
    """Load one model; call it once in a process, after the fork.

    An ONNX file runs with ONNX Runtime on the CPU, on ``threads`` threads (0 for one on each core). A Keras file or a
    SavedModel runs with TensorFlow, ``batch`` images at a time; ``gpu`` insists on a GPU, ``cpu`` hides it, ``auto``
    takes what is there. Without a GPU its ONNX twin runs in its place.

    Raises:
        ModelLoadError: The file cannot be loaded, or what it needs is not there.
    """
    if spec.onnx is not None and not _wants_keras(device):
        spec = replace(spec, file=spec.onnx, digest=spec.onnx_digest, onnx=None, onnx_digest="")
    if spec.file.suffix == ".onnx":
        from models.runtime.onnx_executor import OnnxExecutor

        return OnnxExecutor(spec, threads)
    if spec.file.suffix in (".keras", ".h5") or spec.file.is_dir():
        from models.runtime.keras_executor import KerasExecutor

        return KerasExecutor(spec, device=device, batch=batch)
    raise ModelLoadError(f"{spec.name}: nothing here runs a file like {spec.file.name}")


def device_in_use() -> str:
    """Where this process runs its networks: ``gpu`` where TensorFlow is loaded and sees one, else ``cpu``."""
    tensorflow = sys.modules.get("tensorflow")
    return "gpu" if tensorflow is not None and tensorflow.config.get_visible_devices("GPU") else "cpu"


def _wants_keras(device: Device) -> bool:
    """Whether a GPU is demanded, or may be used and looks as if it were there (asking TensorFlow would load it)."""
    return device == "gpu" or (device == "auto" and _GPU.exists() and find_spec("tensorflow") is not None)
