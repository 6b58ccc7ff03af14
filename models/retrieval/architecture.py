"""``retrieval``: an image is analysed by the k most alike of the stored ones, which can be shown beside it.

The method of Sze-To and Wang / Yang et al. in the survey of source A: deep features of every training image are stored;
the probability of a finding is its share among the nearest. Everything is in the network itself, so that it runs where
any network runs: the stored features are a linear layer, their labels an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from models.architectures.base import Architecture, Batch, Batches, Loss, Plan, Truths
from models.architectures.losses import weighted_bce
from models.encoders.table import encode
from models.model_spec import ModelKind

FEATURES = "features"
LEAST_LENGTH = 1e-6


class Retrieval(Architecture):
    """An encoder taught as a classifier, then the memory of what it has seen.

    The distance of two images is 1 minus the cosine of their features: 0 alike, 1 unrelated, 2 opposite.
    """

    __slots__ = ()

    def build(self, plan: Plan) -> keras.Model:
        """Grey image to ``logits``: the classifier that shapes the features."""
        if int(self.option(plan, "neighbours")) < 1:
            raise ValueError("option 'neighbours' must be 1 or more")
        image = keras.Input((plan.size, plan.size, 1), name="image")
        deepest = encode(plan.encoder, image, plan.width, plan.initial)[32]
        features = layers.GlobalAveragePooling2D(name=FEATURES)(deepest)
        return keras.Model(image, {"logits": layers.Dense(len(plan.labels), name="logits")(features)}, name="retrieval")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Cross-entropy of the labels that are known."""
        return {"logits": weighted_bce}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """Labels and how far they are known, side by side."""
        return {"logits": np.concatenate([batch.labels, batch.known], axis=-1)}

    def fit(self, network: keras.Model, plan: Plan, batches: Batches) -> keras.Model:
        """Store the features and labels of every image, in the order of the batches."""
        embed = keras.Model(network.input, embedding(network.get_layer(FEATURES).output))
        stored, labels, known = [], [], []
        for index in range(len(batches)):
            batch = batches[index]
            stored.append(keras.ops.convert_to_numpy(embed(batch.pixels, training=False)))
            labels.append(batch.labels * batch.known)
            known.append(batch.known)
        votes = np.concatenate([np.concatenate(labels), np.concatenate(known)], axis=-1)
        count = int(self.option(plan, "neighbours"))
        return _with_memory(network, embed, np.concatenate(stored), votes, count)

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """``probabilities [n, labels]``, ``neighbours [n, k]`` and ``neighbour_distances [n, k]``, nearest first."""
        names = ("probabilities", "neighbours", "neighbour_distances")
        return keras.Model(network.input, {name: network.output[name] for name in names}, name="retrieval_serving")


def embedding(features: Any) -> Any:
    """Features ``[n, d]`` at length 1; features that are all zero stay zero."""
    length = ops.sqrt(ops.sum(features * features, axis=-1, keepdims=True))
    return features / ops.maximum(length, LEAST_LENGTH)


def _with_memory(network: keras.Model, embed: keras.Model, stored: Any, votes: Any, count: int) -> keras.Model:
    """The network with ``stored [m, d]`` and ``votes [m, 2 · labels]`` (label times known, known) in it."""
    memory = layers.Dense(len(stored), use_bias=False, trainable=False, name="memory")
    cosines = memory(embed.output)
    memory.set_weights([stored.T])
    nearest, rows = ops.top_k(cosines, min(count, len(stored)))
    table = layers.Embedding(len(votes), votes.shape[1], trainable=False, name="votes")
    sums = ops.sum(table(rows), axis=1)
    table.set_weights([votes])
    positive, known = ops.split(sums, 2, axis=-1)
    # Where no neighbour is known, nothing speaks for either side.
    probabilities = ops.where(known > 0, positive / ops.maximum(known, LEAST_LENGTH), 0.5)
    outputs = {
        **network.output,
        "probabilities": probabilities,
        "neighbours": rows,
        "neighbour_distances": 1.0 - nearest,
    }
    return keras.Model(network.input, outputs, name="retrieval")


RETRIEVAL = Retrieval(
    name="retrieval",
    kind=ModelKind.CLASSIFIER,
    title="The k nearest of stored deep features",
    source="survey in A",
    encoders=("densenet121", "resnet50", "vgg16", "efficientnet-lite0", "vgg-small"),
    options={"neighbours": 11},
    keeps_index=True,
)
