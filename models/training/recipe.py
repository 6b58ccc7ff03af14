"""Recipes: everything that decides a training, in one TOML file.

A recipe is read once into frozen values; a key that does not exist, is missing or has the wrong type is an error that
names it, so that a misspelt option can never be ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.training.recipe_tables import RecipeError, from_table, read_table

RECIPES = Path(__file__).parent / "recipes"
"""The recipes that come with Pleura."""


@dataclass(frozen=True, slots=True)
class Network:
    """Which network: its family, the side of its square input in pixels, and what it starts from."""

    family: Literal["efficientnet"]
    size: int = 256
    initial: Literal["imagenet", "random"] = "imagenet"
    plan: Literal["lite0", "tiny"] = "lite0"
    frozen_stages: int = 3
    dropout: float = 0.3


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: AdamW, warm-up over ``warmup`` epochs, then cosine decay to zero."""

    epochs: int = 14
    batch: int = 16
    rate: float = 4e-4
    warmup: float = 1.0
    weight_decay: float = 1e-3
    average: float = 0.99
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Ranges of the random changes; zero switches one off. Lengths are fractions of the image side."""

    rotation: float = 10.0
    scale: float = 0.15
    shift: float = 0.07
    aspect: float = 0.18
    flip: float = 0.0
    gamma: float = 0.5
    contrast: float = 0.35
    brightness: float = 0.12
    equalise: float = 0.25
    sharpen: float = 0.3
    noise: float = 0.03
    collimate: float = 0.15
    marker: float = 0.2


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part of the loss counts; ``emphasis`` multiplies the labels that may leave the node."""

    probabilities: float = 1.0
    maps: float = 1.0
    emphasis: float = 1.0
    smoothing: float = 0.01


@dataclass(frozen=True, slots=True)
class Panel:
    """What a classifier is asked beside its plain answer; as it stands here, nothing.

    ``mirrored``: the mirror image is judged too. ``unchanged``: strength of a logistic regression on ImageNet features
    that training has not changed, whose logits are averaged with the network's (inverse of its pull to zero; 0: none).
    """

    mirrored: bool = False
    unchanged: float = 0.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training, complete."""

    name: str
    version: str
    title: str
    kind: Literal["classifier", "gate"]
    network: Network
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)
    weights: Weights = field(default_factory=Weights)
    panel: Panel = field(default_factory=Panel)


def read_recipe(path: Path) -> Recipe:
    """Read and check the recipe in ``path``.

    Raises:
        RecipeError: the file is missing, is no TOML, or a key is unknown, missing or of the wrong type.
    """
    recipe = from_table(Recipe, read_table(path))
    if recipe.network.size % 32:
        raise RecipeError(f"network.size is {recipe.network.size}, it must be a multiple of 32")
    if recipe.schedule.epochs < 1 or recipe.schedule.batch < 1:
        raise RecipeError("schedule.epochs and schedule.batch must be at least 1")
    if recipe.panel.unchanged < 0:
        raise RecipeError(f"panel.unchanged is {recipe.panel.unchanged}, it must not be negative")
    if recipe.kind == "gate" and recipe.panel != Panel():
        raise RecipeError("panel is for classifiers; a gate answers alone")
    return recipe
