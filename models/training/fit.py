"""One training run: build, initialise, freeze, fit; resumable, with everything random seeded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from models.architectures.losses import map_loss, weighted_bce
from models.efficientnet.network import GATE_STAGES, PLANS, build_classifier, build_gate, freeze
from models.efficientnet.weights import initialise, published_file, read_state
from models.training.batches import ClassifierBatches, served_batch
from models.training.dataset import Example, Grey, load_images
from models.training.gate_data import GATE_LABELS, GateBatches
from models.training.recipe import Recipe
from models.training.targets import LABELS, LUNG_OPACITY

OVERSIZE = 1.25
"""Training images are kept this much larger than the network's input, so that augmentation has pixels to work with."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many epochs are done and how many there are."""


def silent(_what: str, _done: int, _total: int) -> None:
    """A progress that says nothing."""


def _opacity_map_loss(labels: Sequence[str]) -> Callable[[Any, Any], Any]:
    place = list(labels).index(LUNG_OPACITY) if LUNG_OPACITY in labels else 0

    def loss(truth: Any, maps: Any) -> Any:
        return map_loss(truth, maps[..., place : place + 1])

    return loss


def optimiser(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """AdamW with warm-up and cosine decay; the final weights are a running average of the last steps' weights."""
    schedule = recipe.schedule
    warmup = max(1, round(schedule.warmup * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=schedule.rate / 20,
        decay_steps=max(1, schedule.epochs * steps - warmup),
        warmup_target=schedule.rate,
        warmup_steps=warmup,
    )
    return keras.optimizers.AdamW(
        rate,
        weight_decay=schedule.weight_decay,
        global_clipnorm=5.0,
        use_ema=True,
        ema_momentum=min(schedule.average, 1 - 2 / (schedule.epochs * steps + 2)),
    )


def build(recipe: Recipe, labels: Sequence[str] = LABELS) -> keras.Model:
    """The recipe's network with its initial weights, frozen as the recipe says."""
    plan = PLANS[recipe.network.plan]
    model = build_classifier(recipe.network.size, len(labels), plan, recipe.network.dropout)
    if recipe.network.initial == "imagenet":
        initialise(model, read_state(published_file()))
    freeze(model, plan, recipe.network.frozen_stages)
    return model


def callbacks(epochs: int, out: Path, progress: Progress) -> list[keras.callbacks.Callback]:
    """What every training does after an epoch: keep the state to resume from, log, tell the user."""
    return [
        keras.callbacks.BackupAndRestore(str(out / "resume")),
        keras.callbacks.CSVLogger(str(out / "history.csv"), append=True),
        _Report(progress, epochs),
    ]


class _Report(keras.callbacks.Callback):  # type: ignore[misc]
    """Passes the end of each epoch on to a :data:`Progress`."""

    def __init__(self, progress: Progress, total: int) -> None:
        super().__init__()
        self._progress, self._total = progress, total

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._progress(f"loss {(logs or {}).get('loss', float('nan')):.4f}", epoch + 1, self._total)


def fit_classifier(
    recipe: Recipe,
    examples: Sequence[Example],
    out: Path,
    *,
    labels: Sequence[str] = LABELS,
    images: Grey | None = None,
    progress: Progress = silent,
) -> keras.Model:
    """Train the recipe's classifier on ``examples`` and return it with averaged weights.

    ``out`` holds the state after every epoch while training runs: started again with the same arguments, an interrupted
    training goes on where it stopped. ``images`` may hold the examples' pixels if they are loaded already.
    """
    keras.utils.set_random_seed(recipe.schedule.seed)
    out.mkdir(parents=True, exist_ok=True)
    if images is None:
        images, problems = load_images(examples, round(recipe.network.size * OVERSIZE))
        if problems:
            raise ValueError(f"{len(problems)} images cannot be decoded, first {problems[0]}")
    model = build(recipe, labels)
    batches = ClassifierBatches(recipe, examples, images, labels)
    model.compile(
        optimizer=optimiser(recipe, len(batches)),
        loss={"logits": weighted_bce, "maps": _opacity_map_loss(labels)},
        loss_weights={"logits": recipe.weights.probabilities, "maps": recipe.weights.maps},
    )
    epochs = recipe.schedule.epochs
    model.fit(batches, epochs=epochs, callbacks=callbacks(epochs, out, progress), verbose=0)
    return model


def build_gate_network(recipe: Recipe) -> keras.Model:
    """The recipe's gate with its initial weights, frozen as the recipe says."""
    plan = PLANS[recipe.network.plan][:GATE_STAGES]
    model = build_gate(recipe.network.size, len(GATE_LABELS), plan, recipe.network.dropout)
    if recipe.network.initial == "imagenet":
        initialise(model, read_state(published_file()))
    freeze(model, plan, recipe.network.frozen_stages)
    return model


def fit_gate(
    recipe: Recipe,
    examples: Sequence[Example],
    images: Grey,
    pictures: Sequence[Grey],
    out: Path,
    *,
    progress: Progress = silent,
) -> keras.Model:
    """Train the recipe's gate on chests (``images``) and pictures of anything else; resumable like the classifier."""
    keras.utils.set_random_seed(recipe.schedule.seed)
    out.mkdir(parents=True, exist_ok=True)
    model = build_gate_network(recipe)
    scores = keras.Model(model.input, model.output["logits"], name="gate_scores")
    batches = GateBatches(recipe, examples, images, pictures)
    scores.compile(
        optimizer=optimiser(recipe, len(batches)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    epochs = recipe.schedule.epochs
    scores.fit(batches, epochs=epochs, callbacks=callbacks(epochs, out, progress), verbose=0)
    return model


def predict(
    model: keras.Model, examples: Sequence[Example], batch: int = 32, *, mirrored: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits ``[n, labels]`` and maps ``[n, h, w, labels]`` of examples, prepared as the node prepares an image.

    With ``mirrored`` they are the means of an image's and its mirror image's, the latter's map turned back.
    """
    logits, maps = [], []
    for start in range(0, len(examples), batch):
        images = served_batch(examples[start : start + batch], int(model.input_shape[1]))
        said, places = _answer(model, images)
        if mirrored:
            again, turned = _answer(model, images[:, :, ::-1])
            half = np.float32(0.5)
            said, places = half * (said + again), half * (places + turned[:, :, ::-1])
        logits.append(said)
        maps.append(places)
    return np.concatenate(logits), np.concatenate(maps)


def _answer(model: keras.Model, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    answer = model(images, training=False)
    return keras.ops.convert_to_numpy(answer["logits"]), keras.ops.convert_to_numpy(answer["maps"])
