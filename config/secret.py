"""Secrets: a setting whose value is never printed, and which may stand in a file of its own.

In TOML a secret is text, ``{ file = "/run/secrets/db" }`` (Compose, Kubernetes, Vault agent) or
``{ credential = "db" }`` (systemd's ``LoadCredential=``). In the environment, the name of any secret with ``_FILE`` at
its end names such a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr

_CREDENTIALS = "CREDENTIALS_DIRECTORY"
_LARGEST = 64 * 1024


def _text(value: Any) -> Any:
    """The text of a secret that names a file or a systemd credential; anything else as it is."""
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"file"}:
        return read_secret(Path(str(value["file"])))
    if set(value) == {"credential"}:
        folder = os.environ.get(_CREDENTIALS)
        if not folder:
            raise ValueError(f"${_CREDENTIALS} is not set: systemd sets it for a unit with LoadCredential=")
        return read_secret(Path(folder) / Path(str(value["credential"])).name)
    raise ValueError('a secret is text, { file = "/path" } or { credential = "name" }')


def read_secret(path: Path) -> str:
    """The file's text without the line break at its end.

    Raises:
        ValueError: the path is not absolute, or names no file with text.
    """
    if not path.is_absolute():
        raise ValueError(f"the file of a secret needs an absolute path, not {path}")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST).rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"the file of a secret, {path}, is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"the file of a secret cannot be read: {error.strerror}: {path}") from None
    if not text:
        raise ValueError(f"the file of a secret, {path}, is empty")
    return text


Secret = Annotated[SecretStr, BeforeValidator(_text)]
"""Text that is masked wherever it is printed."""
