"""Weights that were trained with PyTorch, from ``.safetensors`` files: torchvision's and timm's names and axes.

For ResNet-18 and 34 and SE-ResNeXt nobody publishes Keras weights, but these files are common. A safetensors file is a
length (``uint64``, little-endian), a JSON header of that length, then raw tensors: reading it executes nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Naming = Callable[[str], str]
"""From the name of one of our layers to the prefix of its tensors."""

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "F64": np.dtype("<f8")}
_LONGEST_HEADER = 100_000_000
_RESIDUAL = re.compile(r"conv(\d+)_block(\d+)_(\w+)")
_DENSE = re.compile(r"conv(\d+)_block(\d+)_(\d)_(conv|bn)")
_TRANSITION = re.compile(r"pool(\d+)_(conv|bn)")


def residual_name(layer: str) -> str:
    """Of the layers of ResNet and SE-ResNeXt."""
    first = {"conv1_conv": "conv1", "conv1_bn": "bn1"}
    if layer in first:
        return first[layer]
    found = _RESIDUAL.fullmatch(layer)
    if not found:
        return ""
    stage, block, part = found.groups()
    own = {"0_conv": "downsample.0", "0_bn": "downsample.1", "se_reduce": "se.fc1", "se_excite": "se.fc2"}
    number, _, kind = part.partition("_")
    return f"layer{int(stage) - 1}.{int(block) - 1}.{own.get(part, kind + number)}"


def dense_name(layer: str) -> str:
    """Of the layers of DenseNet."""
    first = {"conv1_conv": "features.conv0", "conv1_bn": "features.norm0", "bn": "features.norm5"}
    if layer in first:
        return first[layer]
    if found := _TRANSITION.fullmatch(layer):
        stage, kind = found.groups()
        return f"features.transition{int(stage) - 1}.{'norm' if kind == 'bn' else 'conv'}"
    if found := _DENSE.fullmatch(layer):
        stage, block, number, kind = found.groups()
        part = f"norm{int(number) + 1}" if kind == "bn" else f"conv{number}"
        return f"features.denseblock{int(stage) - 1}.denselayer{block}.{part}"
    return ""


def arrays_of(state: dict[str, Array], prefix: str, layer: keras.layers.Layer) -> list[Array]:
    """The tensors of one layer in Keras's order and axes; an empty list where the file has none.

    A convolution is ``[out, in, height, width]`` in PyTorch and ``[height, width, in, out]`` in Keras; our grouped ones
    are ``[height, width, channel, filter of its group]``.
    """
    if isinstance(layer, keras.layers.BatchNormalization):
        parts = [state.get(f"{prefix}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return [part for part in parts if part is not None]
    kernel, bias = state.get(f"{prefix}.weight"), state.get(f"{prefix}.bias")
    if kernel is None or kernel.ndim != 4:
        return []
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        out, each, height, width = kernel.shape
        groups = kernel.reshape(out // each, each, each, height, width)
        kernel = groups.transpose(3, 4, 0, 2, 1).reshape(height, width, out, each)
    else:
        kernel = kernel.transpose(2, 3, 1, 0)
    return [kernel] if bias is None else [kernel, bias]


def read_safetensors(file: Path) -> dict[str, Array]:
    """All floating-point tensors of a file by name.

    Names as of Cadene's SE networks (``layer0.``, ``se_module``) become those of timm.

    Raises:
        ValueError: it is no such file, or it is cut short.
    """
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _LONGEST_HEADER):
        raise ValueError("it is no safetensors file, or it is cut short")
    try:
        header = json.loads(data[8 : 8 + length])
        told = {
            name: (_DTYPES.get(item["dtype"]), item["shape"], item["data_offsets"]) for name, item in _tensors(header)
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its header cannot be read: {error}") from error
    body = memoryview(data)[8 + length :]
    return {
        name.removeprefix("layer0.").replace(".se_module.", ".se."): _tensor(name, body, dtype, shape, offsets)
        for name, (dtype, shape, offsets) in told.items()
        if dtype is not None
    }


def _tensors(header: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, item) for name, item in header.items() if name != "__metadata__"]


def _tensor(name: str, body: memoryview, dtype: np.dtype[Any], shape: list[int], offsets: list[int]) -> Array:
    begin, end = offsets
    if not 0 <= begin <= end <= len(body) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name} lies outside the file or has another size than its shape says")
    return np.frombuffer(body[begin:end], dtype).reshape(shape).astype(np.float32)
