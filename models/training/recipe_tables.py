"""TOML tables as frozen dataclasses: every key is checked, so that a misspelt option can never be ignored.

A field's annotation says what its key may hold: text, a whole number, a number, true or false, one of some words, a
list of texts, a table of one's own, or a table of named values.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class RecipeError(ValueError):
    """A recipe cannot be used; the message names the key."""


def read_table(path: Path) -> dict[str, Any]:
    """The TOML file ``path``.

    Raises:
        RecipeError: the file is missing or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from error


def from_table(kind: type[T], table: Mapping[str, Any], prefix: str = "") -> T:
    """Make the dataclass ``kind`` from a TOML table; ``prefix`` is where the table stands, for complaints.

    Raises:
        RecipeError: a key is unknown, missing or of the wrong type.
    """
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise RecipeError(f"{prefix}{key} is no option of a recipe; known here: {', '.join(sorted(fields))}")
    values: dict[str, Any] = {}
    for name, item in fields.items():
        if name in table:
            values[name] = _value(hints[name], table[name], prefix + name)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{prefix}{name} is missing")
    return kind(**values)


def _value(hint: Any, value: Any, name: str) -> Any:
    """Check one value against its annotation."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise RecipeError(f"{name} must be a table")
        return from_table(hint, value, name + ".")
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in inner:
            raise RecipeError(f"{name} is {value!r}; it must be one of {', '.join(map(str, inner))}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _one_of(inner, value, name)
    if origin is tuple:
        return _items(inner[0], value, name)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise RecipeError(f"{name} must be a table")
        return {key: _value(inner[1], item, f"{name}.{key}") for key, item in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise RecipeError(f"{name} is {value!r}; it must be of type {hint.__name__}")
    return value


def _items(hint: Any, value: Any, name: str) -> tuple[Any, ...]:
    """A list whose items are all of one type."""
    if not isinstance(value, list):
        raise RecipeError(f"{name} is {value!r}; it must be a list")
    return tuple(_value(hint, item, f"{name}[{place}]") for place, item in enumerate(value))


def _one_of(hints: tuple[Any, ...], value: Any, name: str) -> Any:
    """The first type that the value fits as it stands, then the first that takes it (a whole number for a number)."""
    for hint in sorted(hints, key=lambda hint: type(value) is not hint):
        try:
            return _value(hint, value, name)
        except RecipeError:
            continue
    words = [", ".join(map(str, typing.get_args(hint))) or getattr(hint, "__name__", str(hint)) for hint in hints]
    raise RecipeError(f"{name} is {value!r}; it must be {' or '.join(words)}")
