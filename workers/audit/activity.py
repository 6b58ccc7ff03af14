"""Entries of the audit trail about the node itself: its parts start and stop, and the configuration has changed.

A part starts with what its machine was started with before, or with something else: then the entry says which keys
differ. Secrets are masked on both sides, so that only setting and removing one shows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from config.reference import effective_values
from config.settings import Settings
from db import audit_chain
from db.audit import AuditEntry, write_entry
from db.audit_events import CONFIGURATION_CHANGED, START, STOP
from db.audit_tables import AuditedConfigurationRow
from db.engine import connect, writing
from workers.clock import utc_now
from workers.worker_id import host_name

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 5.0
_LONGEST_VALUE = 60


@contextmanager
def application_activity(settings: Settings, part: str) -> Iterator[None]:
    """Tell of the start of ``part`` now, and of its end when the block is left."""
    started(settings, part)
    try:
        yield
    finally:
        stopped(settings, part)


def started(settings: Settings, part: str) -> None:
    """``part`` of the node starts; a configuration that has changed since is told before."""
    _write(settings, part, START)


def stopped(settings: Settings, part: str) -> None:
    """``part`` of the node has stopped in good order."""
    _write(settings, part, STOP)


def _write(settings: Settings, part: str, action: str) -> None:
    """Write on a connection of its own, for a part stops last of all. Without a database the part is not held up."""
    engine = connect(settings.database_url, answer_seconds=_ANSWER_SECONDS)
    host, now = host_name(), utc_now()
    actor = f"{part}@{host}"
    try:
        with writing(engine).begin() as connection:
            if action == START:
                note_configuration(connection, effective_values(settings), host, actor, now)
            detail = f"Pleura {version('pleura')}, process {os.getpid()}"
            write_entry(connection, AuditEntry(now, actor, action, part, detail=detail))
    except SQLAlchemyError as error:
        log.warning("the audit trail has no entry of the %s of the %s: %s", action, part, type(error).__name__)
    finally:
        engine.dispose()


def note_configuration(connection: Connection, keys: Mapping[str, str], host: str, actor: str, now: datetime) -> None:
    """Compare with what ``host`` was last started with, keep ``keys`` and tell of the difference, if there is one."""
    audit_chain.lock(connection)  # the parts of a node start together: one of them tells
    row, digest = AuditedConfigurationRow, digest_of(keys)
    known = connection.execute(select(row.digest, row.settings).where(row.host == host)).first()
    if known is not None and known.digest == digest:
        return
    values = {"at": now, "digest": digest, "settings": dict(keys)}
    if known is None:
        connection.execute(insert(row).values(host=host, **values))
        detail, changed = "the first one of this machine", []
    else:
        connection.execute(update(row).where(row.host == host).values(**values))
        before: Mapping[str, str] = known.settings
        changed = [key for key in sorted({*before, *keys}) if before.get(key) != keys.get(key)]
        detail = "; ".join(f"{key}: {_short(before.get(key))} to {_short(keys.get(key))}" for key in changed)
    data = {"keys": changed[:100], "sha256": digest}
    write_entry(connection, AuditEntry(now, actor, CONFIGURATION_CHANGED, host, detail=detail, data=data))


def digest_of(keys: Mapping[str, str]) -> str:
    """SHA-256 of an effective configuration, secrets masked."""
    return hashlib.sha256(json.dumps(dict(keys), sort_keys=True).encode()).hexdigest()


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 1]}…"
