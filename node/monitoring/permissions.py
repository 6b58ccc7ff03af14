"""Whether other users of the machine may open what the node keeps: images, results, database, locks and sockets."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from config.private_files import forbidden_bits
from config.settings import Settings
from node.monitoring.certificates import open_keys
from node.monitoring.check import Check


def check_permissions(settings: Settings) -> Check:
    """Only the node's user (in a container its group, too) may open files and folders of the node.

    A key for TLS may be read by its group (``ssl-cert`` on Debian), and by no other user. What a closed folder holds is
    closed with it, so of the store's folders only the uppermost are looked at.
    """
    store = settings.store.folder.absolute()
    keys = open_keys(settings)
    if keys:
        found = f"other users of this machine may read {len(keys)} TLS keys; first {keys[0]}"
        return Check("permissions", False, found, f"chmod o-rwx {shlex.join(map(str, keys))}")
    forbidden = forbidden_bits(store)
    wide = [path for path in _kept(settings, store) if _permissions(path) & forbidden]
    if not wide:
        return Check("permissions", True, "no other user may open database, store, locks and sockets")
    first = f"{wide[0]} has {_permissions(wide[0]) & 0o777:04o}"
    found = f"other users of this machine may open {len(wide)} files or folders; {first}"
    return Check("permissions", False, found, _command(wide, store, "o" if forbidden == 0o007 else "go"))


def _kept(settings: Settings, store: Path) -> Iterator[Path]:
    """The store folder, unless it is a volume of somebody else; what lies in it; and a SQLite file elsewhere."""
    if store.is_dir():
        if store.stat().st_uid == os.getuid():
            yield store
        yield from sorted(store.iterdir())
    file = _sqlite_file(settings)
    if file is not None and file.parent != store:
        yield from (path for path in (file, Path(f"{file}-wal"), Path(f"{file}-shm")) if path.exists())


def _sqlite_file(settings: Settings) -> Path | None:
    try:
        url = make_url(settings.database_url)
    except ArgumentError:
        return None  # the check of the database says so
    return Path(url.database).absolute() if url.get_backend_name() == "sqlite" and url.database else None


def _permissions(path: Path) -> int:
    try:
        return 0 if path.is_symlink() else path.stat().st_mode
    except OSError:
        return 0  # it is gone, or is kept from us, too


def _command(wide: list[Path], store: Path, who: str) -> str:
    """The commands that close all of it."""
    elsewhere = [path for path in wide if path != store and store not in path.parents]
    commands = [f"chmod -R {who}-rwx {shlex.quote(str(store))}"] if len(elsewhere) < len(wide) else []
    commands += [f"chmod {who}-rwx {shlex.join(map(str, elsewhere))}"] if elsewhere else []
    return " && ".join(commands)
