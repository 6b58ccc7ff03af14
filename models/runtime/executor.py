"""What runs a network, whatever library does it, and the check of everything that a network answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.contract import Pixels
from models.model_spec import Activation, ModelKind, ModelSpec

Outputs = Mapping[str, Pixels]


class ModelLoadError(RuntimeError):
    """A model's file cannot be loaded, or is not the network that its manifest describes."""


class ModelMemoryError(ModelLoadError):
    """There was too little memory to load a model just now: another time, or on another machine, it may be enough."""


_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|out of memory|(failed to|cannot|could not) allocate|resource temporarily unavailable", re.IGNORECASE
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a library says that memory (or, for its threads, room) was short; ONNX Runtime has no class for that."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def load_error(file: Path, error: Exception) -> ModelLoadError:
    """The error of a file that a library could not load."""
    kind = ModelMemoryError if is_out_of_memory(error) else ModelLoadError
    return kind(f"{file} cannot be loaded: {error or type(error).__name__}")


class ModelOutputError(RuntimeError):
    """A network answered something that cannot be believed: wrong shape, NaN, a probability outside of [0, 1]."""


class ModelUnavailableError(RuntimeError):
    """A network on another machine cannot be asked now; the image can be analysed later, when it can."""


RunsOn = Literal["cpu", "gpu", "server"]
Device = Literal["auto", "cpu", "gpu"]
_DEVICES = Path("/dev")
_GPUS = ("nvidia[0-9]*", "dxg")
"""Device files of a GPU; a container may have been given the second one alone. ``dxg`` is that of Windows' Linux."""


def has_gpu() -> bool:
    """Whether this machine looks as if it had a GPU; asking a library would load it."""
    return any(True for name in _GPUS for _ in _DEVICES.glob(name))


def library_of(spec: ModelSpec) -> str:
    """The library that runs a network as the file that ``spec`` names; empty where another machine runs it."""
    if spec.endpoint is not None:
        return ""
    return "ONNX Runtime" if spec.file.suffix == ".onnx" else "TensorFlow"


def device_name(device: str) -> str:
    """A device as records have it (``gpu (TensorFlow)``), for people."""
    place, _, library = device.partition(" ")
    return f"{place.upper()} {library}".rstrip()


class Executor(Protocol):
    """A loaded network."""

    @property
    def runs_on(self) -> RunsOn:
        """Where it runs."""

    @property
    def spec(self) -> ModelSpec:
        """The model that is loaded; its ``file`` is the one that runs."""

    def run(self, batch: Pixels) -> Outputs:
        """Answer a batch ``float32[n, ...]`` of prepared inputs: checked arrays of length n by their contract names.

        Raises:
            ModelOutputError: The answer cannot be believed.
            ModelUnavailableError: The network runs elsewhere and cannot be asked now.
        """

    def warm(self) -> None:
        """Run once on an empty image, so that the first patient does not wait, and check the answer's shape."""


def input_shape(spec: ModelSpec) -> tuple[int, int, int]:
    """Shape of one prepared input."""
    size = spec.input
    if size.layout == "NCHW":
        return size.channels, size.height, size.width
    return size.height, size.width, size.channels


def blank(spec: ModelSpec) -> Pixels:
    """A batch of one empty image, for warming up."""
    return np.zeros((1, *input_shape(spec)), dtype=np.float32)


def check_batch(spec: ModelSpec, batch: Pixels) -> None:
    """Raise ValueError where a batch is not what the network takes."""
    if batch.dtype != np.float32 or batch.shape[1:] != input_shape(spec):
        raise ValueError(f"{spec.name} takes float32 [n, {input_shape(spec)}], not {batch.dtype} {batch.shape}")


def named_outputs(spec: ModelSpec, found: Mapping[str, NDArray[np.floating]]) -> dict[str, NDArray[np.floating]]:
    """Give a network's outputs their contract names; a network with one output need not name it.

    Raises:
        ModelOutputError: An output that this kind of model must have is not there.
    """
    wanted = {item.name: getattr(spec.outputs, item.name) for item in fields(spec.outputs) if item.name != "columns"}
    named = {name: found[theirs] for name, theirs in wanted.items() if theirs in found}
    required = _REQUIRED[spec.kind]
    if not named and len(found) == 1 and len(required) == 1:
        named[required[0]] = next(iter(found.values()))
    for name in required:
        if name not in named:
            theirs = ", ".join(sorted(found)) or "none"
            raise ModelOutputError(f"{spec.name} has no output '{wanted[name]}' for its {name}; it has {theirs}")
    if spec.kind is ModelKind.DETECTOR and len(spec.columns) > 1 and "classes" not in named:
        raise ModelOutputError(f"{spec.name} has several labels and no output '{wanted['classes']}' to tell them apart")
    return named


