"""Sending notifications: claimed from the database, tried again with growing pauses, failed in the end.

Each channel has a thread of its own in the process of the scheduler, and needs neither broker nor worker: a
notification must get through when much else is down, and a mail server that does not answer must not keep the others
waiting.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from config.settings import Settings
from db.engine import connect
from db.notifications import Notification, Notifications
from workers.analysis import backoff
from workers.clock import Clock, utc_now
from workers.notifications.channel import Channel, NotSentError, PartlySentError
from workers.notifications.channels import CHANNELS, enabled_channels
from workers.scheduler import repeat_until
from workers.worker_id import host_name

log = logging.getLogger(__name__)

_STEPS = 6  # connect, greet, secure, log in, send, answer: each may take the whole time limit
_LEASE_MARGIN_SECONDS = 60.0


class NotificationList(Protocol):
    """What this module needs of :class:`db.notifications.Notifications`."""

    def waiting(self, channel: str, now: datetime, limit: int = 50) -> tuple[int, ...]:
        """Notifications that may be taken now."""
        ...

    def claim(self, notification_id: int, worker: str, now: datetime, lease: timedelta) -> Notification | None:
        """Take one, or None where it is not to be taken."""
        ...

    def sent(self, notification_id: int, worker: str, now: datetime) -> bool:
        """The receiver has taken it."""
        ...

    def taken(self, notification_id: int, worker: str, receivers: Sequence[str]) -> bool:
        """Some receivers have taken it, and are not to hear it again."""
        ...

    def retry(self, notification_id: int, worker: str, error: str, now: datetime, after: timedelta) -> bool:
        """Put it back, due ``after`` a while."""
        ...

    def fail(self, notification_id: int, worker: str, error: str, now: datetime) -> bool:
        """Park it for the admin."""
        ...


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends what waits for one channel; ``worker`` names it in claims."""

    name: str
    channel: Channel
    settings: Settings
    notifications: NotificationList
    clock: Clock
    worker: str

    def once(self) -> None:
        """Send all that waits, until one cannot be sent: the next would fare no better."""
        for notification_id in self.notifications.waiting(self.name, self.clock()):
            if not self._send(notification_id):
                return

    def _send(self, notification_id: int) -> bool:
        lease = timedelta(seconds=_STEPS * self._seconds() + _LEASE_MARGIN_SECONDS)
        notification = self.notifications.claim(notification_id, self.worker, self.clock(), lease)
        if notification is None:
            return True
        try:
            self.channel.send(notification, self.settings, self.clock())
        except PartlySentError as error:
            # The server answers; the next message may fare better.
            self.notifications.taken(notification.id, self.worker, error.taken_by)
            self._not_sent(notification, str(error))
            return True
        except NotSentError as error:
            self._not_sent(notification, str(error))
            return False
        except Exception as error:
            # A defect of ours. Its words may quote the message, so its kind alone is told.
            self._not_sent(notification, f"{type(error).__name__} in this node")
            return False
        self.notifications.sent(notification.id, self.worker, self.clock())
        log.info("notification %d of study %d sent by %s", notification.id, notification.study_id, self.name)
        return True

    def _not_sent(self, notification: Notification, why: str) -> None:
        now = self.clock()
        if notification.attempts >= self.settings.notifications.attempts:
            self.notifications.fail(notification.id, self.worker, why, now)
            log.error("notification %d by %s has failed: %s", notification.id, self.name, why)
            return
        after = backoff(notification.attempts, self.settings)
        self.notifications.retry(notification.id, self.worker, why, now, after)
        log.warning(
            "notification %d by %s: %s; again in %.0f s", notification.id, self.name, why, after.total_seconds()
        )

    def _seconds(self) -> float:
        seconds: float = getattr(self.settings.notifications, self.name).timeout_seconds
        return seconds


def senders_of(settings: Settings) -> list[Sender]:
    """A sender for each channel that is on; what their predecessors on this machine left behind is free again."""
    names = enabled_channels(settings)
    if not names:
        return []
    notifications = Notifications(connect(settings.database_url))
    senders = []
    for name in names:
        place = f"notify-{name}@{host_name()}#"
        notifications.release(place, utc_now())
        senders.append(Sender(name, CHANNELS[name], settings, notifications, utc_now, f"{place}{os.getpid()}"))
    return senders


@contextmanager
def notifying(settings: Settings, stop: threading.Event) -> Iterator[None]:
    """Send notifications in the background until ``stop`` is set, which whoever leaves the block sees to."""
    seconds = settings.workers.scheduler_seconds
    threads = [
        threading.Thread(target=repeat_until, args=(stop, sender.once, seconds), name=f"notify-{sender.name}")
        for sender in senders_of(settings)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
