from pathlib import Path

import pytest

from models.training.recipe import RECIPES, read_recipe
from models.training.recipe_tables import RecipeError

GOOD = """
name = "tiny"
version = "1"
title = "Tiny"
kind = "classifier"
[network]
family = "efficientnet"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("bundled-*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_a_bundled_model_can_be_read(path: Path) -> None:
    assert read_recipe(path).name


def test_defaults_fill_what_is_not_said(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path, GOOD)).network.size == 256


def test_a_whole_number_is_good_enough_for_a_fraction(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, GOOD + "[schedule]\nrate = 1\n"))
    assert recipe.schedule.rate == 1.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("[network]", "colour = 1\n[network]"), "colour"),
        (('family = "efficientnet"', 'family = "efficientnet"\nsizes = 3'), "network.sizes"),
        (('family = "efficientnet"', 'family = "resnet"'), "network.family"),
        (('family = "efficientnet"', 'family = "efficientnet"\nsize = "big"'), "network.size"),
        (('family = "efficientnet"', 'family = "efficientnet"\nsize = 250'), "multiple of 32"),
        (('family = "efficientnet"', 'family = "efficientnet"\nsize = true'), "network.size"),
        (('name = "tiny"', ""), "name is missing"),
        (('version = "1"', "version = 1"), "version"),
        (("[network]", "[schedule]\nepochs = 0\n[network]"), "epochs"),
        (("[network]", "[schedule]\nepochs = 2.5\n[network]"), "schedule.epochs"),
        (('kind = "classifier"', 'kind = "classifier"\nweights = 3'), "weights must be a table"),
        (('name = "tiny"', 'name = "tiny'), "recipe.toml"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        read_recipe(written(tmp_path, GOOD.replace(*change)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nowhere"):
        read_recipe(tmp_path / "nowhere.toml")
