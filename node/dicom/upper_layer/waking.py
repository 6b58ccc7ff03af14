"""Queues and events that wake a thread, where pynetdicom's threads look once a millisecond."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

POLL_SECONDS = 0.1
"""How long a thread waits for a notification before it checks what comes without one: timers, another thread's end."""


class NotifyingQueue(queue.Queue[Any]):
    """A queue that calls ``notify`` when something is put into it."""

    def __init__(self, notify: Callable[[], None]) -> None:
        super().__init__()
        self._notify = notify

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put ``item`` into the queue and notify."""
        super().put(item, block, timeout)
        self._notify()


class Checkpoint(threading.Event):
    """Replaces the event that pynetdicom's association thread checks once a millisecond to see whether to pause.

    Here the thread waits for a notification instead, so it costs nothing while images arrive.
    """

    def __init__(self) -> None:
        super().__init__()
        self._notified = threading.Event()
        self.set()

    def notify(self) -> None:
        """Wake the thread: there is work."""
        self._notified.set()

    def set(self) -> None:
        """Let the thread continue; see the base class."""
        super().set()
        self._notified.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a notification for a short time, and then until the event is set."""
        self._notified.wait(POLL_SECONDS)
        self._notified.clear()
        return super().wait(timeout)
