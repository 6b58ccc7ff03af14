"""What the configuration file says: its relative paths, and its mistakes told by the names of the entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Values = Mapping[str, Any]

# What pydantic says in its own words, and how an admin would be told; {keys} are of the error's context.
_WORDS = {
    "missing": "is missing",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "string_too_long": "is longer than {max_length} characters",
    "string_too_short": "must not be empty",
}
_SHOWN = ("greater_than", "less_than", "literal", "int_", "float_", "bool_", "enum")
"""Beginnings of the kinds of errors whose value is quoted; a secret is never among them."""


def resolve_paths(values: Values, model: type[BaseModel], folder: Path) -> dict[str, Any]:
    """``values`` with every relative path below ``folder``, the folder of the file, defaults included."""
    found = dict(values)
    for name, info in model.model_fields.items():
        part, given = part_of(info), values.get(name)
        if part is not None and isinstance(given, list):
            found[name] = [resolve_paths(one, part, folder) if isinstance(one, dict) else one for one in given]
        elif part is not None and (given is None or isinstance(given, dict)):
            inner = resolve_paths(given or {}, part, folder) if _is_table(info) else {}
            found |= {name: inner} if inner else {}
        elif Path in (info.annotation, *get_args(info.annotation)):
            path = info.default if given is None else given
            found |= {name: str(folder / path)} if isinstance(path, str | Path) and path != "" else {}
    return found


def part_of(info: FieldInfo) -> type[BaseModel] | None:
    """The class of a table, or of the entries of a list of tables; None where a field is a value."""
    for candidate in (info.annotation, *get_args(info.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _is_table(info: FieldInfo) -> bool:
    return isinstance(info.annotation, type)


def mistakes(error: ValidationError, model: type[BaseModel], values: Values) -> str:
    """All mistakes in one sentence each: the entry by its name, what is wrong, and what was probably meant."""
    return "; ".join(dict.fromkeys(_mistake(item, model, values) for item in error.errors()))


def _mistake(item: Any, model: type[BaseModel], values: Values) -> str:
    said = _said(item)
    if item["type"] == "extra_forbidden":
        said = "there is no such key" + _meant(str(item["loc"][-1]), _keys_at(item["loc"][:-1], model))
    return ": ".join(part for part in (*_place(item["loc"], model, values), said) if part)


def _place(loc: Sequence[int | str], model: type[BaseModel], values: Any) -> tuple[str, str]:
    """Where an error is: the entry of a list of tables by kind and name (``destination `pacs```), and the key."""
    entry, keys, info = "", list[str](), None
    for step in loc:
        values = _inside(values, step)
        part = part_of(info) if info is not None else None
        if isinstance(step, str):
            model = part or model
            info = model.model_fields.get(step)
            keys.append(step)
        elif part is not None:
            entry = ".".join([*keys[:-1], f"{part.__name__.lower()} {_name(values) or step + 1}"])
            keys = []
    return entry, ".".join(keys)


def _inside(values: Any, step: int | str) -> Any:
    try:
        return values[step]
    except (KeyError, IndexError, TypeError):
        return None


def _name(entry: Any) -> str:
    name = entry.get("name") or entry.get("ae_title") if isinstance(entry, Mapping) else None
    return f"`{name}`" if name else ""


def _keys_at(loc: Sequence[int | str], model: type[BaseModel]) -> Sequence[str]:
    for step in loc:
        if isinstance(step, str) and step in model.model_fields:
            model = part_of(model.model_fields[step]) or model
    return list(model.model_fields)


def _said(item: Any) -> str:
    context = item.get("ctx", {})
    if item["type"] == "value_error":
        return str(context["error"])
    words = _WORDS.get(item["type"])
    text = words.format(**context) if words else str(item["msg"])[:1].lower() + str(item["msg"])[1:]
    if not item["type"].startswith(_SHOWN) or not isinstance(item["input"], str | int | float):
        return text
    allowed = str(context.get("expected", "")).replace(" or ", ", ").split(", ")
    meant = _meant(str(item["input"]), [one.strip("'") for one in allowed]) if allowed != [""] else ""
    return f"{text}, not {item['input']!r}{meant}"


def _meant(given: str, known: Sequence[str]) -> str:
    close = get_close_matches(given, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""
