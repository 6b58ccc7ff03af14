"""TOML files of settings, manifests and recipes: reading, relative paths, and errors that name the entry."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

T = TypeVar("T")
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
    "too_short": "must not be empty",
    "finite_number": "must be a finite number",
    "multiple_of": "must be a multiple of {multiple_of}",
    "dataclass_type": "must be a table",
    "dict_type": "must be a table",
}
_SHOWN = ("greater_than", "less_than", "literal", "int_", "float_", "bool_", "enum")
"""Beginnings of the kinds of errors whose value is quoted; a secret is never among them."""


def read_toml(path: Path, error: type[ValueError]) -> dict[str, Any]:
    """The TOML file ``path``.

    Raises:
        ValueError: of the class ``error``, where it cannot be read or is not valid TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as caught:
        raise error(f"{path} is not valid TOML: {caught}") from caught
    except (OSError, UnicodeDecodeError) as caught:
        raise error(f"{path}: cannot be read ({caught})") from caught


def from_toml(kind: type[T], values: Values, where: Path, error: type[ValueError]) -> T:
    """Make ``kind`` from the parsed TOML file ``where``; strict tables are of :data:`config.section.TABLE`.

    Raises:
        ValueError: of the class ``error``, with file, key, value and what is wrong, for every mistake.
    """
    try:
        # JSON has the types of TOML but for its dates, and the lists of strict JSON may become tuples.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except ValidationError as caught:
        raise error(f"{where}: {mistakes(caught, kind, values, quoted=True)}") from caught


def resolve_paths(values: Values, model: type[BaseModel], folder: Path) -> dict[str, Any]:
    """``values`` with every relative path below ``folder``, the folder of the file, defaults included."""
    found = dict(values)
    for name, info in model.model_fields.items():
        part, given = part_of(info.annotation), values.get(name)
        if part is not None and isinstance(given, list):
            found[name] = [resolve_paths(one, part, folder) if isinstance(one, dict) else one for one in given]
        elif part is not None and (given is None or isinstance(given, dict)):
            inner = resolve_paths(given or {}, part, folder) if _is_table(info) else {}
            found |= {name: inner} if inner else {}
        elif Path in (info.annotation, *get_args(info.annotation)):
            path = info.default if given is None else given
            found |= {name: str(folder / path)} if isinstance(path, str | Path) and path != "" else {}
    return found


def part_of(annotation: Any) -> type[Any] | None:
    """The class of a table, or of the entries of a list of tables; None where a field is a value."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return annotation
    return next((part for inner in get_args(annotation) if (part := part_of(inner)) is not None), None)


def _fields(model: type[Any]) -> dict[str, Any]:
    """The annotation of each key of a table."""
    return {name: hint for name, hint in get_type_hints(model).items() if not name.startswith(("_", "model_"))}


def _is_table(info: FieldInfo) -> bool:
    return isinstance(info.annotation, type)


def mistakes(error: ValidationError, model: type[Any], values: Values, *, quoted: bool = False) -> str:
    """All mistakes in one sentence each: the entry by its name, what is wrong, and what was probably meant.

    ``quoted`` repeats every value, which no file with secrets may do.
    """
    found: dict[str, list[str]] = {}
    for item in error.errors():
        message = _message(item, quoted)
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            message = "there is no such key" + _meant(str(item["loc"][-1]), _keys_at(item["loc"][:-1], model))
        place = ": ".join(part for part in _place(item["loc"], model, values) if part)
        found.setdefault(place, []).append(message)
    return "; ".join(": ".join(part for part in (place, _ways(message)) if part) for place, message in found.items())


def _ways(messages: Sequence[str]) -> str:
    """What is said of one value: the ways in which it could have been right, where it may be of several kinds."""
    first, *others = dict.fromkeys(messages)
    return " or ".join([first, *(each.removeprefix("must be ") for each in others)])


def _place(loc: Sequence[int | str], model: type[Any], values: Any) -> tuple[str, str]:
    """Where an error is: the entry of a list of tables by kind and name (``destination `pacs```), and the key.

    Where a value may be of several kinds, pydantic names each of them at the end of ``loc``; those are no keys.
    """
    entry, keys, hint = "", list[str](), None
    for step in loc:
        part = part_of(hint)
        if isinstance(step, str):
            model = part or model
            if step not in (known := _fields(model)) and _inside(values, step) is None:
                break
            hint = known.get(step)
            keys.append(step)
        elif part is not None:
            one = f"{keys[-1].removesuffix('s')} {_name(_inside(values, step)) or step + 1}"
            entry, keys = ".".join([*keys[:-1], one]), []
        values = _inside(values, step)
    return entry, ".".join(keys)


def _inside(values: Any, step: int | str) -> Any:
    try:
        return values[step]
    except (KeyError, IndexError, TypeError):
        return None


def _name(entry: Any) -> str:
    name = entry.get("name") or entry.get("ae_title") if isinstance(entry, Mapping) else None
    return f"`{name}`" if name else ""


def _keys_at(loc: Sequence[int | str], model: type[Any]) -> Sequence[str]:
    for step in loc:
        if isinstance(step, str) and step in (known := _fields(model)):
            model = part_of(known[step]) or model
    return list(_fields(model))


def _message(item: Any, quoted: bool) -> str:
    context = item.get("ctx", {})
    pattern = _WORDS.get(item["type"])
    text = pattern.format(**context) if pattern else str(item["msg"])[:1].lower() + str(item["msg"])[1:]
    if item["type"] == "value_error":
        text = str(context["error"])
    shown = (quoted and item["type"] != "missing") or item["type"].startswith(_SHOWN)
    if not shown or not isinstance(item["input"], str | int | float):
        return text
    allowed = str(context.get("expected", "")).replace(" or ", ", ").split(", ")
    meant = _meant(str(item["input"]), [one.strip("'") for one in allowed]) if allowed != [""] else ""
    return f"{text}, not {item['input']!r}{meant}"


def _meant(given: str, known: Sequence[str]) -> str:
    close = get_close_matches(given, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""
