"""Ensemble of the trained network: the mirror image (test-time augmentation), and a linear probe.

The probe is a logistic regression on features that no radiograph has changed. A small data set teaches the two
different things, and their mean is better than either. All of it is made of layers that travel in an exported graph.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from models.architectures.base import Batches
from models.architectures.linear import Linear

Array = NDArray[np.floating]
Bools = NDArray[np.bool_]
STEPS = 1000
Probe = tuple[keras.Model, Linear]
"""A network of frozen features, and what reads logits from them."""


def fit_probe(frozen: keras.Model, batches: Batches, strength: float, *, mirrored: bool) -> Probe:
    """A logistic regression of every label on the features of all batches; zero where a label has not both classes.

    ``strength`` is the inverse of its pull to zero. With ``mirrored`` features are the mean of those of an image and of
    its mirror image.
    """
    features, labels, known = [], [], []
    for index in range(len(batches)):
        batch = batches[index]
        found = frozen.predict_on_batch(batch.pixels)
        if mirrored:
            found = (found + frozen.predict_on_batch(batch.pixels[:, :, ::-1].copy())) / 2
        features.append(found)
        labels.append(batch.labels > 0.5)
        known.append(batch.known > 0)
    inputs, truths, labelled = np.concatenate(features), np.concatenate(labels), np.concatenate(known)
    columns = [regression(inputs, truths[:, place], labelled[:, place], strength) for place in range(truths.shape[1])]
    weights, offsets = zip(*columns, strict=True)
    return frozen, Linear(np.stack(weights, axis=1), np.array(offsets))


def regression(features: Array, truths: Bools, labelled: Bools, strength: float) -> tuple[Array, float]:
    """Weights and offset for ``features [n, d]`` as they come, fitted on standardised ones of the analysed rows."""
    truth = truths[labelled]
    if not truth.any() or truth.all():
        return np.zeros(features.shape[1]), 0.0
    middle, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    machine = LogisticRegression(C=strength, max_iter=STEPS)
    machine.fit((features[labelled] - middle) / spread, truth)
    weights = machine.coef_[0] / spread
    return weights, float(machine.intercept_[0] - middle @ weights)


def ensemble(network: keras.Model, probe: Probe | None, *, mirrored: bool) -> keras.Model:
    """One network from an image to ``members [n, members, labels]`` (logits) and ``maps [n, h, w, labels]``.

    ``network`` answers ``logits`` and ``maps``. With ``mirrored`` it sees the mirror image too; the mean counts.
    """
    image = keras.Input(network.input_shape[1:], name="image")
    # One pass over a batch twice as long: the exported file then holds each network once.
    seen = ops.concatenate([image, ops.flip(image, axis=2)], axis=0) if mirrored else image
    answer = network(seen)
    members = [_mean(answer["logits"], mirrored)]
    if probe is not None:
        frozen, linear = probe
        members.append(linear.layer(_mean(frozen(seen), mirrored), "linear_probe"))
    together = layers.Identity(name="members")(ops.stack(members, axis=1))
    return keras.Model(image, {"members": together, "maps": _mean_map(answer["maps"], mirrored)}, name="chest_ensemble")


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
