"""Check for queues that no worker takes: images would wait there unnoticed.

Workers on other machines are seen by the places that they hold in the store (:mod:`workers.worker_id`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from config.settings import Settings
from db.queries.metrics import Waiting
from db.states import JOBS_GPU
from node.monitoring.check import Check
from workers.analysis_queues import analysis_queues
from workers.worker_id import occupied_places

_PATIENCE = timedelta(minutes=1)
"""A worker that is started again has its place back before this."""


@dataclass(frozen=True, slots=True)
class UnservedQueue:
    """A queue in which jobs wait and that no running worker takes; of a queue where none waits, ``count`` is 0."""

    name: str
    count: int
    seconds: float


def unserved_queues(
    queues: Collection[str], running: Collection[str], waiting: Mapping[str, Waiting], now: datetime
) -> Iterator[UnservedQueue]:
    """Those of ``queues``, of which no part in ``running`` takes any, and what waits in each."""
    for name in queues:
        there = waiting.get(name, Waiting(0, None))
        if name not in running and there.oldest is not None and now - there.oldest > _PATIENCE:
            yield UnservedQueue(name, there.count, (now - there.oldest).total_seconds())
        elif name not in running and set(queues) & set(running):
            yield UnservedQueue(name, 0, 0.0)


def unserved_here(settings: Settings, waiting: Mapping[str, Waiting], now: datetime) -> tuple[UnservedQueue, ...]:
    """The queues of this node that no worker takes, on whatever machine."""
    running = occupied_places(settings.store.folder).values()
    return tuple(unserved_queues(analysis_queues(settings.models), set(running), waiting, now))


def check_queues(unserved: Collection[UnservedQueue]) -> Iterator[Check]:
    """One check for each queue that no worker takes."""
    for queue in unserved:
        found = f"no worker takes {queue.name}"
        if queue.count:
            found = f"a job has waited for {queue.seconds / 60:.0f} min: {found} ({queue.count} waiting)"
        where = " on a machine with a GPU" if queue.name == JOBS_GPU else ""
        command = f"`pleura serve` or `pleura worker --queue {queue.name}`"
        yield Check("workers", False, found, f"start {command}{where}; where it runs, its log says why it ended")
