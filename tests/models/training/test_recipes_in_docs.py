"""docs/models.md against the recipes: what its table names is there, and every recipe is in the table."""

from __future__ import annotations

import re
from pathlib import Path

from models.architectures import catalogue
from models.training.recipe import RECIPES, read_recipe

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE[PAGE.index("<!-- literature begin -->") :].splitlines()
    if line.startswith("| ") and line.count("|") == 8
][1:]
OURS = {path.stem: read_recipe(path) for path in RECIPES.glob("*.toml") if not path.stem.startswith("bundled-")}


def test_every_recipe_stands_in_the_table_and_every_row_has_one() -> None:
    full = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[3])}
    trials = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[4])}
    assert full | trials == set(OURS)
    assert all(name.endswith("-trial") for name in trials)
    assert not any(name.endswith("-trial") for name in full)


def test_a_trial_is_of_the_method_of_its_row() -> None:
    for row in ROWS:
        (trial,) = re.findall(r"`([^`]+)`", row[4])
        for name in re.findall(r"`([^`]+)`", row[3]):
            assert OURS[name].architecture == OURS[trial].architecture, name


def test_every_architecture_has_a_row() -> None:
    assert {OURS[name].architecture for row in ROWS for name in re.findall(r"`([^`]+)`", row[4])} == {
        name for name in catalogue.names() if not name.startswith(("efficientnet-", "fpn"))
    }


def test_every_figure_says_how_many_images_stand_behind_it() -> None:
    for row in ROWS:
        assert re.search(r"\d \([\d.]+ to [\d.]+\)", row[5]), row[1]
        assert re.search(r"\d+ of \d+", row[5]), row[1]
