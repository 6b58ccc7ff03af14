"""Bringing results to their destinations: what one study's image has made goes together, in storing order.

A peer that is sent the same object twice gets the same UID and the same bytes, so a crash between the peer's answer
and our note of it is harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from config.settings import Destination, Settings
from db.records import Delivery
from workers.clock import Clock
from workers.destinations.contract import DestinationKind, Outgoing, PeerError, Receipt, Verdict
from workers.tasks import backoff

log = logging.getLogger(__name__)

STORING_ORDER = ("seg", "sr", "sc", "gsps", "summary")
_LEASE_MARGIN_SECONDS = 60.0
# Connect, associate, query and release, and as many answers as there are kinds: each may take the whole time limit.
_WAITS = 4 + len(STORING_ORDER)


class DeliveryList(Protocol):
    """What this module needs of :class:`db.worklist.Worklist`."""

    def claim_delivery(self, delivery_id: int, worker: str, now: datetime, lease: timedelta) -> Delivery | None:
        """Take the delivery, or None where it is not to be taken."""
        ...

    def claim_deliveries(
        self, destination: str, job_id: int | None, study_id: int, worker: str, now: datetime, lease: timedelta
    ) -> tuple[Delivery, ...]:
        """Take all open deliveries of a group, in storing order."""
        ...

    def delivery_sent(self, delivery_id: int, worker: str, now: datetime) -> bool:
        """The peer has answered that it stored the object."""
        ...

    def retry_delivery(self, delivery_id: int, worker: str, error: str, now: datetime, after: timedelta) -> bool:
        """Put the delivery back, due ``after`` a while."""
        ...

    def fail_delivery(self, delivery_id: int, worker: str, error: str, now: datetime) -> bool:
        """Park the delivery for the admin."""
        ...

    def hold_delivery(self, delivery_id: int, worker: str, reason: str, now: datetime) -> bool:
        """Keep the delivery back for a person to look at."""
        ...


@dataclass(frozen=True, slots=True)
class DeliveryTools:
    """All that :func:`deliver` works with. ``silent_until`` remembers the peers that did not answer, by name."""

    settings: Settings
    worklist: DeliveryList
    kinds: Mapping[str, DestinationKind]
    clock: Clock
    worker: str
    silent_until: dict[str, datetime] = field(default_factory=dict)

    def destination(self, name: str) -> Destination | None:
        """The destination of that name, None where the configuration has it no more."""
        return next((each for each in self.settings.destinations if each.name == name), None)


def longest_delivery(settings: Settings) -> timedelta:
    """The longest time that one group may take at the slowest destination."""
    slowest = max((each.timeout_seconds for each in settings.destinations), default=0.0)
    return timedelta(seconds=_WAITS * slowest)


def deliver(delivery_id: int, tools: DeliveryTools) -> None:
    """Send the delivery and all others that wait for the same destination from the same job."""
    lease = longest_delivery(tools.settings) + timedelta(seconds=_LEASE_MARGIN_SECONDS)
    first = tools.worklist.claim_delivery(delivery_id, tools.worker, tools.clock(), lease)
    if first is None:
        log.debug("delivery %d is not to be taken", delivery_id)
        return
    others = tools.worklist.claim_deliveries(
        first.destination, first.job_id, first.study_id, tools.worker, tools.clock(), lease
    )
    group = in_storing_order([first, *(other for other in others if other.id != first.id)])
    destination = tools.destination(first.destination)
    if destination is None:
        _hold(group, "this destination is not in the configuration any more", tools)
        return
    if _is_silent(destination, tools):
        for delivery in group:
            _settle(delivery, Receipt(Verdict.UNREACHABLE, "the peer did not answer a moment ago"), tools)
        return
    try:
        reason = _wrong_patient(group[0], destination, tools) if destination.verify_identity else None
    except PeerError as error:
        for delivery in group:
            _settle(delivery, Receipt(Verdict.UNREACHABLE, f"the study's patient could not be checked: {error}"), tools)
        return
    if reason is not None:
        _hold(group, reason, tools)
        return
    _send(group, destination, tools)


def in_storing_order(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Sort so that an object comes before those that refer to it."""
    return sorted(deliveries, key=lambda each: (STORING_ORDER.index(each.kind), each.id))


def _send(group: Sequence[Delivery], destination: Destination, tools: DeliveryTools) -> None:
    store = tools.settings.store.folder
    objects = [Outgoing(store / each.path, each.sop_class_uid, each.sop_instance_uid) for each in group]
    calling = destination.calling_ae_title or tools.settings.listener.ae_title
    receipts = tools.kinds[destination.kind].send(destination, calling, objects)
    for delivery, receipt in zip(group, receipts, strict=True):
        _settle(delivery, receipt, tools)


def _settle(delivery: Delivery, receipt: Receipt, tools: DeliveryTools) -> None:
    now = tools.clock()
    workers = tools.settings.workers
    if receipt.verdict is Verdict.SENT:
        tools.silent_until.pop(delivery.destination, None)
        tools.worklist.delivery_sent(delivery.id, tools.worker, now)
        log.info("delivery %d: %s sent to %s %s", delivery.id, delivery.kind, delivery.destination, receipt.note)
        return
    unreachable = receipt.verdict is Verdict.UNREACHABLE
    attempts = workers.unreachable_attempts if unreachable else workers.attempts
    if receipt.verdict is Verdict.REFUSED or delivery.attempts >= attempts:
        tools.worklist.fail_delivery(delivery.id, tools.worker, receipt.note, now)
        log.error("delivery %d to %s is parked: %s", delivery.id, delivery.destination, receipt.note)
        return
    after = backoff(delivery.attempts, tools.settings)
    if unreachable and not _silent_at(delivery.destination, now, tools):
        tools.silent_until[delivery.destination] = now + min(after, timedelta(seconds=workers.backoff_seconds))
    tools.worklist.retry_delivery(delivery.id, tools.worker, receipt.note, now, after)
    log.warning(
        "delivery %d to %s: %s; again in %.0f s",
        delivery.id,
        delivery.destination,
        receipt.note,
        after.total_seconds(),
    )


def _is_silent(destination: Destination, tools: DeliveryTools) -> bool:
    """A peer that did not answer a moment ago is not asked again at once.

    Otherwise a peer that is down would keep every process waiting for its time limit, and the other peers with it.
    """
    return _silent_at(destination.name, tools.clock(), tools)


def _silent_at(name: str, now: datetime, tools: DeliveryTools) -> bool:
    until = tools.silent_until.get(name)
    return until is not None and now < until


def _wrong_patient(delivery: Delivery, destination: Destination, tools: DeliveryTools) -> str | None:
    """Say why the study is not what it was when the image came, None where the peer says nothing against it.

    A peer that does not hold the study says nothing against it: a viewer's archive may get results first.
    """
    calling = destination.calling_ae_title or tools.settings.listener.ae_title
    held = tools.kinds[destination.kind].find_study(destination, calling, delivery.study_instance_uid)
    if held is None or held.patient_id.strip() == delivery.patient_id.strip():
        return None
    return "the destination now holds this study under another patient ID"


def _hold(group: Sequence[Delivery], reason: str, tools: DeliveryTools) -> None:
    for delivery in group:
        tools.worklist.hold_delivery(delivery.id, tools.worker, reason, tools.clock())
        log.warning("delivery %d is held: %s", delivery.id, reason)
