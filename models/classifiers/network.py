"""The head that all classifiers share: independent findings (sigmoid) or classes that exclude each other (softmax)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from models.architectures.base import Array, Batch, Loss, Option, Plan, Truths
from models.architectures.losses import weighted_bce, weighted_softmax
from models.architectures.truths import label_weights

SIGMOID = "sigmoid"
SOFTMAX = "softmax"
OPTIONS: Mapping[str, Option] = {"head": SIGMOID, "first_is_nothing": False, "class_weights": "", "dropout": 0.2}
"""``head``: ``sigmoid`` or ``softmax``. ``first_is_nothing``: the first class of a softmax means that nothing is found,
and is not served. ``class_weights``: numbers separated by commas, one a label, that positives of the label count.
``dropout``: share of features left out in training."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a plan says of a classifier's end."""

    exclusive: bool
    first_is_nothing: bool
    weights: tuple[float, ...]
    dropout: float


def read_head(plan: Plan, defaults: Mapping[str, Option]) -> Head:
    """The plan's head; an option that the architecture does not offer is as in :data:`OPTIONS`.

    Raises:
        ValueError: an option has no sense; the message names it.
    """
    options = {**OPTIONS, **defaults, **plan.options}
    kind, nothing, dropout = str(options["head"]), bool(options["first_is_nothing"]), float(options["dropout"])
    if kind not in (SIGMOID, SOFTMAX):
        raise ValueError(f"head must be '{SIGMOID}' or '{SOFTMAX}', not '{kind}'")
    if kind == SOFTMAX and len(plan.labels) < 2:
        raise ValueError("a softmax head needs two labels or more, of which one is true")
    if nothing and kind != SOFTMAX:
        raise ValueError("first_is_nothing needs head = 'softmax'")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be from 0 up to, not including, 1, not {dropout:g}")
    return Head(kind == SOFTMAX, nothing, label_weights(str(options["class_weights"]), plan.labels), dropout)


def teach(features: Any, labels: int, dropout: float) -> dict[str, Any]:
    """Logits of features: of a map ``[n, h, w, c]`` by place and as their mean, of a vector ``[n, c]`` at once.

    The mean of the places' logits is the dense layer on averaged features that is published for these networks; taken
    in this order, it gives the class activation map (Zhou et al., 2016) as well.
    """
    if len(features.shape) == 2:
        kept = layers.Dropout(dropout, name="dropout")(features)
        return {"logits": layers.Dense(labels, dtype="float32", name="logits")(kept)}
    kept = layers.SpatialDropout2D(dropout, name="dropout")(features)
    places = layers.Conv2D(labels, 1, dtype="float32", name="map_logits")(kept)
    return {"logits": layers.GlobalAveragePooling2D(dtype="float32", name="logits")(places), "map_logits": places}


def head_losses(head: Head) -> Mapping[str, Loss]:
    """The loss of ``logits``."""
    return {"logits": weighted_softmax if head.exclusive else weighted_bce}


def head_truths(head: Head, batch: Batch) -> Truths:
    """Values and weights of ``logits``, packed: ``[n, 2 labels]``."""
    values, known = _one_of(batch, head) if head.exclusive else (batch.labels, batch.known)
    weights = known * np.where(values > 0, np.asarray(head.weights, np.float32), 1.0)
    return {"logits": np.concatenate([values, weights], axis=-1).astype(np.float32)}


def _one_of(batch: Batch, head: Head) -> tuple[Array, Array]:
    """Shares of classes that exclude each other, and how far an example's are known.

    An example of no class says nothing, unless the first class means *nothing found* and all others are known to be
    absent. Where several are true they share.
    """
    values, known = np.where(batch.known > 0, batch.labels, 0.0), batch.known.copy()
    if head.first_is_nothing:
        absent = (known[:, 1:] > 0).all(axis=1) & (values.sum(axis=1) == 0)
        values[absent, 0] = 1.0
        known[absent & (known[:, 0] == 0), 0] = 1.0
    total = values.sum(axis=1, keepdims=True)
    return (values / np.maximum(total, 1e-6)).astype(np.float32), np.where(total > 0, known, 0.0).astype(np.float32)


def serve_head(network: keras.Model, head: Head) -> keras.Model:
    """The network with ``probabilities``, and with ``maps`` where it has places."""
    outputs = {"probabilities": _probabilities(network.output["logits"], head, "probabilities")}
    if "map_logits" in network.output:
        outputs["maps"] = _probabilities(network.output["map_logits"], head, "maps")
    return keras.Model(network.input, outputs, name=f"{network.name}_serving")


def _probabilities(logits: Any, head: Head, name: str) -> Any:
    probabilities = layers.Activation(SOFTMAX if head.exclusive else SIGMOID, dtype="float32")(logits)
    if head.first_is_nothing:
        probabilities = ops.split(probabilities, [1], axis=-1)[1]
    return layers.Identity(dtype="float32", name=name)(probabilities)
