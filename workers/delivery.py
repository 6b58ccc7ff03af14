"""Bringing results to their destinations: what one study's image has made goes together, in storing order.

A peer that is sent the same object twice gets the same UID and the same bytes, so a crash between the peer's answer
and our note of it is harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from itertools import repeat

from config.dicom_peers import Destination
from config.logging import job_in_log
from config.settings import Settings
from db import deliveries
from db.audit import EXPORT_DEIDENTIFIED, AuditEntry, write_entry
from db.database import Database
from db.records import NOTE, Delivery
from workers.audit.transfers import querying, sending
from workers.backoff import backoff
from workers.clock import Clock
from workers.destinations.destination_kind import (
    DestinationKind,
    Outgoing,
    PeerContact,
    PeerError,
    PeerUnreachableError,
    Receipt,
    SourceFile,
    Verdict,
)
from workers.errors import where_in_code
from workers.results.result_kinds import STORING_ORDER
from workers.verification import verify_after

log = logging.getLogger(__name__)

_LEASE_MARGIN_SECONDS = 60.0
_ABSENT = "the destination does not hold this study: not yet, or it was merged or deleted"
_LOST = "its process was lost or stopped by the time limit at every attempt"
_MANY_ATTEMPTS = (Verdict.UNREACHABLE, Verdict.LATER)
# Connect, associate, query and release, and as many answers as there are kinds: each may take the whole time limit.
_WAITS = 4 + len(STORING_ORDER)


@dataclass(frozen=True, slots=True)
class DeliveryTools:
    """All that :func:`deliver` works with."""

    settings: Settings
    database: Database
    kinds: Mapping[str, DestinationKind]
    clock: Clock
    worker: str


def longest_delivery(settings: Settings) -> timedelta:
    """The longest time that one group may take at the slowest destination."""
    slowest = max((each.timeout_seconds for each in settings.destinations), default=0.0)
    return timedelta(seconds=_WAITS * slowest)


def deliver(delivery_id: int, tools: DeliveryTools) -> PeerContact:
    """Send the delivery and all others that wait for the same destination from the same job."""
    lease = longest_delivery(tools.settings) + timedelta(seconds=_LEASE_MARGIN_SECONDS)
    first = tools.database.write(deliveries.claim, delivery_id, tools.worker, tools.clock(), lease)
    if first is None:
        log.debug("delivery %d is not to be taken", delivery_id)
        return PeerContact.NONE
    others = tools.database.write(
        deliveries.claim_group, first.destination, first.job_id, first.study_id, tools.worker, tools.clock(), lease
    )
    group = in_storing_order([first, *(other for other in others if other.id != first.id)])
    with job_in_log(first.job_id) if first.job_id is not None else nullcontext():
        return _deliver_claimed(_without_lost(group, tools), tools)


def _without_lost(group: Sequence[Delivery], tools: DeliveryTools) -> list[Delivery]:
    """Park what has taken its process with it at every attempt, so that it takes no more."""
    for delivery in group:
        if delivery.lost >= tools.settings.workers.attempts:
            _fail(delivery, Receipt(Verdict.REJECTED, _LOST), tools)
    return [delivery for delivery in group if delivery.lost < tools.settings.workers.attempts]


def _deliver_claimed(group: Sequence[Delivery], tools: DeliveryTools) -> PeerContact:
    """Send a group that is claimed. Whatever goes wrong, it is not left as being sent."""
    if not group:
        return PeerContact.NONE
    try:
        return _deliver_group(group, tools)
    except Exception as error:
        # A defect of ours. Its words may quote a data set: the log gets where it was, and not those.
        log.error("a delivery failed with %s\n%s", type(error).__name__, where_in_code(error))
        # What has come to its end is not ours any more, and stays as it is.
        _record_all(
            group, repeat(Receipt(Verdict.RETRY, f"{type(error).__name__} in this node; the log has it")), tools
        )
        return PeerContact.ANSWERED


def _deliver_group(group: Sequence[Delivery], tools: DeliveryTools) -> PeerContact:
    destination = tools.settings.destination(group[0].destination)
    if destination is None:
        _hold(group, "this destination is not in the configuration any more", tools)
        return PeerContact.NONE
    try:
        reason = _wrong_patient(group[0], destination, tools) if _must_check(group, destination) else None
    except PeerError as error:
        silent = isinstance(error, PeerUnreachableError)
        verdict = Verdict.UNREACHABLE if silent else Verdict.LATER
        return _record_all(group, repeat(Receipt(verdict, f"the study's patient could not be checked: {error}")), tools)
    if reason == _ABSENT and max(each.attempts for each in group) < tools.settings.workers.attempts:
        # A modality may have sent to us and to the archive at once, and we were quicker.
        return _record_all(group, repeat(Receipt(Verdict.RETRY, _ABSENT)), tools)
    if reason is not None:
        _hold(group, reason, tools)
        return PeerContact.ANSWERED
    kind, calling = tools.kinds[destination.kind], tools.settings.listener.ae_title
    objects = _outgoing(group, destination, kind, tools)
    if kind.takes_images:
        return _record_all(group, kind.send(destination, calling, objects), tools)
    with sending(group, destination, calling, tools.database, tools.clock) as going:
        return _record_all(group, going.noting(kind.send(destination, calling, objects)), tools)


def _outgoing(
    group: Sequence[Delivery], destination: Destination, kind: DestinationKind, tools: DeliveryTools
) -> list[Outgoing]:
    """What to send; where images go along, this is noted in the audit trail before."""
    store = tools.settings.store.folder
    images: tuple[SourceFile, ...] = ()
    if kind.takes_images:
        job, study = group[0].job_id, group[0].study_id
        rows = () if job is None else tools.database.read(deliveries.source_images, job)
        images = tuple(SourceFile(store / path, uid) for path, uid in rows)
        subject, detail = f"study #{study}", f"to {destination.name}"
        entry = AuditEntry(tools.clock(), "node", EXPORT_DEIDENTIFIED, subject, study, detail=detail)
        tools.database.write(write_entry, entry)
    return [Outgoing(store / each.path, each.sop_class_uid, each.sop_instance_uid, each.kind, images) for each in group]


def _must_check(group: Sequence[Delivery], destination: Destination) -> bool:
    """Whether the peer is asked for the study first.

    What it has lost since it took it may have gone with its study, deleted or merged by a person: sent again unasked,
    it would bring that study back, under the former patient.
    """
    return destination.verify_identity or any(each.missing for each in group)


def in_storing_order(rows: Sequence[Delivery]) -> list[Delivery]:
    """Sort so that an object comes before those that refer to it."""
    return sorted(rows, key=lambda each: (STORING_ORDER.index(each.kind), each.id))


def _record_all(group: Sequence[Delivery], receipts: Iterable[Receipt], tools: DeliveryTools) -> PeerContact:
    """Record each receipt as it comes. What must be sent again takes all behind it along, so that the order is kept."""
    answers = iter(receipts)
    attempts = max(each.attempts for each in group)
    blocked: Receipt | None = None
    duplicates = []
    for delivery in group:
        receipt = blocked or next(answers)
        if receipt.verdict is Verdict.DUPLICATE:
            duplicates.append((delivery, receipt))
        elif not _record(delivery, receipt, attempts, tools):
            blocked = receipt
    if duplicates:
        # Let go of the association: a peer may take one at a time.
        getattr(answers, "close", lambda: None)()
    for delivery, receipt in duplicates:
        _record(delivery, _look_for(delivery, receipt, tools), attempts, tools)
    silent = blocked is not None and blocked.verdict is Verdict.UNREACHABLE
    return PeerContact.NO_ANSWER if silent else PeerContact.ANSWERED


def _record(delivery: Delivery, receipt: Receipt, attempts: int, tools: DeliveryTools) -> bool:
    """Record what became of a delivery; False where it is sent again, and all behind it with it."""
    if receipt.verdict is Verdict.SENT:
        _sent(delivery, receipt, tools)
    elif _is_final(receipt, attempts, tools.settings):
        _fail(delivery, receipt, tools)
    else:
        _try_again(delivery, receipt, attempts, tools)
        return False
    return True


def _look_for(delivery: Delivery, receipt: Receipt, tools: DeliveryTools) -> Receipt:
    """Ask the peer whether it holds what it calls a duplicate: its answer to an earlier attempt may have been lost.

    Our UIDs are made of the content, so what it holds under this one in this study is the same object.
    """
    destination = tools.settings.destination(delivery.destination)
    assert destination is not None
    calling = tools.settings.listener.ae_title
    try:
        with querying(destination, calling, [delivery], tools.database, tools.clock):
            held = all(tools.kinds[destination.kind].holds(destination, calling, [delivery]))
    except PeerUnreachableError as error:
        return Receipt(Verdict.UNREACHABLE, f"{receipt.note}, and could not be asked for it: {error}")
    except PeerError as error:
        return Receipt(Verdict.REJECTED, f"{receipt.note}, and cannot be asked for it: {error}")
    if held:
        return Receipt(Verdict.SENT, "(it held it already)")
    return Receipt(Verdict.RETRY, f"{receipt.note}, and does not find it in this study when it is asked")


def _is_final(receipt: Receipt, attempts: int, settings: Settings) -> bool:
    """A rejection by the peer is final at once; one that is down or full gets far more attempts than one that fails."""
    if receipt.verdict is Verdict.REJECTED:
        return True
    workers = settings.workers
    return attempts >= (workers.unreachable_attempts if receipt.verdict in _MANY_ATTEMPTS else workers.attempts)


def _sent(delivery: Delivery, receipt: Receipt, tools: DeliveryTools) -> None:
    destination = tools.settings.destination(delivery.destination)
    # An archive that has followed a note need not show it.
    later = None if destination is None or delivery.kind == NOTE else verify_after(destination)
    tools.database.write(deliveries.sent, delivery.id, tools.worker, tools.clock(), later)
    log.info("delivery %d: %s sent to %s %s", delivery.id, delivery.kind, delivery.destination, receipt.note)


def _fail(delivery: Delivery, receipt: Receipt, tools: DeliveryTools) -> None:
    tools.database.write(deliveries.fail, delivery.id, tools.worker, receipt.note, tools.clock())
    log.error("delivery %d to %s has failed: %s", delivery.id, delivery.destination, receipt.note)


def _try_again(delivery: Delivery, receipt: Receipt, attempts: int, tools: DeliveryTools) -> None:
    now = tools.clock()
    after = backoff(attempts, tools.settings)
    tools.database.write(deliveries.retry, delivery.id, tools.worker, receipt.note, now, after)
    log.warning(
        "delivery %d to %s: %s; again in %.0f s", delivery.id, delivery.destination, receipt.note, after.total_seconds()
    )


def _wrong_patient(delivery: Delivery, destination: Destination, tools: DeliveryTools) -> str | None:
    """Say why the study is not what it was when the image came, None where it is the same."""
    calling = tools.settings.listener.ae_title
    with querying(destination, calling, [delivery], tools.database, tools.clock):
        study = tools.kinds[destination.kind].find_study(destination, calling, delivery.study_instance_uid)
    if study is None:
        return _ABSENT
    if study.patient_id.strip() == delivery.patient_id.strip():
        return None
    return "the destination now holds this study under another patient ID"


def _hold(group: Sequence[Delivery], reason: str, tools: DeliveryTools) -> None:
    for delivery in group:
        tools.database.write(deliveries.hold, delivery.id, tools.worker, reason, tools.clock())
        log.warning("delivery %d is on hold: %s", delivery.id, reason)
