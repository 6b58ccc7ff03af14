"""Recipes: what they may say, and that every one that comes with Pleura can be trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.architectures import catalogue  # noqa: E402
from models.architectures.base import Plan, check_plan  # noqa: E402
from models.training.datasets.read_dataset import names as layouts  # noqa: E402
from models.training.recipe import RECIPES, UNCHANGED, RecipeError, read_recipe  # noqa: E402

OURS = sorted(RECIPES.glob("*.toml"))
GOOD = """
name = "tiny"
version = "1"
title = "Tiny"
architecture = "simple-cnn"
[data]
labels = ["opacity", "normal"]
[data.classes]
opacity = ["lung_opacity", "mass"]
[network]
size = 64
[network.options]
dropout = 0.1
[schedule]
epochs = 3
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_every_recipe_here_asks_for_what_its_architecture_can_do(path: Path) -> None:
    recipe = read_recipe(path)
    architecture = catalogue.find(recipe.architecture)
    check_plan(architecture, recipe.plan)
    assert architecture.served(recipe.plan)
    assert bool(architecture.losses(recipe.plan)) is architecture.gradient
    assert recipe.name == path.stem.replace("bundled", "chest")
    assert recipe.data.layout in layouts()
    assert path.read_text().startswith("# "), "a recipe says what it is from and which data it needs"


def test_every_architecture_has_a_recipe_and_a_trial() -> None:
    recipes = [read_recipe(path) for path in OURS]
    for name in catalogue.names():
        if name.startswith(("efficientnet-", "fpn")):
            continue  # the bundled networks: their recipes are the ones that made them
        own = [recipe.name for recipe in recipes if recipe.architecture == name]
        assert any(item.endswith("-trial") for item in own), name
        assert any(not item.endswith("-trial") for item in own), name


def test_what_is_said_is_read(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, GOOD))
    assert recipe.data.classes == {"opacity": ("lung_opacity", "mass")}
    assert recipe.plan == Plan("simple-cnn", 64, ("opacity", "normal"), options={"dropout": 0.1})
    assert recipe.augmentation == UNCHANGED
    assert recipe.evaluation.cut_off == "youden"


def test_augmentation_is_off_but_for_what_is_named(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, GOOD + "[augmentation]\nflip = 0.5\n"))
    assert (recipe.augmentation.flip, recipe.augmentation.rotation, recipe.augmentation.gamma) == (0.5, 0.0, 0.0)


def test_a_command_can_shorten_a_trial_and_name_weights(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, GOOD), limit=20, epochs=1, folds=4, initial="imagenet")
    assert (recipe.data.limit, recipe.schedule.epochs, recipe.evaluation.folds) == (20, 1, 4)
    assert recipe.plan.initial == "imagenet"
    assert read_recipe(written(tmp_path, GOOD)).plan.initial == "random"


@pytest.mark.parametrize("cut_off", ['"youden"', "0.3"])
def test_a_cut_off_is_a_number_or_a_name(tmp_path: Path, cut_off: str) -> None:
    recipe = read_recipe(written(tmp_path, GOOD + f"[evaluation]\ncut_off = {cut_off}\n"))
    assert recipe.evaluation.cut_off in ("youden", 0.3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (('labels = ["opacity", "normal"]', 'labels = "opacity"'), "data.labels: must be a list, not 'opacity'"),
        (('labels = ["opacity", "normal"]', "labels = [1]"), "data.labels: must be text, not 1"),
        (
            ('labels = ["opacity", "normal"]', 'labels = ["Lung Opacity"]'),
            "data.labels: must be lower case",
        ),
        (('opacity = ["lung_opacity", "mass"]', 'mass = ["mass"]'), "data: classes.mass: classes must name labels"),
        (("dropout = 0.1", "dropout = [0.1]"), "network.options.dropout"),
        (("size = 64", "size = 65"), "multiple of 16"),
        (("size = 64", "size = 64\nwidth = 0"), "network.width"),
        (("epochs = 3", "epochs = 0"), "schedule.epochs"),
        (("epochs = 3", 'epochs = 3\noptimiser = "lion"'), "schedule.optimiser"),
        (("epochs = 3", "epochs = 3\npatience = -1"), "schedule.patience"),
        (("epochs = 3", "epochs = 3\nwarmup = 1.0"), "schedule.warmup needs cosine"),
        (("epochs = 3", "epochs = 3\naverage = 1.0"), "schedule.average"),
        (("epochs = 3", "epochs = 2.5"), "schedule.epochs"),
        (("size = 64", "size = true"), "network.size"),
        (('version = "1"', "version = 1"), "version"),
        (("epochs = 3", "epochs = 3\n[evaluation]\nmap_cut_off = 2.0"), "evaluation.map_cut_off"),
        (
            ("epochs = 3", 'epochs = 3\n[evaluation]\ncut_off = "best"'),
            "evaluation.cut_off: must be 'youden', not 'best' or a number",
        ),
        (("epochs = 3", "epochs = 3\n[evaluation]\ncut_off = 1.5"), "evaluation.cut_off"),
        (("epochs = 3", "epochs = 3\n[evaluation]\nfolds = 1"), "evaluation.folds"),
        (('name = "tiny"', 'name = "Tiny One"'), "name: must be lower case letters, .* not 'Tiny One'"),
        (("[schedule]\nepochs = 3", ""), "schedule: is missing"),
        (("[data]", "[data]\nlayouts = 1"), "data.layouts: there is no such key; did you mean `layout`"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(RecipeError, match=named):
        read_recipe(written(tmp_path, GOOD.replace(*change)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nowhere"):
        read_recipe(tmp_path / "nowhere.toml")
