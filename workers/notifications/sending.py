"""Sending of notifications: claimed from the database, retried with growing pauses, and failed after the last attempt.

Each channel has its own thread in the scheduler's process and needs neither broker nor worker: notifications must be
sent even when other parts are down, and a mail server that does not answer must not delay the other channels.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from config.settings import Settings
from db import notifications
from db.database import Database
from db.notifications import Notification
from workers.backoff import backoff
from workers.clock import Clock, utc_now
from workers.notifications.channel import Channel, NotSentError, PartlySentError
from workers.notifications.channels import CHANNELS, enabled_channels
from workers.repeat import repeating
from workers.worker_id import claims_at

log = logging.getLogger(__name__)

_STEPS = 6  # connect, greet, secure, log in, send, answer: each may take the whole time limit
_LEASE_MARGIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends the waiting notifications of one channel; ``worker`` is its name in claims.

    ``unrecorded``: what receivers have taken while the database did not answer. It is recorded before anything else is
    done: a lease that runs out must not notify again.
    """

    name: str
    channel: Channel
    settings: Settings
    database: Database
    clock: Clock
    worker: str
    unrecorded: dict[int, datetime] = field(default_factory=dict)

    def once(self) -> None:
        """Send all waiting notifications, but stop when the receiver cannot be reached."""
        self._record_sent()
        for notification_id in self.database.read(notifications.waiting, self.name, self.clock()):
            if not self._send(notification_id):
                return

    def _send(self, notification_id: int) -> bool:
        lease = timedelta(seconds=_STEPS * self._seconds() + _LEASE_MARGIN_SECONDS)
        notification = self.database.write(notifications.claim, notification_id, self.worker, self.clock(), lease)
        if notification is None:
            return True
        try:
            self.channel.send(notification, self.settings, self.clock())
        except PartlySentError as error:
            # The server answers, so the next message is tried.
            self.database.write(notifications.taken, notification.id, self.worker, error.taken_by)
            self._not_sent(notification, str(error))
            return True
        except NotSentError as error:
            self._not_sent(notification, str(error))
            return False
        except Exception as error:
            # A defect of this node. The error's text may quote the message, so only its type is logged.
            self._not_sent(notification, f"{type(error).__name__} in this node")
            return False
        self.unrecorded[notification.id] = self.clock()
        log.info("notification %d of study %d sent by %s", notification.id, notification.study_id, self.name)
        self._record_sent()
        return True

    def _record_sent(self) -> None:
        for notification_id, at in tuple(self.unrecorded.items()):
            if not self.database.write(notifications.sent, notification_id, self.worker, at):
                log.warning("notification %d was taken from this sender before it was recorded", notification_id)
            del self.unrecorded[notification_id]

    def _not_sent(self, notification: Notification, why: str) -> None:
        now = self.clock()
        if notification.attempts >= self.settings.notifications.attempts:
            self.database.write(notifications.fail, notification.id, self.worker, why, now)
            log.error("notification %d by %s has failed: %s", notification.id, self.name, why)
            return
        after = backoff(notification.attempts, self.settings)
        self.database.write(notifications.retry, notification.id, self.worker, why, now, after)
        log.warning(
            "notification %d by %s: %s; retry in %.0f s", notification.id, self.name, why, after.total_seconds()
        )

    def _seconds(self) -> float:
        seconds: float = getattr(self.settings.notifications, self.name).timeout_seconds
        return seconds


def senders_of(settings: Settings, database: Database, place: str) -> list[Sender]:
    """A sender for each enabled channel; claims of former processes at this ``place`` are released."""
    names = enabled_channels(settings)
    if not names:
        return []
    senders = []
    prefix = claims_at(place)
    database.write(notifications.release, prefix, utc_now())
    life = secrets.token_hex(4)
    for name in names:
        senders.append(Sender(name, CHANNELS[name], settings, database, utc_now, f"{prefix}notify-{name}#{life}"))
    return senders


@contextmanager
def notifying(settings: Settings, database: Database, stop: threading.Event, place: str) -> Iterator[None]:
    """Send notifications in the background until the block ends, which sets ``stop``; claims are made at ``place``."""
    rounds = {f"notify-{sender.name}": sender.once for sender in senders_of(settings, database, place)}
    with repeating(stop, rounds, settings.workers.scheduler_interval_seconds):
        yield
