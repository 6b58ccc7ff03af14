"""Several judgements of one image in one graph: the network's own, the mirror image's, and that of unchanged features.

Everything here is fixed arithmetic around trained networks, made of layers that travel in an exported file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from models.efficientnet.network import PLANS, imagenet_scale, trunk

Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """``outputs = inputs @ weights + offsets`` with ``weights [inputs, outputs]``."""

    weights: Array
    offsets: Array

    def __call__(self, inputs: Array) -> Array:
        """Apply it to ``[n, inputs]``."""
        return np.asarray(inputs, np.float64) @ self.weights + self.offsets

    def of(self, inputs: Any, name: str) -> Any:
        """The same in a graph: a dense layer that is not trained."""
        dense = layers.Dense(self.weights.shape[1], trainable=False, name=name)
        outputs = dense(inputs)
        dense.set_weights([self.weights.astype(np.float32), self.offsets.astype(np.float32)])
        return outputs


def feature_network(size: int, plan: str) -> keras.Model:
    """Network from ``[n, size, size, 1]`` in ``[0, 1]`` to ``[n, channels]``: averages of two late stages of the trunk.

    The last stage before the head is left out: it knows ImageNet's classes more than textures. Of Lite0 there remain
    112 channels at stride 16 and 192 at stride 32.
    """
    image = keras.Input((size, size, 1), name="image")
    stages = trunk(imagenet_scale(image), PLANS[plan][:-1])
    fine = layers.GlobalAveragePooling2D(name="fine_average")(stages[-2])
    coarse = layers.GlobalAveragePooling2D(name="coarse_average")(stages[-1])
    return keras.Model(image, layers.Concatenate(name="features")([fine, coarse]), name="unchanged")


def panel_network(
    model: keras.Model, mirrored: bool, unchanged: tuple[keras.Model, Linear] | None, mean: Linear
) -> keras.Model:
    """All judgements as one network from an image to ``logits [n, labels]`` and ``maps [n, h, w, labels]``.

    ``model`` says ``logits`` and ``maps``; with ``mirrored`` it judges the mirror image as well and the mean counts.
    ``unchanged`` are a feature network and what reads logits from its features. ``mean`` makes the final logits of
    those of the members side by side, ``[n, members * labels]``.
    """
    image = keras.Input(model.input_shape[1:], name="image")
    # One pass over a batch twice as long: the exported file then holds each network once.
    seen = ops.concatenate([image, ops.flip(image, axis=2)], axis=0) if mirrored else image
    said = model(seen)
    members = [_mean(said["logits"], mirrored)]
    if unchanged is not None:
        network, opinion = unchanged
        members.append(opinion.of(_mean(network(seen), mirrored), "opinion"))
    together = layers.Concatenate(name="members")(members) if len(members) > 1 else members[0]
    logits = mean.of(together, "logits")
    return keras.Model(image, {"logits": logits, "maps": _mean_map(said["maps"], mirrored)}, name="chest_panel")


def _halves(values: Any) -> Any:
    """A batch of images followed by their mirror images, ``[2 n, ...]`` to ``[2, n, ...]``."""
    return ops.reshape(values, (2, -1, *values.shape[1:]))


def _mean(values: Any, mirrored: bool) -> Any:
    return ops.mean(_halves(values), axis=0) if mirrored else values


def _mean_map(maps: Any, mirrored: bool) -> Any:
    """The mirror image's map is turned back before it is counted: a finding must stay on its side."""
    if not mirrored:
        return layers.Identity(name="maps")(maps)
    straight, turned = ops.unstack(_halves(maps), 2, axis=0)
    return layers.Identity(name="maps")(0.5 * (straight + ops.flip(turned, axis=2)))
