"""Programs and data of others that a test may need: what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SHARED_DATA = "shared-data"
_REPOSITORY = Path(__file__).resolve().parent.parent
_LIST = Path(__file__).with_name("peers.txt")


def shared_data_folder() -> Path:
    """Where real radiographs lie, if this machine has them."""
    return Path(os.environ.get("SHARED_DATA", _REPOSITORY.parent / "shared" / "data"))


def skip_without(reason: str, *, module: bool = False) -> None:
    """Skip what needs something that is missing, as ``reason`` says; in CI, where everything is installed, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI every peer must be there: {reason}", pytrace=False)
    pytest.skip(reason, allow_module_level=module)


def skip_without_peers(*peers: str) -> None:
    """Skip a test that needs these programs, or :data:`SHARED_DATA`."""
    for peer in peers:
        if reason := missing(peer):
            skip_without(reason)


def missing(peer: str) -> str | None:
    """Say what is missing for ``peer`` and how to get it, or None."""
    if peer == SHARED_DATA:
        folder = shared_data_folder()
        found = (folder / "README.md").is_file()
        return None if found else f"real radiographs are not in {folder}: set SHARED_DATA to a folder that has them"
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *map(str, _postgresql_folders())])
    return None if shutil.which(peer, path=path) else f"{peer} is missing: `make peers` installs it ({package(peer)})"


def package(program: str) -> str:
    """The Debian package that brings ``program``, by ``tests/peers.txt``.

    Raises:
        LookupError: The list does not name the program.
    """
    for line in _LIST.read_text(encoding="utf-8").splitlines():
        name, *programs = line.partition("#")[0].split() or [""]
        if program in programs:
            return f"Debian's {name}"
    raise LookupError(f"{program} is not in {_LIST.name}")


def _postgresql_folders() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))