_REQUIRED: Mapping[ModelKind, tuple[str, ...]] = {
    ModelKind.GATE: ("probabilities",),
    ModelKind.CLASSIFIER: ("probabilities",),
    ModelKind.SEGMENTER: ("maps",),
    ModelKind.DETECTOR: ("boxes", "scores"),
    ModelKind.LUNGS: ("maps",),
}


def check_outputs(spec: ModelSpec, found: Mapping[str, NDArray[np.floating]], count: int) -> dict[str, Pixels]:
    """Name, check and, where they are logits, turn into probabilities what a network answered for ``count`` images.

    Of the network's classes those that are labels are left, in the order of the labels.

    Raises:
        ModelOutputError: With the model, the output and what is wrong with it.
    """
    checked: dict[str, Pixels] = {}
    for name, array in named_outputs(spec, found).items():
        values = np.asarray(array, dtype=np.float32)
        if name == "distance" and values.size == count:
            values = values.reshape(count)
        if name == "maps" and _is_channels_first(spec, values):
            values = np.moveaxis(values, 1, 3)
        _check_shape(spec, name, values, count)
        if not np.isfinite(values).all():
            raise ModelOutputError(f"{spec.name}: '{name}' holds NaN or infinity")
        if name in ("probabilities", "maps", "scores"):
            values = _probabilities(spec, name, values)
        checked[name] = _of_labels(spec, name, values)
    return checked


def _is_channels_first(spec: ModelSpec, maps: Pixels) -> bool:
    """A network that takes channels first gives its maps so, too."""
    return spec.input.layout == "NCHW" and maps.ndim == 4 and maps.shape[1] == len(spec.columns)


def _of_labels(spec: ModelSpec, name: str, values: Pixels) -> Pixels:
    """What belongs to the labels, in their order; a detector's box of another class belongs to the label -1."""
    if not spec.outputs.columns or name not in ("probabilities", "maps", "classes"):
        return values
    places = [spec.columns.index(label.name) for label in spec.labels]
    if name != "classes":
        return np.ascontiguousarray(values[..., places])
    numbers = np.rint(values)
    found = np.full(values.shape, -1, dtype=np.float32)
    for label, column in enumerate(places):
        found[numbers == column] = label
    return found


def _probabilities(spec: ModelSpec, name: str, values: Pixels) -> Pixels:
    if spec.activation is Activation.LOGIT:
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))), dtype=np.float32)
    if spec.activation is Activation.SOFTMAX:
        return _softmax(spec, name, values)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low < -_SLACK or high > 1 + _SLACK:
        raise ModelOutputError(f"{spec.name}: '{name}' goes from {low:g} to {high:g}, outside of [0, 1]")
    return np.clip(values, 0, 1)


_SLACK = 1e-4  # what rounding in the last layer may add
_ROUNDING = 1e-6  # by which a softmax in 32 bits misses a sum of 1


def _softmax(spec: ModelSpec, name: str, values: Pixels) -> Pixels:
    """Softmax over the classes, unless the network has done so: twice would pull every probability to the middle."""
    if values.shape[-1] < 2:
        raise ModelOutputError(f"{spec.name}: softmax needs two classes at least; name them all in outputs.columns")
    if values.size and values.min() >= 0 and bool(np.all(np.abs(values.sum(axis=-1) - 1) < _ROUNDING)):
        raise ModelOutputError(
            f"{spec.name}: '{name}' are probabilities already, their sum is 1: say activation = \"probability\""
        )
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)


def _check_shape(spec: ModelSpec, name: str, values: Pixels, count: int) -> None:
    classes = len(spec.columns)
    found = values.shape
    fits = {
        "probabilities": found == (count, classes),
        "maps": len(found) == 4 and found[0] == count and found[3] == classes and min(found[1:3]) > 0,
        "distance": found == (count,),
        "boxes": len(found) == 3 and found[0] == count and found[2] == 4,
        "scores": len(found) == 2 and found[0] == count,
        "classes": len(found) == 2 and found[0] == count,
        "neighbours": len(found) == 2 and found[0] == count,
        "neighbour_distances": len(found) == 2 and found[0] == count,
    }
    wanted = {
        "probabilities": f"[{count}, {classes}]",
        "maps": f"[{count}, h, w, {classes}]",
        "distance": f"[{count}]",
        "boxes": f"[{count}, d, 4]",
        "scores": f"[{count}, d]",
        "classes": f"[{count}, d]",
        "neighbours": f"[{count}, k]",
        "neighbour_distances": f"[{count}, k]",
    }
    if not fits[name]:
        named = "columns" if spec.outputs.columns else "labels"
        raise ModelOutputError(
            f"{spec.name}: '{name}' has the shape {list(found)}, {wanted[name]} is needed for {classes} {named}"
            " (outputs.columns names the classes that are no finding)"
        )
