"""Recipes: everything that decides a training, in one TOML file that names an ``architecture`` of the catalogue.

Which answers of a data set are learnt, how large and wide the network is, how long and how fast it learns. A key that
does not exist, is missing or has the wrong type is an error that names it. Augmentation is off unless a recipe asks for
it, since most papers had none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from models.architectures.base import Option, Plan
from models.training.recipe_tables import RecipeError, from_table, read_table

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

RECIPES = Path(__file__).parent / "recipes"
"""The recipes that come with Pleura."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Ranges of the random changes; zero switches one off. Lengths are fractions of the image side."""

    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    aspect: float = 0.0
    flip: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    equalise: float = 0.0
    sharpen: float = 0.0
    noise: float = 0.0
    collimate: float = 0.0
    marker: float = 0.0


UNCHANGED = Augmentation()
"""No augmentation at all."""


@dataclass(frozen=True, slots=True)
class Data:
    """What is learnt from which images.

    ``labels`` are the findings in the order of the network's output. ``classes`` says for a label which of the data
    set's own labels mean it, where their names differ (``opacity = ["lung_opacity", "Lung Opacity"]``); the label is
    present where any of them is. ``use = "positives"`` trains on images with one of the findings only; evaluation
    always takes all. ``weak`` lets a network learn what is only likely of an image (``labels.csv`` has such). ``rare``
    keeps labels of which there are not both positives and negatives; they ship in shadow. ``limit`` takes about that
    many images, drawn at random from training and evaluation alike; 0: all.
    """

    labels: tuple[str, ...]
    layout: str = "auto"
    use: Literal["all", "positives"] = "all"
    equalise: Literal["none", "histogram", "clahe"] = "none"
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    weak: bool = False
    rare: bool = False
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Network:
    """How large the network is; see :class:`models.architectures.base.Plan`."""

    size: int
    encoder: str = ""
    initial: str = "random"
    width: float = 1.0
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How it learns.

    With ``patience`` above 0, training stops when the loss on set-aside training patients (a share of ``stopping``) has
    not fallen for that many epochs, and the weights of the best epoch are kept. ``class_weights = "balanced"`` lets the
    positives and the negatives of each label weigh the same. ``mixed_precision = "auto"`` computes in bfloat16 on a
    GPU and in float32 elsewhere. ``decay`` is AdamW's weight decay; ``cosine`` lets the rate fall to zero after it has
    risen over ``warmup`` epochs, ``clip`` bounds the norm of the gradient (0: nothing does). ``average`` above 0 ends
    with a running average of the last steps' weights (what of it is kept each step).
    """

    epochs: int
    batch: int = 16
    rate: float = 1e-4
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = "adam"
    decay: float = 0.0
    clip: float = 0.0
    cosine: bool = False
    warmup: float = 0.0
    average: float = 0.0
    patience: int = 0
    stopping: float = 0.15
    seed: int = 1
    class_weights: Literal["none", "balanced"] = "none"
    mixed_precision: Literal["auto", "off", "float16", "bfloat16"] = "auto"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How it is measured: where probabilities and maps are cut, and in how many folds (0: on the held-out split).

    ``map_cut_off = "best"`` is where masks agree best with those of the readers (mean IoU) on the images measured.
    ``map_relative_cut_off`` is a share of a map's own highest value: of both cuts the higher counts.
    """

    cut_off: Literal["youden"] | float = "youden"
    map_cut_off: Literal["best"] | float = 0.5
    map_relative_cut_off: float = 0.0
    folds: int = 0


@dataclass(frozen=True, slots=True)
class Card:
    """What the model card says beside figures: what it is, where the data come from, and what it cannot do."""

    about: str = ""
    data: str = ""
    limits: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training of an architecture of the catalogue, complete.

    ``file`` is what the manifest names: the Keras network with its ONNX export beside it, or the export alone.
    ``serves = "lungs"``: a segmenter's maps are the lung fields of the pipeline, not findings.
    """

    name: str
    version: str
    title: str
    architecture: str
    data: Data
    network: Network
    schedule: Schedule
    augmentation: Augmentation = UNCHANGED
    evaluation: Evaluation = field(default_factory=Evaluation)
    card: Card = field(default_factory=Card)
    file: Literal["keras", "onnx"] = "keras"
    serves: Literal["findings", "lungs"] = "findings"

    @property
    def plan(self) -> Plan:
        """What the architecture is told."""
        network = self.network
        options: dict[str, Option] = dict(network.options)
        return Plan(
            self.architecture, network.size, self.data.labels, network.encoder, network.initial, network.width, options
        )


def read_recipe(path: Path, *, limit: int = 0, epochs: int = 0, folds: int = 0) -> Recipe:
    """Read and check the recipe in ``path``; ``limit``, ``epochs`` and ``folds`` above 0 replace what it says.

    Raises:
        RecipeError: the file is missing, is no TOML, or a key is unknown, missing, of the wrong type or out of range.
    """
    recipe = from_table(Recipe, read_table(path))
    recipe = replace(
        recipe,
        data=replace(recipe.data, limit=limit or recipe.data.limit),
        schedule=replace(recipe.schedule, epochs=epochs or recipe.schedule.epochs),
        evaluation=replace(recipe.evaluation, folds=folds or recipe.evaluation.folds),
    )
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    data, network, schedule, evaluation = recipe.data, recipe.network, recipe.schedule, recipe.evaluation
    cut = 0.5 if evaluation.cut_off == "youden" else evaluation.cut_off
    map_cut = 0.5 if evaluation.map_cut_off == "best" else evaluation.map_cut_off
    wrong = (
        (not _NAME.fullmatch(recipe.name), "name must be lower case letters, digits, '.', '_' and '-'"),
        (not all(map(_NAME.fullmatch, data.labels)), "data.labels must be lower case letters, digits, '.', '_', '-'"),
        (not set(data.classes) <= set(data.labels), "data.classes must name labels of data.labels"),
        (data.limit < 0, "data.limit must not be below 0"),
        (network.size < 16 or network.size % 16, "network.size must be a multiple of 16"),
        (not 0 < network.width <= 4, "network.width must lie above 0 and not above 4"),
        (min(schedule.epochs, schedule.batch) < 1, "schedule.epochs and schedule.batch must be at least 1"),
        (schedule.rate <= 0, "schedule.rate must be above 0"),
        (min(schedule.decay, schedule.clip) < 0, "schedule.decay and schedule.clip must not be below 0"),
        (schedule.warmup < 0, "schedule.warmup must not be below 0"),
        (not 0 <= schedule.average < 1, "schedule.average must lie between 0 and 1"),
        (schedule.warmup > 0 and not schedule.cosine, "schedule.warmup needs cosine = true"),
        (schedule.patience < 0, "schedule.patience must not be below 0"),
        (not 0 < schedule.stopping < 1, "schedule.stopping must lie between 0 and 1"),
        (not 0 < cut < 1, "evaluation.cut_off must be 'youden' or lie between 0 and 1"),
        (not 0 < map_cut < 1, "evaluation.map_cut_off must be 'best' or lie between 0 and 1"),
        (not 0 <= evaluation.map_relative_cut_off < 1, "evaluation.map_relative_cut_off must lie between 0 and 1"),
        (evaluation.folds < 0 or evaluation.folds == 1, "evaluation.folds must be 0 or at least 2"),
    )
    for mistaken, sentence in wrong:
        if mistaken:
            raise RecipeError(f"{recipe.name or 'recipe'}: {sentence}")
