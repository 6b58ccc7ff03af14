"""The documentation of the settings, made from the settings themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import SecretStr

from config.settings import Settings

Schema = Mapping[str, Any]

_BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
_MASK = "**********"
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*(?=@)|(?<=\?)\S+")
"""User and password, and the query, of a URL in a setting that is no secret as a whole (RFC 3986 3.2.1, 3.4)."""
_NAMES = ("name", "ae_title")
"""Keys that name an entry of a list of tables."""
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
    # Some versions of pydantic write a bound of a float as 1.0, others as 1.
    bounds = [
        f"{word} {int(kind[key]) if kind[key] == int(kind[key]) else kind[key]}"
        for key, word in _BOUNDS.items()
        if key in kind
    ]
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


def effective(settings: Settings) -> dict[str, Any]:
    """``settings`` as plain values with secrets masked; keys without a value are left out."""
    found: dict[str, Any] = _plain(settings.model_dump())
    return found


def effective_toml(settings: Settings) -> str:
    """The same as TOML."""
    return tomli_w.dumps(effective(settings))


def effective_values(settings: Settings) -> dict[str, str]:
    """Every key that has a value, dotted as in :func:`differences`, with its value as TOML; secrets are masked."""
    values = _values(settings.model_dump(), "")
    return {key: _shown(value) for key, value in values if value is not None}


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that two configurations set differently: the values as TOML, secrets masked; empty where there is none."""

    key: str
    before: str
    after: str


def differences(before: Settings, after: Settings) -> tuple[Difference, ...]:
    """What differs, in the order of the settings; entries of lists go by their name: ``destinations.pacs.port``."""
    one, other = (dict(_values(settings.model_dump(), "")) for settings in (before, after))
    changed = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return tuple(Difference(key, _shown(one.get(key)), _shown(other.get(key))) for key in changed)


def _values(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every value with its dotted key."""
    inner = dict(value) if isinstance(value, dict) else {}
    if isinstance(value, list | tuple) and value and all(isinstance(one, dict) for one in value):
        names = [next((str(one[key]) for key in _NAMES if one.get(key)), "") for one in value]
        alone = [bool(name) and names.count(name) == 1 for name in names]
        inner = {names[at] if alone[at] else str(at + 1): one for at, one in enumerate(value)}
    if not inner:
        yield prefix, value
    for key, one in inner.items():
        yield from _values(one, f"{prefix}.{key}" if prefix else str(key))


def _shown(value: Any) -> str:
    return "" if value is None else json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, SecretStr):
        return _MASK
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, str):
        return _CREDENTIALS.sub(_MASK, value) if "://" in value else value
    return value if isinstance(value, bool | int | float) else str(value)
