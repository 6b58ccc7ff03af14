"""The environment variables of a node: settings, files of secrets, and what Kubernetes sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from config.secret import read_secret

PREFIX = "PLEURA_"
_FILE = "_FILE"
# What Kubernetes sets in every container for a Service called pleura or pleura-admin ("Environment variables" under
# Services in its documentation). The port is told from a misspelt setting by its value.
_SERVICE = re.compile(r"([A-Z0-9_]*_)?(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_SERVICE_PORT = re.compile(r"(tcp|udp|sctp)://")


def misspelt(environment: Mapping[str, str], model: type[BaseModel], others: frozenset[str]) -> str | None:
    """The first variable that looks like a setting of ``model`` and is none, beside ``others``."""
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in others or _is_of_kubernetes(name.removeprefix(PREFIX), value):
            continue
        path = _path(name.removeprefix(PREFIX))
        if _field(model, path[:2]) is None and _secret_path(name, model) is None:
            return name
    return None


def meant(name: str, model: type[BaseModel]) -> str:
    """What was probably meant by a misspelt variable, or where all of them are listed."""
    close = get_close_matches(name, list(_variables(model, PREFIX)), n=1)
    return f"did you mean {close[0]}?" if close else "see docs/configuration.md"


def _variables(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for key, info in model.model_fields.items():
        part = info.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield from _variables(part, f"{prefix}{key.upper()}__")
        else:
            yield f"{prefix}{key.upper()}"


def with_secrets_read(environment: Mapping[str, str | None], model: type[BaseModel]) -> dict[str, str | None]:
    """The environment in which each secret whose variable names a file has the text of that file.

    Names are compared without case.

    Raises:
        ValueError: the file cannot be read, or the secret itself is set, too.
    """
    known = {name.upper(): value for name, value in environment.items()}
    for name in list(known):
        if _secret_path(name, model) is not None:
            secret = name.removesuffix(_FILE)
            if secret in known:
                raise ValueError(f"environment variables {secret} and {name} are both set")
            try:
                known[secret] = read_secret(Path(known.pop(name) or ""))
            except ValueError as error:
                raise ValueError(f"environment variable {name}: {error}") from None
    return known


def _secret_path(name: str, model: type[BaseModel]) -> tuple[str, ...] | None:
    """The keys of the secret whose file the variable ``name`` gives; None where it does no such thing."""
    if not name.startswith(PREFIX) or not name.endswith(_FILE):
        return None
    path = _path(name.removeprefix(PREFIX).removesuffix(_FILE))
    field = _field(model, path)
    return path if field is not None and _holds(field.annotation, SecretStr) else None


def _path(name: str) -> tuple[str, ...]:
    return tuple(name.lower().split("__"))


def _field(model: type[BaseModel], path: tuple[str, ...]) -> FieldInfo | None:
    field = model.model_fields.get(path[0])
    if field is None or len(path) == 1:
        return field
    part = field.annotation
    return _field(part, path[1:]) if isinstance(part, type) and issubclass(part, BaseModel) else None


def _holds(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_holds(each, kind) for each in get_args(annotation))


def _is_of_kubernetes(name: str, value: str) -> bool:
    if _SERVICE.fullmatch(name):
        return True
    return re.fullmatch(r"([A-Z0-9_]*_)?PORT", name) is not None and _SERVICE_PORT.match(value) is not None
