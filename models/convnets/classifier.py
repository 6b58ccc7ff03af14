"""A classifier of whole images: a body of convolutions, and the head of :mod:`models.convnets.heads`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from models.architectures.contract import Architecture, Batch, Loss, Plan, Truths
from models.convnets.heads import Head, head_losses, head_truths, read_head, serve_head, teach


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNet(Architecture):
    """``body`` turns ``[n, size, size, 1]`` in ``[0, 1]`` into a map of features or a vector of them.

    ``own_dropout`` is true where the body leaves features out itself, as published, and the head need not.
    """

    body: Callable[[Any, Plan, float], Any]
    own_dropout: bool = False

    def head(self, plan: Plan) -> Head:
        """What the plan says of the head; raises ValueError where it has no sense."""
        return read_head(plan, self.options)

    def build(self, plan: Plan) -> keras.Model:
        """``logits``, and ``map_logits`` where the body keeps places."""
        head = self.head(plan)
        image = keras.Input((plan.size, plan.size, 1), name="image")
        features = self.body(image, plan, head.dropout)
        outputs = teach(features, len(plan.labels), 0.0 if self.own_dropout else head.dropout)
        return keras.Model(image, outputs, name=self.name.replace("-", "_"))

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Cross-entropy of ``logits``; the places are not taught."""
        return head_losses(self.head(plan))

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """The labels, packed with how far they are known."""
        return head_truths(self.head(plan), batch)

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """``probabilities``, and ``maps`` where the body keeps places."""
        return serve_head(network, self.head(plan))

    def served(self, plan: Plan) -> tuple[str, ...]:
        """The labels without the class that means nothing found."""
        return plan.labels[1:] if self.head(plan).first_is_nothing else plan.labels
