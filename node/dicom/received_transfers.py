"""The audit trail's entries of what peers send: one for a caller and study at a time, not one for each image.

They are written in the background, when nothing more of a study has come for some seconds or it has gone on for half a
minute, so that no C-STORE waits for the trail. Each names the last row that it counts, so that after a kill -9 the next
listener finds what is in the database and in no entry (:func:`write_missing`). What is lost then are C-STOREs that were
answered with a failure, of which there is no row.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from db import audit_chain
from db.audit import AuditEntry, write_entries
from db.audit_events import RECEIVED
from db.audit_tables import AuditRow
from db.database import Database
from db.records import ReceivedInstance
from db.tables import Instance, Study
from node.dicom.spool import StoreCommand

_QUIET_SECONDS = 3.0
_LONGEST_SECONDS = 30.0
_PAUSE_SECONDS = 1.0
_MISSING_AFTER_SECONDS = 40.0
"""By then another listener that received before the start of this one has written its entries."""
_LATEST_INSTANCES = 5000
"""More do not come within the time that entries wait."""
_ENTRIES_AT_ONCE = 50
"""Nobody waits longer for the database than these take."""
_MOST = 1000
"""Callers and studies that are counted at a time; the database has not answered for long where there are more."""
_MANY = 250
"""So many are written at once, whether more is to come of them or not."""

Write = Callable[[Sequence[AuditEntry]], None]
"""Appends entries. Where it raises an SQLAlchemyError it is called again with them later."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Key:
    """Who sends what; ``status`` is that of the C-STORE responses, of which 0 is success."""

    calling_ae_title: str
    address: str
    status: int = 0
    study_instance_uid: str = ""
    patient_id: str = ""


@dataclass(slots=True)
class _Count:
    """Instances by SOP class, and when (in seconds that never run backwards) the first and the latest came."""

    begun_at: datetime
    first: float
    latest: float
    instances: Counter[str] = field(default_factory=Counter)
    last_row: int = 0

    def is_due(self, now: float) -> bool:
        return now - self.latest >= _QUIET_SECONDS or now - self.first >= _LONGEST_SECONDS


class ReceivedTransfers:
    """What has come and is not in the trail yet. Safe to share between threads."""

    def __init__(
        self, write: Write, now: Callable[[], datetime], elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._now, self._elapsed = write, now, elapsed
        self._lock = threading.Lock()
        self._counts: dict[_Key, _Count] = {}
        self._failed = False
        self._some, self._many, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="received transfers", daemon=True)
        self._thread.start()

    def stored(self, received: ReceivedInstance, command: StoreCommand, instance_id: int) -> None:
        """An instance was stored and recorded in row ``instance_id``."""
        key = _Key(command.calling_ae_title, command.address, 0, received.study_instance_uid, received.patient_id)
        self._add(key, received.sop_class_uid, instance_id)

    def failed(self, command: StoreCommand, status: int) -> None:
        """A C-STORE was answered with a failure; of what study it was is not asked."""
        self._add(_Key(command.calling_ae_title, command.address, status), command.sop_class_uid)

    def _add(self, key: _Key, sop_class_uid: str, instance_id: int = 0) -> None:
        elapsed = self._elapsed()
        with self._lock:
            count = self._counts.get(key)
            if count is None:
                if len(self._counts) >= _MOST:
                    log.error("the audit trail misses an instance of %s: it cannot be written", key.calling_ae_title)
                    return
                count = self._counts[key] = _Count(self._now(), elapsed, elapsed)
            count.latest = elapsed
            count.instances[sop_class_uid] += 1
            count.last_row = max(count.last_row, instance_id)
            if not self._some.is_set():  # it is cleared under this lock, too
                self._some.set()
            if len(self._counts) >= _MANY and not self._many.is_set():
                self._many.set()

    def write_due(self, *, everything: bool = False) -> None:
        """Write what is due now; it is kept where that fails."""
        elapsed = self._elapsed()
        with self._lock:
            due = {key: count for key, count in self._counts.items() if everything or count.is_due(elapsed)}
            for key in due:
                del self._counts[key]
        if not due:
            return
        try:
            self._write([_entry(key, count) for key, count in due.items()])
        except SQLAlchemyError as error:
            if not self._failed:  # it is tried every second: once is enough for the log
                log.error("the audit trail of what peers send cannot be written (%s): kept here", type(error).__name__)
            self._failed = True
            with self._lock:
                for key, count in due.items():
                    if (newer := self._counts.get(key)) is not None:
                        count.instances.update(newer.instances)
                        count.latest, count.last_row = newer.latest, max(count.last_row, newer.last_row)
                    self._counts[key] = count
            return
        if self._failed:
            log.info("the audit trail of what peers send is written again")
        self._failed = False

    def close(self, seconds: float = 2.0) -> None:
        """Write the rest and end."""
        self._closing.set()
        self._some.set()
        self._many.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            if self._failed:  # it stays with many until the database answers again
                self._closing.wait(_PAUSE_SECONDS)
            everything = self._many.wait(_PAUSE_SECONDS)
            self._many.clear()
            self.write_due(everything=everything or self._closing.is_set())
            with self._lock:
                if not self._counts:
                    self._some.clear()


