"""The documentation of the settings, made from the settings themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import SecretStr

from config.settings import Settings

Schema = Mapping[str, Any]

_BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}


@dataclass(frozen=True, slots=True)
class Key:
    """One documented key: dotted name, what it may hold, default as TOML (empty: it has none) and what it means."""

    name: str
    allowed: str
    default: str
    description: str
    in_list: bool
    required: str = ""
    """always, or in its table where that may be missing; empty: it may be missing."""

    @property
    def variable(self) -> str:
        """The environment variable that sets it; empty for keys inside a list of tables."""
        return "" if self.in_list else "PLEURA_" + self.name.upper().replace(".", "__")


def keys() -> list[Key]:
    """Every key of the configuration, in the order of the settings."""
    return list(keys_of(Settings.model_json_schema()))


def keys_of(schema: Schema) -> Iterator[Key]:
    """Every key that a JSON schema of pydantic describes, in its order."""
    yield from _keys(schema, schema, "", in_list=False, needed="always")


def _keys(table: Schema, root: Schema, prefix: str, *, in_list: bool, needed: str) -> Iterator[Key]:
    for name, field in table["properties"].items():
        kinds = [each for each in alternatives(field, root) if each.get("type") != "null"]
        inner, required = f"{prefix}{name}", needed if name in table.get("required", ()) else ""
        below = required or "in its table"
        items = [each for kind in kinds if "items" in kind for each in alternatives(kind["items"], root)]
        if tables := [each for each in kinds if "properties" in each]:
            yield from _keys(tables[0], root, f"{inner}.", in_list=in_list, needed=below)
        elif listed := [each for each in items if "properties" in each]:
            yield from _keys(listed[0], root, f"{inner}[].", in_list=True, needed=below)
        else:
            description = " ".join(field.get("description", "").split())
            allowed = " or ".join(_allowed(each, root) for each in kinds)
            yield Key(inner, allowed, _default(field.get("default")), description, in_list, required)


def alternatives(schema: Schema, root: Schema) -> Iterator[Schema]:
    """What a value may be: the schema itself, or each kind that it allows, with references followed into ``root``."""
    if "$ref" in schema:
        schema = {**root["$defs"][schema["$ref"].rsplit("/", 1)[1]], **schema}
        yield {key: value for key, value in schema.items() if key != "$ref"}
    elif "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from alternatives(each, root)
    else:
        yield schema


def _allowed(kind: Schema, root: Schema) -> str:
    """What a key may hold, in a few words."""
    if words := kind.get("enum") or ([kind["const"]] if "const" in kind else []):
        return ", ".join(map(str, words))
    match kind.get("type"):
        case "array" if "prefixItems" in kind:
            return f"list of {len(kind['prefixItems'])}, each {_any(kind['prefixItems'][0], root)}"
        case "array":
            return f"list, each {_any(kind['items'], root)}"
        case "object":
            return f"table, each {_any(kind['additionalProperties'], root)}"
    bounds = [f"{word} {kind[key]}" for key, word in _BOUNDS.items() if key in kind]
    bounds += [f"a multiple of {kind['multipleOf']}"] if "multipleOf" in kind else []
    bounds += [f"{kind['maxLength']} characters at most"] if "maxLength" in kind else []
    return " ".join([_TYPES.get(str(kind.get("type")), "any value"), *bounds])


def _any(field: Any, root: Schema) -> str:
    kinds = [each for each in alternatives(field, root) if each.get("type") != "null"]
    return " or ".join(_allowed(each, root) for each in kinds) if isinstance(field, Mapping) else "any value"


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and "\\" in value:
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False)


def markdown_table() -> str:
    """The table of ``docs/configuration.md``."""
    lines = ["| key | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for key in keys():
        variable = f"`{key.variable}`" if key.variable else ""
        default = f"`{key.default}`".replace("|", "\\|") if key.default else ""
        lines.append(f"| `{key.name}` | {variable} | {default} | {key.description} |")
    return "\n".join(lines) + "\n"


def commented_toml() -> str:
    """The text of ``config/default.toml``: every key with its default, and what it means above it."""
    lines = ["# Every setting of Pleura with its default. Made by `pleura config --template`; a test keeps it true."]
    section = ""
    # Lists of tables come last: TOML takes up no table again once another has begun.
    for key in sorted(keys(), key=lambda key: key.in_list):
        parts, _, name = key.name.rpartition(".")
        if parts != section:
            section = parts
            lines += ["", f"# [[{parts.replace('[]', '')}]]" if key.in_list else f"[{parts}]"]
        commented = key.in_list or not key.default
        lines += [f"# {key.description}", f"{'# ' if commented else ''}{name} = {key.default}".rstrip()]
    return "\n".join(lines) + "\n"


def effective_toml(settings: Settings) -> str:
    """``settings`` as TOML with secrets masked; keys without a value are left out."""
    return tomli_w.dumps(_plain(settings.model_dump()))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, SecretStr):
        return "**********"
    if isinstance(value, Path):
        return str(value.absolute())
    return value if isinstance(value, bool | int | float | str) else str(value)
