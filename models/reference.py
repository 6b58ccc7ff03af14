"""Every key of manifests and recipes, from the JSON schema of their models: the tables of ``docs/manifests.md``."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import TypeAdapter

from config.reference import keys_of
from models.manifest import Manifest
from models.remote.findings_protocol import MESSAGES
from models.training.recipe import Recipe


def manifest_table() -> str:
    """The table of every key of a manifest, in Markdown."""
    return _table(Manifest)


def recipe_table() -> str:
    """The table of every key of a recipe, in Markdown."""
    return _table(Recipe)


def findings_tables() -> str:
    """The keys of each message of the findings protocol (``docs/findings-protocol.md``), in Markdown."""
    return "\n".join(f"**{each.__name__}**: {inspect.getdoc(each)}\n\n{_table(each)}" for each in MESSAGES)


def _table(kind: type[Any]) -> str:
    lines = ["| key | may be | default | meaning |", "| --- | --- | --- | --- |"]
    for key in keys_of(TypeAdapter(kind).json_schema()):
        default = f"`{key.default}`" if key.default else ""
        if key.required:
            default = "*required*" if key.required == "always" else f"*required {key.required}*"
        lines.append(f"| `{key.name}` | {key.allowed} | {default} | {key.description} |")
    return "\n".join(lines) + "\n"
