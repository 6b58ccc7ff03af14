"""Imported first by all entry points: reports a foreign module that hides one of Pleura's packages.

Pleura's packages have short names. A ``config.py`` in the folder of a script, or in ``PYTHONPATH``, comes before an
installed package, and Python would only say that 'config' is not a package.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("node", "workers", "models", "db", "config")
_ROOT = Path(__file__).resolve().parents[1]


class HiddenPackageError(ImportError):
    """A foreign module has the name of one of Pleura's packages and comes before it; the message says which."""


def check_own_packages() -> None:
    """Look for each of Pleura's packages where Python would, without importing it.

    Raises:
        HiddenPackageError: it would find another module, or none.
    """
    for name in PACKAGES:
        spec = find_spec(name)
        folders = [*(spec.submodule_search_locations or ())] if spec is not None else []
        if [Path(folder).resolve() for folder in folders[:1]] != [_ROOT / name]:
            other = (spec.origin or ", ".join(folders)) if spec is not None else "nothing"
            raise HiddenPackageError(_hidden(name, other))


def _hidden(name: str, other: str) -> str:
    return (
        f"{other} is found in the place of Pleura's own package '{name}' ({_ROOT / name}). Rename it, or"
        " start Python so that its folder is not searched first: from another folder, without it in PYTHONPATH, or"
        " with python -P"
    )


check_own_packages()
