"""Releases the claims of dead workers, also where a container comes back under another host name.

A worker that starts at its old place takes over what it left there. One whose place is not taken again (a container
that was killed and made anew) is found by its lock file, which no process holds. So are the other parts of a node, and
what a scheduler was sending. Claims of a whole host that is cut off or gone, whose locks the file system may keep for a
while, end by themselves: their leases are not renewed (:mod:`workers.heartbeat`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from db import deliveries, jobs, notifications
from db.database import Database
from db.destinations import DestinationLeases
from workers.clock import Elapsed
from workers.worker_id import free_places, remove_place

log = logging.getLogger(__name__)

_GRACE_SECONDS = 15.0


@dataclass(slots=True)
class DeadWorkers:
    """Releases the claims of processes whose lock file in ``folder`` has been free for 15 s, and removes that file.

    So long a child may outlive its killed parent, or a worker take to come back at its place. ``release`` gets the
    prefix of the claims and the time.
    """

    folder: Path
    release: Callable[[str, datetime], None]
    elapsed: Elapsed
    free_since: dict[Path, float] = field(default_factory=dict)

    def step(self, now: datetime) -> None:
        """Look once at every lock file."""
        places, time = free_places(self.folder), self.elapsed()
        self.free_since = {path: self.free_since.get(path, time) for path in places}
        for path, since in self.free_since.items():
            if time - since < _GRACE_SECONDS:
                continue
            if prefix := places[path]:
                self.release(prefix, now)
            remove_place(path)


def release_claims(database: Database, leases: DestinationLeases, prefix: str, now: datetime) -> None:
    """Queue again what workers under ``prefix`` have claimed; the scheduler enqueues it."""
    leases.release_workers(prefix)
    released = database.write(jobs.release, prefix, now), database.write(deliveries.release, prefix, now)
    if any(released):
        log.warning("a worker has died: %d jobs and %d deliveries that it had claimed wait again", *map(len, released))
    if sending := database.write(notifications.release, prefix, now):
        log.warning("a scheduler has died: %d notifications that it was sending wait again", sending)
