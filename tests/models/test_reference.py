"""The reference of manifests and recipes is the models themselves."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from click.testing import CliRunner
from pydantic import TypeAdapter

from config.reference import keys_of
from models.manifest import Manifest, parse_manifest
from models.reference import manifest_table, recipe_table
from models.training.recipe import Recipe
from node.cli.main import cli

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "manifests.md").read_text(encoding="utf-8")


def test_every_key_is_described() -> None:
    for kind in (Manifest, Recipe):
        assert [key.name for key in keys_of(TypeAdapter(kind).json_schema()) if not key.description] == []


def test_the_page_holds_every_key() -> None:
    for table in (manifest_table(), recipe_table()):
        assert table in PAGE, "`make reference` writes it"
    assert CliRunner().invoke(cli, ["models", "keys"]).stdout == f"{manifest_table()}\n{recipe_table()}"


def test_what_is_allowed_and_needed_is_told() -> None:
    keys = {key.name: key for key in keys_of(TypeAdapter(Manifest).json_schema())}
    assert keys["model.kind"].allowed == "gate, classifier, segmenter, detector, lungs, findings"
    assert keys["input.height"].allowed == "whole number from 16 to 4096"
    assert keys["input.value_range"].allowed == "list of 2, each number"
    assert (keys["labels[].name"].required, keys["labels[].name"].in_list) == ("always", True)
    assert keys["labels[].site.value"].required == "in its table"
    assert keys["model.card"].required == ""


def test_the_example_on_the_page_is_a_manifest() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    spec = parse_manifest(tomllib.loads(example), Path("/models/network.toml"))
    assert (spec.columns, [label.name for label in spec.labels]) == (("normal", "pneumonia"), ["pneumonia"])
