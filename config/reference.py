"""The documentation of the settings, made from the settings themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import tomli_w
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from config.settings import Settings


@dataclass(frozen=True, slots=True)
class Key:
    """One documented key: dotted name, default as TOML (empty where it has none) and what it means."""

    name: str
    default: str
    description: str
    in_list: bool

    @property
    def variable(self) -> str:
        """The environment variable that sets it; empty for keys inside a list of tables."""
        return "" if self.in_list else "PLEURA_" + self.name.upper().replace(".", "__")


def keys() -> list[Key]:
    """Every key of the configuration, in the order of the settings."""
    return list(_keys(Settings, "", in_list=False))


def _keys(model: type[BaseModel], prefix: str, *, in_list: bool) -> Iterator[Key]:
    for name, info in model.model_fields.items():
        part, inner = _part(info.annotation), f"{prefix}{name}"
        if part is None:
            yield Key(inner, _default(info), " ".join((info.description or "").split()), in_list)
        elif get_origin(info.annotation) is tuple:
            yield from _keys(part, f"{inner}[].", in_list=True)
        else:
            yield from _keys(part, f"{inner}.", in_list=in_list)


def _part(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined or info.default is None:
        return ""
    value = list(info.default) if isinstance(info.default, tuple) else info.default
    if isinstance(value, bool | int | float | list):
        return json.dumps(value)
    text = str(value)
    return f"'{text}'" if "\\" in text else json.dumps(text)


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