def _entry(key: _Key, count: _Count) -> AuditEntry:
    number = count.instances.total()
    detail = f"{number} instance{'' if number == 1 else 's'}"
    return AuditEntry(
        count.begun_at,
        key.calling_ae_title,
        RECEIVED,
        detail=f"{detail} refused with status 0x{key.status:04X}" if key.status else detail,
        address=key.address,
        failed=bool(key.status),
        study_instance_uid=key.study_instance_uid,
        patient_id=key.patient_id,
        data=_data(key.calling_ae_title, count.instances, count.last_row),
    )


def _data(caller: str, instances: Counter[str], last_row: int) -> dict[str, Any]:
    return {"peer": caller, "instances": dict(instances), "last_row": last_row}


def write_transfers(connection: Connection, entries: Sequence[AuditEntry]) -> None:
    """Append entries of studies, with the rows of these where there are such."""
    row, uids = Study, {entry.study_instance_uid for entry in entries}
    found = connection.execute(select(row.study_instance_uid, row.id).where(row.study_instance_uid.in_(uids)))
    ids = {str(uid): int(study_id) for uid, study_id in found}
    write_entries(connection, [replace(entry, study_id=ids.get(entry.study_instance_uid)) for entry in entries])


def write_missing(connection: Connection, before: datetime) -> int:
    """Append some entries of the latest instances from before ``before`` that no entry counts; how many instances.

    They were received by a listener that was killed before it had recorded them.
    """
    audit_chain.lock(connection)  # another listener that starts at the same moment finds what this one has written
    row = Instance
    query = select(row.id, row.study_id, row.calling_ae_title, row.sop_class_uid, row.received_at)
    latest = query.where(row.received_at < before).order_by(row.id.desc()).limit(_LATEST_INSTANCES)
    found = connection.execute(latest).all()
    last_rows = _last_rows_recorded(connection, {one.study_id for one in found})
    missing: dict[tuple[int, str], list[Any]] = {}
    for one in reversed(found):
        key = (one.study_id, one.calling_ae_title)
        if one.id > last_rows.get(key, 0):
            missing.setdefault(key, []).append(one)
    some = list(islice(missing.items(), _ENTRIES_AT_ONCE))
    write_entries(connection, [_late_entry(*key, instances) for key, instances in some])
    return sum(len(instances) for _, instances in some)


def _late_entry(study_id: int, caller: str, instances: Sequence[Any]) -> AuditEntry:
    detail = f"{len(instances)} instance{'' if len(instances) == 1 else 's'}, recorded late: the listener was killed"
    data = _data(caller, Counter(one.sop_class_uid for one in instances), instances[-1].id)
    return AuditEntry(instances[0].received_at, caller, RECEIVED, "", study_id, "", detail, data=data)


def _last_rows_recorded(connection: Connection, study_ids: Collection[int]) -> dict[tuple[int, str], int]:
    """The last instance of each study and caller that an entry counts."""
    row, last_rows = AuditRow, dict[tuple[int, str], int]()
    query = select(row.study_id, row.data).where(row.action == RECEIVED, row.failed.is_(False))
    for study_id, data in connection.execute(query.where(row.study_id.in_(study_ids))):
        entry = json.loads(data)
        key = (study_id or 0, str(entry["peer"]))
        last_rows[key] = max(last_rows.get(key, 0), int(entry.get("last_row", sys.maxsize)))
    return last_rows


def record_missing(database: Database, before: datetime, stop: threading.Event) -> None:
    """Once other listeners have recorded what they received before ``before``, record what is left."""
    while not stop.wait(_MISSING_AFTER_SECONDS):
        try:
            while count := database.write(write_missing, before):
                log.warning("the audit trail has got %d instances of a listener that was killed", count)
        except SQLAlchemyError as error:
            log.error("the audit trail cannot be written (%s): tried again later", type(error).__name__)
        else:
            return
