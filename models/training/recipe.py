"""Recipes: everything that decides a training, in one TOML file that names an ``architecture`` of the catalogue.

Which answers of a data set are learnt, how large and wide the network is, how long and how fast it learns. A key that
does not exist, is missing or has the wrong type is an error that names it. Augmentation is off unless a recipe asks for
it, since most papers had none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from config.file import from_toml, read_toml
from config.section import TABLE
from models.architectures.base import Option, Plan
from models.model_spec import Fraction, Name, PoolingSpec, Share, Text

RECIPES = Path(__file__).parent / "recipes"
"""The recipes that come with Pleura."""

Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Least = Annotated[float, Field(ge=0)]


class RecipeError(ValueError):
    """A recipe cannot be used; the message names the file, the key and the mistake."""


def _folds(value: int) -> int:
    if value == 1:
        raise ValueError("must be 0, or 2 at least")
    return value


@dataclass(frozen=True, slots=True, config=TABLE)
class Augmentation:
    """Ranges of the random changes; zero switches one off."""

    rotation: Least = 0.0
    """Degrees, to either side."""
    scale: Least = 0.0
    """Zoom, in and out, as a logarithm (0.1: about 10 %)."""
    shift: Least = 0.0
    """Along each axis, as a fraction of the image's side."""
    aspect: Least = 0.0
    """Change of the proportions, as a logarithm."""
    flip: Share = 0.0
    """Probability of the mirror image."""
    gamma: Least = 0.0
    """Exponent of the grey values, as a logarithm."""
    contrast: Least = 0.0
    """Gain of the grey values, as a logarithm."""
    brightness: Least = 0.0
    """Offset of the grey values, as a fraction of their range."""
    equalise: Share = 0.0
    """Probability of a partial equalisation of the histogram."""
    sharpen: Share = 0.0
    """Probability of blur or edge enhancement."""
    noise: Least = 0.0
    """Largest standard deviation of the noise, as a fraction of the range of grey values."""
    collimate: Share = 0.0
    """Probability of a bar at an edge, as a collimator makes it."""
    marker: Share = 0.0
    """Probability of a lead marker."""


UNCHANGED = Augmentation()
"""No augmentation at all."""


@dataclass(frozen=True, slots=True, config=TABLE)
class Data:
    """What is learnt from which images."""

    labels: tuple[Name, ...]
    """The findings, in the order of the network's output."""
    layout: str = "auto"
    """Layout of the data set: cxr, readings, siim, rsna, nih, lungs, folders; auto detects it."""
    use: Literal["all", "positives"] = "all"
    """positives: train on images with one of the findings only. Evaluation always takes all."""
    equalise: Literal["none", "histogram", "clahe"] = "none"
    """Equalisation of the histogram, in training and serving alike."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For a label, the data set's own labels that mean it, where their names differ (opacity = ["lung_opacity"]). The
    label is present where any of them is."""
    boxes_as: Literal["filled", "ellipse"] = "filled"
    """What of a reader's box is learnt as the finding where masks are learnt and there is none: all of it, or the
    ellipse inside. Evaluation always takes the box."""
    weak: bool = False
    """Learn what is only likely of an image too (`labels.csv` has such)."""
    rare: bool = False
    """Keep labels of which there are not both positives and negatives; they ship in shadow."""
    limit: Whole = 0
    """About so many images, drawn at random from training and evaluation alike; 0: all."""

    @model_validator(mode="after")
    def _known(self) -> Data:
        for label in self.classes:
            if label not in self.labels:
                raise ValueError(f"classes.{label}: classes must name labels of data.labels")
        return self


@dataclass(frozen=True, slots=True, config=TABLE)
class Network:
    """How large the network is; see :class:`models.architectures.base.Plan`."""

    size: Annotated[int, Field(ge=16, multiple_of=16)]
    """Rows and columns of its input."""
    encoder: str = ""
    """Encoder of an architecture that has several."""
    initial: str = "random"
    """Weights to start from: random, imagenet, or a file."""
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Scales the number of filters; 1: as published."""
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """The architecture's own options."""


