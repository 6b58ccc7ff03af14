"""Enqueues the jobs of images that were answered, behind the answer."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue

from db.states import JOBS
from workers.enqueue import TaskQueue

_GATHERING_SECONDS = 0.05

log = logging.getLogger(__name__)


class JobDispatcher:
    """Enqueues jobs from a thread of its own, so that a slow or stopped broker does not delay a C-STORE.

    The thread starts on a job when :meth:`dispatch` is called, right after the response: before, the two threads would
    only slow each other down.
    """

    def __init__(self, task_queue: TaskQueue) -> None:
        self._task_queue = task_queue
        self._noted: deque[tuple[str, tuple[int, bool]]] = deque()
        self._waiting: SimpleQueue[bool] = SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._thread.start()

    def enqueue(self, jobs: Sequence[tuple[int, bool]], queue: str = JOBS) -> None:
        """Keep jobs of a queue for the next :meth:`dispatch`."""
        self._noted.extend((queue, job) for job in jobs)

    def dispatch(self) -> None:
        """Let the thread enqueue the kept jobs; returns at once."""
        if self._noted:
            self._waiting.put(True)

    @property
    def idle(self) -> bool:
        """Whether no job waits to be enqueued."""
        return not self._noted

    def close(self, seconds: float = 2.0) -> None:
        """Enqueue the kept jobs and end; jobs not enqueued within ``seconds`` are left to the scheduler."""
        self._closing.set()
        self._waiting.put(True)
        self._waiting.put(False)
        self._thread.join(seconds)

    def _run(self) -> None:
        while self._waiting.get():
            if self.idle:
                continue
            noted = [self._noted.popleft() for _ in range(len(self._noted))]
            try:
                for queue in dict.fromkeys(queue for queue, _ in noted):
                    self._task_queue.enqueue_jobs([job for its, job in noted if its == queue], queue)
            except Exception:
                # The thread must survive any error of the broker's client: the scheduler enqueues missed jobs.
                log.exception("the task queue failed")
            # In a burst, one call of the broker for the jobs of a moment costs a third of one for each. A single one
            # has gone at once.
            self._closing.wait(_GATHERING_SECONDS)
