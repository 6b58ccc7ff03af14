"""Fits one network: build, compile, gradient descent, keep the best; resumable, every seed is a setting."""

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

from models.architectures.base import Architecture, Batches
from models.model_spec import ModelKind
from models.training.cached_dataset import CachedDataset
from models.training.data_loader import DataLoader, KerasLoader, wanted
from models.training.datasets.layout import Progress
from models.training.gate_data import GateLoader, upright_chests
from models.training.recipe import Recipe, Schedule

WEIGHTS = "learnt.weights.h5"


def silent(_what: str, _done: int, _total: int) -> None:
    """A progress that says nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a network learns from: ``large`` for augmentation, ``exact`` at its own size, ``stopping`` to watch."""

    large: CachedDataset
    exact: CachedDataset
    stopping: CachedDataset | None = None

    def changed(self, architecture: Architecture, recipe: Recipe) -> DataLoader | GateLoader:
        """Batches for gradient descent: shuffled and augmented."""
        if architecture.kind is ModelKind.GATE:
            return GateLoader(recipe, self.large)
        return DataLoader(recipe, self.large, wanted(architecture, recipe.plan), change=True)

    def plain(self, architecture: Architecture, recipe: Recipe) -> Batches:
        """Batches for the architecture's own fit: in order, as the node would see them (of a gate, upright chests)."""
        if architecture.kind is ModelKind.GATE:
            return upright_chests(recipe, self.large, self.exact)
        return DataLoader(recipe, self.exact, wanted(architecture, recipe.plan), change=False)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingNetwork:
    """A network, and the view of it whose outputs are taught; both share their weights."""

    network: keras.Model
    taught: keras.Model


def fit_network(
    architecture: Architecture,
    recipe: Recipe,
    material: TrainingData,
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
    network = fit_by_gradients(architecture, recipe, material, folder, progress) if architecture.gradient else None
    if network is None:
        network = architecture.build(plan)
    progress("fitting", 0, 1)
    fitted = architecture.fit(network, plan, material.plain(architecture, recipe))
    progress("fitting", 1, 1)
    return fitted


def fit_by_gradients(
    architecture: Architecture, recipe: Recipe, material: TrainingData, folder: Path, progress: Progress
) -> keras.Model:
    """The network after gradient descent; what an earlier call has finished in ``folder`` is only loaded."""
    plan, kept = recipe.plan, folder / WEIGHTS
    if kept.is_file():
        network = architecture.build(plan)
        network.load_weights(kept)
        return network
    loader = material.changed(architecture, recipe)
    watched = None
    if material.stopping:
        watched = DataLoader(recipe, material.stopping, wanted(architecture, plan), change=False)
    policy = precision(recipe.schedule.mixed_precision)
    with dtype_policy(policy):
        student = compile_network(architecture, recipe, len(loader))
        run_epochs(architecture, recipe, student, loader, watched, folder, progress)
    network = student.network
    if policy != "float32":
        network = architecture.build(plan)
        network.set_weights(student.network.get_weights())
    network.save_weights(kept)
    return network


def compile_network(architecture: Architecture, recipe: Recipe, steps: int) -> TrainingNetwork:
    """Build and compile; ``steps`` are batches an epoch."""
    plan = recipe.plan
    network = architecture.build(plan)
    losses = dict(architecture.losses(plan))
    missing = sorted(set(losses) - set(network.output))
    if missing:
        raise ValueError(f"{architecture.name} teaches outputs that its network lacks: {', '.join(missing)}")
    taught = keras.Model(network.input, {name: network.output[name] for name in losses}, name=f"{network.name}_taught")
    taught.compile(optimizer=optimiser(recipe.schedule, steps), loss=losses)
    return TrainingNetwork(network, taught)


def run_epochs(
    architecture: Architecture,
    recipe: Recipe,
    student: TrainingNetwork,
    loader: DataLoader | GateLoader,
    watched: DataLoader | None,
    folder: Path,
    progress: Progress,
) -> None:
    """Gradient descent over the recipe's epochs, or until the loss on ``watched`` no longer falls."""
    plan, epochs = recipe.plan, recipe.schedule.epochs
    all_callbacks: list[keras.callbacks.Callback] = [_Epoch(loader), *callbacks(epochs, folder, progress)]
    if watched is not None:
        all_callbacks.insert(1, KeepBest(folder, recipe.schedule.patience))
    workers = max(1, (os.cpu_count() or 1) // 4)
    student.taught.fit(
        KerasLoader(loader, architecture, plan, workers),
        validation_data=KerasLoader(watched, architecture, plan) if watched is not None else None,
        epochs=epochs,
        callbacks=all_callbacks,
        verbose=0,
    )


def callbacks(epochs: int, folder: Path, progress: Progress) -> list[keras.callbacks.Callback]:
    """What every training does after an epoch: keep the state to resume from, log, tell the user."""
    return [
        keras.callbacks.BackupAndRestore(str(folder / "resume")),
        keras.callbacks.CSVLogger(str(folder / "history.csv"), append=True),
        _Report(progress, epochs),
    ]


class _Report(keras.callbacks.Callback):  # type: ignore[misc]
    """Passes the end of each epoch on to a :data:`Progress`."""

    def __init__(self, progress: Progress, total: int) -> None:
        super().__init__()
        self._progress, self._total = progress, total

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._progress(f"loss {(logs or {}).get('loss', math.nan):.4f}", epoch + 1, self._total)


def optimiser(schedule: Schedule, steps: int) -> keras.optimizers.Optimizer:
    """The recipe's optimiser; ``steps`` are batches an epoch."""
    options: dict[str, Any] = {"learning_rate": learning_rate(schedule, steps), "weight_decay": schedule.decay or None}
    if schedule.clip:
        options["global_clipnorm"] = schedule.clip
    if schedule.average:
        # A short training must not end with the weights that it began with.
        momentum = min(schedule.average, 1 - 2 / (schedule.epochs * steps + 2))
        options |= {"use_ema": True, "ema_momentum": momentum}
    match schedule.optimiser:
        case "adamw":
            return keras.optimizers.AdamW(**(options | {"weight_decay": schedule.decay}))
        case "adam":
            return keras.optimizers.Adam(**options)
        case "sgd":
            return keras.optimizers.SGD(momentum=0.9, **options)
        case "rmsprop":
            return keras.optimizers.RMSprop(**options)


def learning_rate(schedule: Schedule, steps: int) -> Any:
    """A constant, or a cosine that falls to zero, after a warm-up where there is one."""
    if not schedule.cosine:
        return schedule.rate
    total = schedule.epochs * steps
    if not schedule.warmup:
        return keras.optimizers.schedules.CosineDecay(schedule.rate, max(1, total))
    warmup = max(1, round(schedule.warmup * steps))
    return keras.optimizers.schedules.CosineDecay(
        schedule.rate / 20, max(1, total - warmup), warmup_target=schedule.rate, warmup_steps=warmup
    )


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
    """Tells a data loader which epoch it is, also after a resumption."""

    def __init__(self, loader: DataLoader | GateLoader) -> None:
        super().__init__()
        self._loader = loader

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._loader.epoch = epoch


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
