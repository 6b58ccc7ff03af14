"""The delivery worker: takes one of a destination's associations, and sends all that waits for that destination.

A destination has its own share of the workers (``destinations[].associations``), and one that did not answer is left
alone for a while, by all workers on all machines. So a worker may return without sending: whichever
worker has an association with the destination sends the object, or the scheduler enqueues it again later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from config.settings import Settings
from db.destinations import DestinationLeases, Lease
from db.leases import LEASE
from workers.backoff import backoff
from workers.clock import Clock, Elapsed
from workers.delivery import longest_delivery
from workers.destinations.destination_kind import PeerContact
from workers.enqueue import TaskQueue

log = logging.getLogger(__name__)

MAXIMUM_CONTACT_SECONDS = 20.0
"""A worker begins no further group for the same destination after this time, so that its task comes to an end."""


@dataclass(frozen=True, slots=True)
class DeliveryWorkerTools:
    """All that :func:`run_delivery` works with: ``deliver`` sends, ``verify_storage`` asks for a verification,
    ``hang_up`` ends what stays open for the next delivery."""

    settings: Settings
    leases: DestinationLeases
    task_queue: TaskQueue
    deliver: Callable[[int], PeerContact]
    verify_storage: Callable[[int], PeerContact]
    clock: Clock
    elapsed: Elapsed
    worker: str
    hang_up: Callable[[], None] = lambda: None


def run_delivery(delivery_id: int, tools: DeliveryWorkerTools) -> None:
    """Send a delivery, or ask for its verification, and then send what else waits for the same destination."""
    limits = {each.name: each.associations for each in tools.settings.destinations}
    lease = tools.leases.acquire(delivery_id, limits, tools.worker, tools.clock(), LEASE)
    if lease is None:
        log.debug("delivery %d waits: its destination is busy, or does not answer", delivery_id)
        return
    tried = {delivery_id}
    try:
        may_continue = _call(delivery_id, lease, tools, verify=True) and _send_waiting(lease, tried, tools)
    finally:
        tools.hang_up()
        tools.leases.release(tools.worker)
    if may_continue:
        # What has come since the last look may have met nothing but our own association.
        tools.task_queue.enqueue_deliveries(_untried(lease, tried, tools)[:1])


def maximum_contact_time(settings: Settings) -> timedelta:
    """The longest time that a worker may be in contact with one destination for one message."""
    return longest_delivery(settings) + timedelta(seconds=MAXIMUM_CONTACT_SECONDS)


def _call(delivery_id: int, lease: Lease, tools: DeliveryWorkerTools, *, verify: bool = False) -> bool:
    """Send or ask, and note how it stands with the destination; False where it does not answer."""
    contact = tools.deliver(delivery_id)
    if contact is PeerContact.NONE and verify:
        # One message for both: what is not to be sent may be to be verified. A peer may take one association at a time.
        tools.hang_up()
        contact = tools.verify_storage(delivery_id)
    if contact is not PeerContact.NO_ANSWER:
        if lease.failures and contact is PeerContact.ANSWERED:
            tools.leases.record_answer(lease.destination)
        return True
    pause = backoff(lease.failures + 1, tools.settings)
    tools.leases.record_no_answer(lease.destination, tools.clock() + pause)
    log.warning("%s does not answer; nobody calls it for %.0f s", lease.destination, pause.total_seconds())
    return False


def _send_waiting(lease: Lease, tried: set[int], tools: DeliveryWorkerTools) -> bool:
    """Send what waits for the destination until nothing does, or it is another message's turn; False: it is silent."""
    started = tools.elapsed()
    # One look for each: what another worker has taken since, or what went with its group, need not be tried.
    while untried := _untried(lease, tried, tools):
        if tools.elapsed() - started > MAXIMUM_CONTACT_SECONDS:
            return True
        tried.add(untried[0])
        if not _call(untried[0], lease, tools):
            return False
    return True


def _untried(lease: Lease, tried: set[int], tools: DeliveryWorkerTools) -> list[int]:
    return [each for each in tools.leases.waiting(lease.destination, tools.clock()) if each not in tried]
