"""What a delivery worker does with a message: it takes an association with the destination, and works off what waits.

A destination has its own share of the workers (``destinations[].associations``), and one that did not answer is left
alone for a while, by all workers on all machines. So a message may come to nothing: whoever is in contact with its
destination sends the object, or the scheduler enqueues it again when somebody may call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from config.settings import Settings
from db.destinations import Associations, Taken
from workers.backoff import backoff
from workers.clock import Clock, Elapsed
from workers.delivery import longest_delivery
from workers.destinations.destination_kind import Contact
from workers.enqueue import TaskQueue

log = logging.getLogger(__name__)

LONGEST_STAY_SECONDS = 20.0
"""A worker begins no further group for the same destination after this time, so that its task comes to an end."""

_LEASE_MARGIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class AttendTools:
    """All that :func:`attend` works with: ``deliver`` sends, ``verify_storage`` asks for a verification."""

    settings: Settings
    associations: Associations
    task_queue: TaskQueue
    deliver: Callable[[int], Contact]
    verify_storage: Callable[[int], Contact]
    clock: Clock
    elapsed: Elapsed
    worker: str


def attend(delivery_id: int, tools: AttendTools) -> None:
    """Send a delivery, or ask for its verification, and then send what else waits for the same destination."""
    limits = {each.name: each.associations for each in tools.settings.destinations}
    lease = longest_stay(tools.settings) + timedelta(seconds=_LEASE_MARGIN_SECONDS)
    taken = tools.associations.take(delivery_id, limits, tools.worker, tools.clock(), lease)
    if taken is None:
        log.debug("delivery %d waits: its destination is busy, or does not answer", delivery_id)
        return
    tried = {delivery_id}
    try:
        goes_on = _call(delivery_id, taken, tools) and _work_off(taken, tried, tools)
    finally:
        tools.associations.leave(tools.worker)
    if goes_on:
        # What has come since the last look may have met nothing but our own association.
        tools.task_queue.enqueue_deliveries(_untried(taken, tried, tools)[:1])


def longest_stay(settings: Settings) -> timedelta:
    """The longest time that a worker may be in contact with one destination for one message."""
    return longest_delivery(settings) + timedelta(seconds=LONGEST_STAY_SECONDS)


def _call(delivery_id: int, taken: Taken, tools: AttendTools) -> bool:
    """Send or ask, and note how it stands with the destination; False where it does not answer."""
    contact = tools.deliver(delivery_id)
    if contact is Contact.NONE:
        # One message for both: what is not to be sent may be to be verified.
        contact = tools.verify_storage(delivery_id)
    if contact is not Contact.SILENT:
        if taken.failures and contact is Contact.ANSWERED:
            tools.associations.answered(taken.destination)
        return True
    pause = backoff(taken.failures + 1, tools.settings)
    tools.associations.silent(taken.destination, tools.clock() + pause)
    log.warning("%s does not answer; nobody calls it for %.0f s", taken.destination, pause.total_seconds())
    return False


def _work_off(taken: Taken, tried: set[int], tools: AttendTools) -> bool:
    """Send what waits for the destination until nothing does, or it is another message's turn; False: it is silent."""
    started = tools.elapsed()
    while untried := _untried(taken, tried, tools):
        for delivery_id in untried:
            if tools.elapsed() - started > LONGEST_STAY_SECONDS:
                return True
            tried.add(delivery_id)
            if not _call(delivery_id, taken, tools):
                return False
    return True


def _untried(taken: Taken, tried: set[int], tools: AttendTools) -> list[int]:
    return [each for each in tools.associations.waiting(taken.destination, tools.clock()) if each not in tried]
