"""Weights that were trained with PyTorch, from ``.safetensors`` files: torchvision's and timm's names and axes.

For ResNet-18 and 34 and SE-ResNeXt nobody publishes Keras weights, but these files are common. Reading one executes
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

Array = NDArray[np.float32]
Naming = Callable[[str], str]
"""From the name of one of our layers to the prefix of its tensors."""

_FLOATING = ("F16", "F32", "F64")
_RESIDUAL = re.compile(r"conv(\d+)_block(\d+)_(\w+)")


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
    try:
        with safe_open(file, framework="numpy") as opened:
            return {
                name.removeprefix("layer0.").replace(".se_module.", ".se."): opened.get_tensor(name).astype(np.float32)
                for name in opened.keys()  # noqa: SIM118 - it is no dictionary
                if opened.get_slice(name).get_dtype() in _FLOATING
            }
    except SafetensorError as error:
        raise ValueError(f"it is no safetensors file, or it is cut short: {error}") from error
