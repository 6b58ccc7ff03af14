"""One network of the literature learns: build, compile, descend, keep the best; resumable, with every seed said."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from models.architectures.base import Architecture
from models.training.feed import Feed, KerasFeed, wanted
from models.training.fit import Progress, callbacks, silent
from models.training.literature_recipe import Course, LiteratureRecipe
from models.training.store import Stored

WEIGHTS = "learnt.weights.h5"


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What a network learns from: ``large`` for augmentation, ``exact`` at its own size, ``stopping`` to watch."""

    large: Stored
    exact: Stored
    stopping: Stored | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Student:
    """A network, and the view of it whose outputs are taught; both share their weights."""

    network: keras.Model
    taught: keras.Model


def learn(
    architecture: Architecture,
    recipe: LiteratureRecipe,
    material: Material,
    folder: Path,
    progress: Progress = silent,
) -> keras.Model:
    """The network after gradient descent and the architecture's own fit, in float32, ready to be served.

    ``folder`` keeps the state after each epoch and what was learnt at last, so an interrupted training goes on there.

    Raises:
        ValueError: the architecture cannot do what the recipe asks for; the message names the option.
    """
    keras.utils.set_random_seed(recipe.schedule.seed)
    folder.mkdir(parents=True, exist_ok=True)
    plan = recipe.plan
    network = descend(architecture, recipe, material, folder, progress) if architecture.gradient else None
    if network is None:
        network = architecture.build(plan)
    progress("fitting", 0, 1)
    fitted = architecture.fit(network, plan, Feed(recipe, material.exact, wanted(architecture, plan), change=False))
    progress("fitting", 1, 1)
    return fitted


def descend(
    architecture: Architecture, recipe: LiteratureRecipe, material: Material, folder: Path, progress: Progress
) -> keras.Model:
    """The network after gradient descent; what an earlier call has finished in ``folder`` is only loaded."""
    plan, kept = recipe.plan, folder / WEIGHTS
    if kept.is_file():
        network = architecture.build(plan)
        network.load_weights(kept)
        return network
    wants = wanted(architecture, plan)
    feed = Feed(recipe, material.large, wants, change=True)
    watched = Feed(recipe, material.stopping, wants, change=False) if material.stopping else None
    policy = precision(recipe.schedule.mixed_precision)
    with dtype_policy(policy):
        student = enrol(architecture, recipe, len(feed))
        teach(architecture, recipe, student, feed, watched, folder, progress)
    network = student.network
    if policy != "float32":
        network = architecture.build(plan)
        network.set_weights(student.network.get_weights())
    network.save_weights(kept)
    return network


def enrol(architecture: Architecture, recipe: LiteratureRecipe, steps: int) -> Student:
    """Build and compile; ``steps`` are batches an epoch."""
    plan = recipe.plan
    network = architecture.build(plan)
    losses = dict(architecture.losses(plan))
    missing = sorted(set(losses) - set(network.output))
    if missing:
        raise ValueError(f"{architecture.name} teaches outputs that its network lacks: {', '.join(missing)}")
    taught = keras.Model(network.input, {name: network.output[name] for name in losses}, name=f"{network.name}_taught")
    taught.compile(optimizer=optimiser(recipe.schedule, steps), loss=losses)
    return Student(network, taught)


def teach(
    architecture: Architecture,
    recipe: LiteratureRecipe,
    student: Student,
    feed: Feed,
    watched: Feed | None,
    folder: Path,
    progress: Progress,
) -> None:
    """Gradient descent over the recipe's epochs, or until the loss on ``watched`` no longer falls."""
    plan, epochs = recipe.plan, recipe.schedule.epochs
    told: list[keras.callbacks.Callback] = [_Epoch(feed), *callbacks(epochs, folder, progress)]
    if watched is not None:
        told.insert(1, KeepBest(folder, recipe.schedule.patience))
    workers = max(1, (os.cpu_count() or 1) // 4)
    student.taught.fit(
        KerasFeed(feed, architecture, plan, workers),
        validation_data=KerasFeed(watched, architecture, plan) if watched is not None else None,
        epochs=epochs,
        callbacks=told,
        verbose=0,
    )


def optimiser(schedule: Course, steps: int) -> keras.optimizers.Optimizer:
    """The recipe's optimiser; ``steps`` are batches an epoch."""
    rate: Any = schedule.rate
    if schedule.cosine:
        rate = keras.optimizers.schedules.CosineDecay(schedule.rate, max(1, schedule.epochs * steps))
    clip = {"global_clipnorm": schedule.clip} if schedule.clip else {}
    match schedule.optimiser:
        case "adamw":
            return keras.optimizers.AdamW(rate, weight_decay=schedule.decay, **clip)
        case "adam":
            return keras.optimizers.Adam(rate, weight_decay=schedule.decay or None, **clip)
        case "sgd":
            return keras.optimizers.SGD(rate, momentum=0.9, weight_decay=schedule.decay or None, **clip)
        case "rmsprop":
            return keras.optimizers.RMSprop(rate, weight_decay=schedule.decay or None, **clip)


def precision(asked: str) -> str:
    """The policy that layers compute by; ``auto`` is bfloat16 on a GPU."""
    match asked:
        case "auto":
            return "mixed_bfloat16" if keras.distribution.list_devices("gpu") else "float32"
        case "off":
            return "float32"
        case kind:
            return f"mixed_{kind}"


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Let layers that are built inside compute by this policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class _Epoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells a feed which epoch it is, also after a resumption."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._feed.epoch = epoch


class KeepBest(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops when the watched loss has not fallen for ``patience`` epochs, and puts the best epoch's weights back.

    Unlike Keras's own early stopping it keeps what it knows in ``folder``, so that it survives an interruption.
    """

    def __init__(self, folder: Path, patience: int) -> None:
        super().__init__()
        self._weights, self._state, self._patience = folder / "best.weights.h5", folder / "best.json", patience

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Keep this epoch's weights if they are the best so far, or stop."""
        loss = float((logs or {}).get("val_loss", math.nan))
        best, lowest = self._best()
        if loss < lowest:
            self.model.save_weights(self._weights)
            self._state.write_text(json.dumps({"epoch": epoch, "loss": loss}), encoding="utf-8")
        elif epoch - best >= self._patience:
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Put the best weights back."""
        if self._weights.is_file():
            self.model.load_weights(self._weights)

    def _best(self) -> tuple[int, float]:
        if not self._state.is_file():
            return -1, math.inf
        state = json.loads(self._state.read_text(encoding="utf-8"))
        return int(state["epoch"]), float(state["loss"])
