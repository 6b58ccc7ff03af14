"""What an architecture is to the rest of Pleura: how to build it, what it learns from, how it is served.

An architecture is a value, not a network: a recipe names it (:mod:`models.architectures.catalogue`), the training
engine builds it, feeds it :class:`Batch` values and asks it for the network that the node serves. A new architecture is
one folder under ``models/`` and one line of the catalogue; the contract test in ``tests/models/architectures`` then
runs over it.

This module imports no Keras, so that the registry can be listed on a node that only serves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.model_spec import ModelKind

if TYPE_CHECKING:
    import keras

Array = NDArray[np.float32]
Truths = Mapping[str, Array]
Loss = Callable[[Any, Any], Any]
Option = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe says about a network.

    ``labels`` are the findings in the order of the network's output. ``width`` scales the number of filters (1: as
    published), so that a contract test or a trial can build any architecture in seconds. ``options`` are the
    architecture's own, each listed in its :attr:`Architecture.options`.
    """

    architecture: str
    size: int
    labels: tuple[str, ...]
    encoder: str = ""
    initial: str = "random"
    width: float = 1.0
    options: Mapping[str, Option] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Radiographs and all that is known of them.

    ``pixels`` is ``float32[n, size, size, 1]`` in ``[0, 1]``, air dark, preprocessed as in serving. ``labels`` and
    ``known`` are ``float32[n, labels]``: the truth, and how far it is known (0: not at all). ``masks`` is
    ``float32[n, size, size, labels]``, ``mask_known`` ``float32[n, labels]``. ``boxes`` is ``float32[n, most, 5]``
    (left, top, right, bottom in network pixels, index of the label), filled up with rows whose label is -1. ``names``
    are the samples' names where the reader of the batch may need them.
    """

    pixels: Array
    labels: Array
    known: Array
    masks: Array | None = None
    mask_known: Array | None = None
    boxes: Array | None = None
    names: tuple[str, ...] = ()


class Batches(Protocol):
    """An epoch's batches by number: what a fit that is no gradient descent reads; the same in every call."""

    def __len__(self) -> int:
        """How many batches there are."""

    def __getitem__(self, index: int) -> Batch:
        """The batch of that number."""


@dataclass(frozen=True, slots=True)
class Architecture(ABC):
    """One method of the literature: ``name`` as recipes call it, ``source`` where it comes from.

    ``options`` are the architecture's own options with their defaults. ``encoders`` are the names that
    :attr:`Plan.encoder` may have (empty: it has none). ``gradient`` is false where :meth:`fit` does all the learning
    and no optimiser runs. ``keeps_index`` says that the served network answers ``neighbours``, rows in the order of the
    batches that :meth:`fit` saw; their names and labels are then kept in a file beside the manifest.
    """

    name: str
    kind: ModelKind
    title: str
    source: str
    encoders: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)
    gradient: bool = True
    keeps_index: bool = False

    @abstractmethod
    def build(self, plan: Plan) -> keras.Model:
        """The network that is trained: ``float32[n, size, size, 1]`` in ``[0, 1]`` to a dictionary of tensors.

        Any scaling or repetition over three channels happens inside. The graph must be exportable to ONNX after
        :meth:`serve`, for a free batch size.

        Raises:
            ValueError: the plan asks for what this architecture cannot do; the message names the option.
        """

    @abstractmethod
    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """For each output that is taught, a loss of ``(truth, answer)``; one value an example or one a batch."""

    @abstractmethod
    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """What each taught output should say for a batch; weights are packed in the last axis (see ``losses``)."""

    @abstractmethod
    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """The network that the node runs, with the outputs of :class:`models.model_spec.OutputNames`, probabilities.

        A classifier's are those of :attr:`served`; nothing here depends on the batch size. A classifier may answer
        ``members [n, members, labels]``, several logits of one image, in the place of ``probabilities``:
        they are averaged and calibrated on the evidence before the network ships.
        """

    def served(self, plan: Plan) -> tuple[str, ...]:
        """The labels of the served output, in order: those of the plan, unless a class means *nothing found*."""
        return plan.labels

    def outlined(self, plan: Plan) -> tuple[str, ...]:
        """The labels of a classifier whose maps are taught, so that they are served whatever the evidence says."""
        del plan
        return ()

    def fit(self, network: keras.Model, plan: Plan, batches: Batches) -> keras.Model:
        """Learn what gradient descent does not (support vectors, stored features); runs after it, without augmentation.

        Returns the network to :meth:`serve`: the same one with other weights, or another that holds what was learnt.
        """
        del plan, batches
        return network

    def option(self, plan: Plan, name: str) -> Option:
        """The plan's value of one of this architecture's options.

        Raises:
            KeyError: the architecture has no such option.
        """
        return plan.options.get(name, self.options[name])


def check_plan(architecture: Architecture, plan: Plan) -> None:
    """Refuse a plan that names an encoder, an option or labels that the architecture does not know.

    Raises:
        ValueError: with the name and what is known.
    """
    if not plan.labels or len(set(plan.labels)) != len(plan.labels):
        raise ValueError("labels must name each finding once, at least one")
    if plan.encoder and plan.encoder not in architecture.encoders:
        known = ", ".join(architecture.encoders) or "none"
        raise ValueError(f"{architecture.name} has no encoder '{plan.encoder}' (it has: {known})")
    if architecture.encoders and not plan.encoder:
        raise ValueError(f"{architecture.name} needs an encoder: {', '.join(architecture.encoders)}")
    for name, value in plan.options.items():
        if name not in architecture.options:
            known = ", ".join(sorted(architecture.options)) or "none"
            raise ValueError(f"{architecture.name} has no option '{name}' (it has: {known})")
        default = architecture.options[name]
        if not isinstance(value, (int, float) if isinstance(default, float) else type(default)):
            raise ValueError(f"option '{name}' of {architecture.name} must be of type {type(default).__name__}")
