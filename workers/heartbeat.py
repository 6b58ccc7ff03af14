"""The heartbeat of a worker: while it works for long, its claims are renewed.

So a claim can be short. A host that is cut off, hangs or is gone renews nothing, and after 45 s its work is another's;
what it still computes and records then is refused: the claim is not its own any more (:func:`db.jobs.finish`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from db.database import Database
from db.leases import renew
from workers.clock import Clock

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
"""Three beats may be missed: a database that is started again costs nobody its claim."""


@dataclass(slots=True)
class Heartbeat:
    """Renews what ``worker`` claims inside of :meth:`working`; work of less than 10 s costs nothing.

    ``let_lie``: jobs that it has claimed there and works at no more, since they could not be recorded.
    """

    database: Database
    worker: str
    clock: Clock
    since: datetime | None = None
    let_lie: set[int] = field(default_factory=set)

    @contextmanager
    def working(self) -> Iterator[None]:
        """What is claimed in this block is renewed until its end."""
        self.let_lie.clear()
        self.since = self.clock()
        try:
            yield
        finally:
            self.since = None

    def beat(self) -> None:
        """Renew once."""
        since = self.since
        if since is None or (self.clock() - since).total_seconds() < BEAT_SECONDS / 2:
            return
        try:
            self.database.write(renew, self.worker, since, self.clock(), tuple(self.let_lie))
        except SQLAlchemyError as error:
            log.warning("the claims of this worker are not renewed: %s", type(error).__name__)

    def start(self) -> None:
        """Beat in a thread until this process ends."""
        threading.Thread(target=self._go_on, name="heartbeat", daemon=True).start()

    def _go_on(self) -> None:
        pause = threading.Event()
        while not pause.wait(BEAT_SECONDS):
            self.beat()


def beating(heartbeat: Heartbeat, handle: Callable[[int], None]) -> Callable[[int], None]:
    """``handle`` with a heartbeat beside it."""
    heartbeat.start()

    def handle_beating(row_id: int) -> None:
        with heartbeat.working():
            handle(row_id)

    return handle_beating
