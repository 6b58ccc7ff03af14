"""Sending of the audit trail to audit record repositories, and its upkeep: verification, retention, anchors in the log.

Each repository has its own thread in the scheduler's process, as notification channels have: one that does not answer
delays no other.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from config.audit import AuditRepository
from config.settings import Settings
from config.tls import Tls
from db import audit_chain, audit_feed
from db.audit import AuditTrail, entries_after, remove_old
from db.database import Database
from workers.audit.messages import AuditSource, audit_message
from workers.audit.syslog import NotSentError, send, syslog_message
from workers.audit.trail_verification import verify_and_record
from workers.backoff import backoff
from workers.clock import Clock, utc_now
from workers.open_database import database_of
from workers.repeat import repeating
from workers.worker_id import host_name

log = logging.getLogger(__name__)

_AT_ONCE = 200
_GROUPS = 20  # in one round, so that the thread looks whether it is to stop
_STEPS = 4  # connect, handshake, send, close: each may take the whole time limit
_LEASE_MARGIN = timedelta(seconds=60)
_UPKEEP_PAUSE = timedelta(hours=1)
_VERIFY_PAUSE = timedelta(days=1)
_SCHEDULER = "scheduler"

Send = Callable[[AuditRepository, Sequence[bytes], Tls], None]


def audit_source(settings: Settings) -> AuditSource:
    """Who this node is in audit messages."""
    title, host = settings.listener.ae_title, host_name()
    return AuditSource(settings.audit.source_id or f"{title}@{host}", settings.site.name, title, host)


@dataclass(frozen=True, slots=True)
class Feeder:
    """Sends the trail to one repository; ``worker`` is its name in claims."""

    repository: AuditRepository
    settings: Settings
    database: Database
    clock: Clock
    worker: str
    send: Send = send

    def once(self) -> None:
        """Send what waits, in groups, until nothing does or the repository does not take it."""
        for _ in range(_GROUPS):
            if not self._send_group():
                return

    def _send_group(self) -> bool:
        name = self.repository.name
        lease = timedelta(seconds=_STEPS * self.repository.timeout_seconds) + _LEASE_MARGIN
        end = self.database.read(audit_chain.head).position
        if all(state.waiting == 0 for state in self.database.read(audit_feed.states, [name])):
            return False
        claim = self.database.write(audit_feed.claim, name, self.worker, self.clock(), lease)
        if claim is None:
            return False
        entries = self.database.read(entries_after, claim.position, _AT_ONCE)
        if not entries:
            self.database.write(audit_feed.release, name, self.worker)
            return False
        source = audit_source(self.settings)
        messages = [syslog_message(entry, audit_message(entry, source), source.host) for entry in entries]
        try:
            self.send(self.repository, messages, self.settings.tls)
        except NotSentError as error:
            after = backoff(claim.attempts + 1, self.settings)
            self.database.write(audit_feed.failed, name, self.worker, str(error), self.clock(), after)
            log.warning("audit repository %s: %s; again in %.0f s", name, error, after.total_seconds())
            return False
        last = entries[-1].position
        self.database.write(audit_feed.sent, name, self.worker, last, self.clock())
        log.debug("audit repository %s has %d entries more, up to %d", name, len(entries), last)
        return last < end


@dataclass(slots=True)
class Upkeep:
    """Once an hour the trail's end goes to the log and old entries go; once a day the whole trail is verified."""

    settings: Settings
    database: Database
    clock: Clock
    acts: Callable[[], bool] = lambda: True
    next_at: datetime | None = None
    verify_at: datetime | None = None
    anchored: int = 0
    trail: AuditTrail = field(init=False)

    def __post_init__(self) -> None:
        self.trail = AuditTrail(self.database.engine)

    def once(self) -> None:
        """Do what is due, if this scheduler acts; a clock that was set back puts nothing off."""
        now = self.clock()
        if not self.acts() or _rests(self.next_at, now, _UPKEEP_PAUSE):
            return
        self.next_at = now + _UPKEEP_PAUSE
        self._remove_old(now)
        if not _rests(self.verify_at, now, _VERIFY_PAUSE):
            self.verify_at = now + _VERIFY_PAUSE
            self._verify(now)
        self._log_anchor()

    def _remove_old(self, now: datetime) -> None:
        audit = self.settings.audit
        if not audit.keep_days:
            return
        sent_to = self.database.read(audit_feed.slowest, [one.name for one in audit.repositories])
        before = now - timedelta(days=audit.keep_days)
        while removed := self.database.write(remove_old, before, sent_to, now):
            log.info("removed %d entries of the audit trail, kept for %d days", removed, audit.keep_days)
        if sent_to is not None and audit.keep_unsent_days > audit.keep_days:
            unsent = now - timedelta(days=audit.keep_unsent_days)
            while removed := self.database.write(remove_old, unsent, None, now):
                log.error("removed %d entries of the audit trail that a repository was never sent", removed)

    def _verify(self, now: datetime) -> None:
        found = verify_and_record(self.trail, _SCHEDULER, now)
        if found.problem:
            log.critical("the audit trail is broken at entry %s: %s", found.broken_at, found.problem)

    def _log_anchor(self) -> None:
        """An anchor of the chain, outside of the database (``pleura audit verify --anchors``)."""
        end = self.database.read(audit_chain.head)
        if end.position != self.anchored:
            self.anchored = end.position
            log.info("%s", end)


def _rests(until: datetime | None, now: datetime, pause: timedelta) -> bool:
    return until is not None and timedelta(0) < until - now <= pause


@contextmanager
def keeping_audit(settings: Settings, stop: threading.Event, acts: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Feed the repositories and keep the trail in the background until the block ends, which sets ``stop``.

    Of several schedulers the one that ``acts`` keeps the trail; whichever has the claim feeds a repository.
    """
    database, seconds = database_of(settings), settings.workers.scheduler_interval_seconds
    worker = f"audit@{host_name()}#{os.getpid()}"
    upkeep = Upkeep(settings, database, utc_now, acts)
    parts = {"audit": upkeep.once}
    for repository in settings.audit.repositories:
        feeder = Feeder(repository, settings, database, utc_now, worker)
        parts[f"audit-{repository.name}"] = feeder.once
    try:
        with repeating(stop, parts, seconds):
            yield
    finally:
        database.engine.dispose()