@dataclass(frozen=True, slots=True, config=TABLE)
class Schedule:
    """How it learns."""

    epochs: Positive
    """Times that every image is seen."""
    batch: Positive = 16
    """Images in a step."""
    rate: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate."""
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = "adam"
    """Optimiser."""
    decay: Least = 0.0
    """Weight decay of adamw."""
    clip: Least = 0.0
    """Bounds the norm of the gradient; 0: nothing does."""
    cosine: bool = False
    """The rate falls to zero along a cosine."""
    warmup: Least = 0.0
    """Epochs over which the rate rises first; needs cosine."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Above 0: end with a running average of the last steps' weights (what of it is kept in each step)."""
    patience: Whole = 0
    """Above 0: stop when the loss on set-aside training patients has not fallen for so many epochs, and keep the best
    epoch's weights."""
    stopping: Fraction = 0.15
    """The share of those patients."""
    seed: int = 1
    """Everything random follows from it."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: positives and negatives of each label weigh the same."""
    mixed_precision: Literal["auto", "off", "float16", "bfloat16"] = "auto"
    """auto: bfloat16 on a GPU, float32 elsewhere."""

    @model_validator(mode="after")
    def _consistent(self) -> Schedule:
        if self.warmup > 0 and not self.cosine:
            raise ValueError("schedule.warmup needs cosine = true")
        return self


@dataclass(frozen=True, slots=True, config=TABLE)
class Evaluation:
    """How it is measured."""

    cut_off: Literal["youden"] | Fraction = "youden"
    """Where probabilities are cut: at the best Youden index, or here."""
    map_cut_off: Literal["best"] | Fraction = 0.5
    """Where maps are cut: here, or where masks agree best with those of the readers (mean IoU)."""
    map_relative_cut_off: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A share of a map's own highest value at which it is cut, too: the higher of the two cuts counts."""
    pooling: PoolingSpec = field(default_factory=PoolingSpec)
    """Only for segmenters: how a map becomes the image's probability."""
    folds: Annotated[int, Field(ge=0), AfterValidator(_folds)] = 0
    """Folds of a cross-validation by patient; 0: measured on the held-out split."""


@dataclass(frozen=True, slots=True, config=TABLE)
class Card:
    """What the model card says beside figures."""

    about: str = ""
    """What the model is."""
    data: str = ""
    """Where the data come from."""
    limits: str = ""
    """What the model cannot do."""


@dataclass(frozen=True, slots=True, config=TABLE)
class Recipe:
    """One training of an architecture of the catalogue, complete."""

    name: Name
    """Name of the model that it makes."""
    version: Text
    """Its version."""
    title: Text
    """Its name for people."""
    architecture: Text
    """An architecture of the catalogue (docs/models.md); a wrong name lists them all."""
    data: Data
    """What is learnt from which images."""
    network: Network
    """How large the network is."""
    schedule: Schedule
    """How it learns."""
    augmentation: Augmentation = UNCHANGED
    """Random changes of the images in training."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """How it is measured."""
    card: Card = field(default_factory=Card)
    """What its model card says."""
    file: Literal["keras", "onnx"] = "keras"
    """What the manifest names: the Keras network with its ONNX export beside it, or the export alone."""
    serves: Literal["findings", "lungs"] = "findings"
    """What a segmenter's maps are: findings, or the lung fields of the pipeline."""
    lesions: bool = False
    """Only of a segmenter: each connected region of its mask is a lesion of its own."""
    place_of: str = ""
    """Only of a segmenter: the model whose findings of the same names get its places."""
    replaces: str = ""
    """The model whose findings of the same names are only stored while this one's are sent."""
    cut_offs: Mapping[str, Fraction] = field(default_factory=dict)
    """Where single labels are cut, in the place of evaluation.cut_off (cut_offs.abnormal = 0.7)."""
    calibrated: bool = False
    """Of a segmenter, or of a classifier without members: the manifest scales its probabilities (Platt), as fitted on
    unseen patients."""

    @property
    def plan(self) -> Plan:
        """The part of the recipe that an architecture gets."""
        network = self.network
        options: dict[str, Option] = dict(network.options)
        return Plan(
            self.architecture, network.size, self.data.labels, network.encoder, network.initial, network.width, options
        )


def read_recipe(path: Path, *, limit: int = 0, epochs: int = 0, folds: int = 0, initial: str = "") -> Recipe:
    """Read and check the recipe in ``path``; what is above 0, or named, of the others replaces what it says.

    Raises:
        RecipeError: the file is missing, is no TOML, or a key is unknown, missing, of the wrong type or out of range.
    """
    values = read_toml(path, RecipeError)
    given = (("data", "limit", limit), ("schedule", "epochs", epochs), ("evaluation", "folds", folds))
    for name, key, value in (*given, ("network", "initial", initial)):
        if value and isinstance(table := values.setdefault(name, {}), dict):
            table[key] = value
    return from_toml(Recipe, values, path, RecipeError)
