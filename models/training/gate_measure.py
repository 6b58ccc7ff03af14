"""Measure a trained gate: what it lets through and what it stops, and how strange an image may be."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from models.model_spec import GateSpec
from models.training.cached_dataset import CachedDataset
from models.training.gate_data import (
    FRONTAL,
    GATE_LABELS,
    STEP,
    Pixels,
    as_served,
    installed_pictures,
    made,
    upright_chests,
)
from models.training.metrics import proportion
from models.training.recipe import Recipe

PERCENTILE = 99.9
"""Share of the training chests, changed as in training and unchanged, that lies within the distance threshold."""
LEAST_PROBABILITY = 0.5


def answers(served: keras.Model, batch: Pixels) -> tuple[Pixels, Pixels]:
    """Probabilities ``[n, classes]`` and distances ``[n]`` of images ``[n, size, size, 1]``."""
    found = [served(batch[start : start + STEP], training=False) for start in range(0, len(batch), STEP)]
    probabilities, distance = (
        np.concatenate([keras.ops.convert_to_numpy(item[name]) for item in found])
        for name in ("probabilities", "distance")
    )
    return probabilities, distance


def gate_rule(served: keras.Model, recipe: Recipe, large: CachedDataset, exact: CachedDataset) -> GateSpec:
    """The rule that follows from the distances of the training chests."""
    distances = np.concatenate([answers(served, batch.pixels)[1] for batch in upright_chests(recipe, large, exact)])
    limit = float(f"{np.percentile(distances, PERCENTILE):.4g}")
    return GateSpec(min_probability=LEAST_PROBABILITY, distance_threshold=limit)


def measure_gate(
    served: keras.Model, rule: GateSpec, recipe: Recipe, large: CachedDataset, exact: CachedDataset
) -> dict[str, Any]:
    """How many unseen chests are let through as they are, and after being changed into each class."""
    pictures = installed_pictures()
    report: dict[str, Any] = {"images": len(exact), "distance_percentile": PERCENTILE, "others": len(pictures)}
    sets = {"unchanged": as_served(exact)}
    sets |= {name: made(place, recipe, large, pictures, 201) for place, name in enumerate(GATE_LABELS)}
    for name, batch in sets.items():
        probabilities, distances = answers(served, batch)
        near = distances <= (rule.distance_threshold or np.inf)
        called = probabilities.argmax(axis=1)
        passed = int((near & (probabilities[:, FRONTAL] >= rule.min_probability) & (called == FRONTAL)).sum())
        counts = np.bincount(called, minlength=len(GATE_LABELS))
        report[name] = {
            "let_through": asdict(proportion(passed, len(batch))),
            "most_probable": {label: int(count) for label, count in zip(GATE_LABELS, counts, strict=True)},
        }
    return report
