"""Measure a trained gate: what it lets through and what it stops, and how strange an image may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.contract import GateSpec
from models.efficientnet.network import FEATURES, fit_distance
from models.training.batches import plain_batch
from models.training.dataset import Example, Grey
from models.training.gate_data import FRONTAL, GATE_LABELS, gate_image
from models.training.metrics import proportion
from models.training.recipe import Recipe

Pixels = NDArray[np.float32]
PERCENTILE = 99.9
"""Share of the training chests, changed as in training and unchanged, that lies within the distance threshold."""
LEAST_PROBABILITY = 0.5


def answers(model: keras.Model, batch: Pixels, step: int = 64) -> tuple[Pixels, Pixels]:
    """Probabilities ``[n, classes]`` and features ``[n, channels]`` of images ``[n, size, size, 1]``."""
    said = [model(batch[start : start + step], training=False) for start in range(0, len(batch), step)]
    logits = np.concatenate([keras.ops.convert_to_numpy(item["logits"]) for item in said])
    features = np.concatenate([keras.ops.convert_to_numpy(item[FEATURES]) for item in said])
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32), features


def distances(features: Pixels, mean: Pixels, whitening: Pixels) -> Pixels:
    """What the exported graph computes, in NumPy."""
    return np.asarray(np.sqrt(np.mean(np.square((features - mean) @ whitening), axis=1)), np.float32)


def made(
    label: int, recipe: Recipe, examples: Sequence[Example], images: Grey, pictures: Sequence[Grey], seed: int
) -> Pixels:
    """One image of a class from every example: ``float32[n, size, size, 1]``."""
    rng = np.random.default_rng((seed, label))
    pairs = zip(images, examples, strict=True)
    made_ones = [gate_image(label, image, item.aspect, pictures, recipe, rng) for image, item in pairs]
    return np.stack(made_ones)[..., np.newaxis]


def unchanged(images: Grey, size: int) -> Pixels:
    """Chests as the node would give them to the gate."""
    small = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)) for image in images]
    return plain_batch(np.stack(small))


def fit_rule(
    model: keras.Model, recipe: Recipe, examples: Sequence[Example], images: Grey, pictures: Sequence[Grey]
) -> tuple[tuple[Pixels, Pixels], GateSpec]:
    """Mean and whitening of the training chests' features, and the rule that follows from them."""
    chests = [unchanged(images, recipe.network.size)]
    chests += [made(FRONTAL, recipe, examples, images, pictures, seed) for seed in (101, 102)]
    features = np.concatenate([answers(model, batch)[1] for batch in chests])
    mean, whitening = fit_distance(features)
    limit = float(np.percentile(distances(features, mean, whitening), PERCENTILE))
    return (mean, whitening), GateSpec(min_probability=LEAST_PROBABILITY, distance_threshold=limit)


def measure_gate(
    model: keras.Model,
    distance: tuple[Pixels, Pixels],
    rule: GateSpec,
    recipe: Recipe,
    examples: Sequence[Example],
    images: Grey,
    pictures: Sequence[Grey],
) -> dict[str, Any]:
    """How many unseen chests are let through as they are, and after being changed into each class."""
    report: dict[str, Any] = {"images": len(examples), "distance_percentile": PERCENTILE}
    sets = {"unchanged": unchanged(images, recipe.network.size)}
    sets |= {name: made(place, recipe, examples, images, pictures, 201) for place, name in enumerate(GATE_LABELS)}
    for name, batch in sets.items():
        said, features = answers(model, batch)
        near = distances(features, *distance) <= (rule.distance_threshold or np.inf)
        sure = said[:, FRONTAL] >= rule.min_probability
        passed = int((near & sure & (said.argmax(axis=1) == FRONTAL)).sum())
        counts = np.bincount(said.argmax(axis=1), minlength=len(GATE_LABELS))
        report[name] = {
            "let_through": asdict(proportion(passed, len(batch))),
            "most_probable": {label: int(count) for label, count in zip(GATE_LABELS, counts, strict=True)},
        }
    return report
