"""Delivery of results to destinations: those of one image together, in storing order.

A peer that is sent the same object twice gets the same UID and the same bytes, so a crash between the peer's answer
and our note of it is harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import repeat

from config.destinations import Destination
from config.logging import job_in_log
from config.settings import Settings
from db import deliveries
from db.audit import EXPORT_DEIDENTIFIED, AuditEntry, write_entry
from db.database import Database, Step
from db.leases import LEASE
from db.records import NOTE, Delivery
from workers.audit.transfers import Sending, querying
from workers.backoff import backoff
from workers.clock import Clock
from workers.destinations.destination_kind import (
    DestinationKind,
    NotSupportedError,
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

_ABSENT = "the destination does not hold this study: not yet, or it was merged or deleted"
_LOST_THERE = "the destination does not hold it, and cannot be asked whether it still holds the study"
_LOST = "its process was lost or stopped by the time limit at every attempt"
_ASK_FOR = (Verdict.DUPLICATE, Verdict.UNCLEAR)
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
    now = tools.clock()
    announce = partial(_announcement, tools=tools, now=now)
    taken = tools.database.write(deliveries.claim_with_group, delivery_id, tools.worker, now, LEASE, announce)
    if not taken:
        log.debug("delivery %d is not to be taken", delivery_id)
        return PeerContact.NONE
    group = in_storing_order(taken)
    with job_in_log(group[0].job_id) if group[0].job_id is not None else nullcontext():
        return _deliver_claimed(_without_lost(group, tools), tools)


def _announcement(group: Sequence[Delivery], tools: DeliveryTools, now: datetime) -> AuditEntry | None:
    """The entry of the audit trail before ``group`` is sent; None where it may be that nothing is sent at all."""
    left = [delivery for delivery in group if not _is_lost(delivery, tools)]
    destination = tools.settings.destination(group[0].destination)
    if not left or destination is None or not _is_sent_unasked(left, destination, tools):
        return None
    return Sending(left, destination, tools.settings.listener.ae_title).beginning(now)


def _is_sent_unasked(group: Sequence[Delivery], destination: Destination, tools: DeliveryTools) -> bool:
    return tools.kinds[destination.kind].transfers and not _must_check(group, destination)


def _is_lost(delivery: Delivery, tools: DeliveryTools) -> bool:
    """Whether it has taken its process with it at every attempt."""
    return delivery.lost >= tools.settings.workers.attempts


def _without_lost(group: Sequence[Delivery], tools: DeliveryTools) -> list[Delivery]:
    """Park what has taken its process with it at every attempt, so that it takes no more."""
    notes = _Notes(tools)
    for delivery in group:
        if _is_lost(delivery, tools):
            notes.failed(delivery, Receipt(Verdict.REJECTED, _LOST))
    notes.write()
    return [delivery for delivery in group if not _is_lost(delivery, tools)]


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
            group,
            repeat(Receipt(Verdict.RETRY, f"{type(error).__name__} in this node; the log has it", True)),
            tools,
        )
        return PeerContact.ANSWERED


def _deliver_group(group: Sequence[Delivery], tools: DeliveryTools) -> PeerContact:
    destination = tools.settings.destination(group[0].destination)
    if destination is None:
        _hold(group, "this destination is not in the configuration any more", tools)
        return PeerContact.NONE
    try:
        reason = _wrong_patient(group[0], destination, tools) if _must_check(group, destination) else None
    except NotSupportedError as error:
        if not destination.verify_identity:
            _hold(group, f"{_LOST_THERE}: {error}", tools)
            return PeerContact.ANSWERED
        return _record_all(group, repeat(_unchecked(Verdict.LATER, error)), tools)
    except PeerError as error:
        silent = isinstance(error, PeerUnreachableError)
        verdict = Verdict.UNREACHABLE if silent else Verdict.LATER
        return _record_all(group, repeat(_unchecked(verdict, error)), tools)
    if reason == _ABSENT and _refusals(group) < tools.settings.workers.attempts:
        # A modality may have sent to us and to the archive at once, and we were quicker.
        return _record_all(group, repeat(Receipt(Verdict.RETRY, _ABSENT)), tools)
    if reason is not None:
        _hold(group, reason, tools)
        return PeerContact.ANSWERED
    kind, calling = tools.kinds[destination.kind], tools.settings.listener.ae_title
    objects = _outgoing(group, destination, kind, tools)
    if not kind.transfers:
        return _record_all(group, kind.send(destination, calling, objects), tools)
    going = Sending(group, destination, calling)
    if not _is_sent_unasked(group, destination, tools):
        tools.database.write(write_entry, going.beginning(tools.clock()))
    return _record_all(group, going.noting(kind.send(destination, calling, objects)), tools, going)


def _unchecked(verdict: Verdict, error: PeerError) -> Receipt:
    return Receipt(verdict, f"the study's patient could not be checked: {error}")


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
    rows = tools.database.read(deliveries.study_reports, group[0].study_id) if kind.takes_reports else ()
    reports = tuple(SourceFile(store / path, uid) for path, uid in rows)
    return [
        Outgoing(
            path=store / each.path,
            sop_class_uid=each.sop_class_uid,
            sop_instance_uid=each.sop_instance_uid,
            kind=each.kind,
            images=images,
            digest=each.digest,
            reports=reports,
            made_at=each.made_at,
        )
        for each in group
    ]


def _must_check(group: Sequence[Delivery], destination: Destination) -> bool:
    """Whether the peer is asked for the study first.

    What it has lost since it took it may have gone with its study, deleted or merged by a person: sent again unasked,
    it would bring that study back, under the former patient.
    """
    return destination.verify_identity or any(each.missing for each in group)


def in_storing_order(rows: Sequence[Delivery]) -> list[Delivery]:
    """Sort so that an object comes before those that refer to it."""
    return sorted(rows, key=lambda each: (STORING_ORDER.index(each.kind), each.id))


@dataclass(slots=True)
class _Notes:
    """Outcomes of the objects of a group. They are written when the group is through, in one transaction.

    Where the process is lost before, the objects are sent again, as where it is lost before any other note.
    """

    tools: DeliveryTools
    steps: list[Step] = field(default_factory=list)
    lines: list[tuple[int, str, tuple[object, ...]]] = field(default_factory=list)

    def write(self, entries: Iterable[AuditEntry] = ()) -> None:
        """Write it all, with ``entries`` of the audit trail, and then the log."""
        # The trail last: nobody else can append from then on.
        self.tools.database.write_all([*self.steps, *((write_entry, (entry,)) for entry in entries)])
        for level, text, values in self.lines:
            log.log(level, text, *values)

    def sent(self, delivery: Delivery, receipt: Receipt) -> None:
        """The peer has it."""
        destination = self.tools.settings.destination(delivery.destination)
        # An archive that has followed a note need not show it.
        later = None if destination is None or delivery.kind == NOTE else verify_after(destination)
        self.steps.append((deliveries.sent, (delivery.id, self.tools.worker, self.tools.clock(), later)))
        where = f"{delivery.destination} {receipt.note}".rstrip()
        self.lines.append((logging.INFO, "delivery %d: %s sent to %s", (delivery.id, delivery.kind, where)))

    def failed(self, delivery: Delivery, receipt: Receipt) -> None:
        """It is not sent again."""
        now, unanswered = self.tools.clock(), receipt.may_have_arrived
        self.steps.append((deliveries.fail, (delivery.id, self.tools.worker, receipt.note, now, unanswered)))
        values = (delivery.id, delivery.destination, receipt.note)
        self.lines.append((logging.ERROR, "delivery %d to %s has failed: %s", values))

    def again(self, delivery: Delivery, receipt: Receipt, attempts: int) -> None:
        """It is sent again after a while."""
        after, now = backoff(attempts, self.tools.settings), self.tools.clock()
        outcome = (now, after, receipt.may_have_arrived, receipt.verdict is Verdict.RETRY)
        self.steps.append((deliveries.retry, (delivery.id, self.tools.worker, receipt.note, *outcome)))
        values = (delivery.id, delivery.destination, receipt.note, after.total_seconds())
        self.lines.append((logging.WARNING, "delivery %d to %s: %s; again in %.0f s", values))


def _record_all(
    group: Sequence[Delivery], receipts: Iterable[Receipt], tools: DeliveryTools, going: Sending | None = None
) -> PeerContact:
    """Record the receipts. What must be sent again takes all behind it along, so that the order is kept."""
    notes = _Notes(tools)
    try:
        # What was not sent to anybody is asked of nobody.
        blocked = _take_receipts(group, iter(receipts), notes, asks=going is not None)
    finally:
        notes.write(going.outcome(tools.clock()) if going is not None else ())
    silent = blocked is not None and blocked.verdict is Verdict.UNREACHABLE
    return PeerContact.NO_ANSWER if silent else PeerContact.ANSWERED


def _take_receipts(
    group: Sequence[Delivery], answers: Iterator[Receipt], notes: _Notes, *, asks: bool
) -> Receipt | None:
    """Note every receipt; gives the one after which nothing more was sent."""
    tries = _Tries(max(each.attempts for each in group), _refusals(group))
    blocked: Receipt | None = None
    to_ask_for = []
    for delivery in group:
        receipt = blocked or next(answers)
        last = asks and receipt.may_have_arrived and _is_given_up(receipt, tries, notes.tools.settings)
        if receipt.verdict in _ASK_FOR or last:
            to_ask_for.append((delivery, receipt))
        elif not _note(delivery, receipt, tries, notes):
            blocked = replace(receipt, may_have_arrived=False)  # what is behind it was not sent
    if to_ask_for:
        # Let go of the association: a peer may take one at a time.
        getattr(answers, "close", lambda: None)()
    for delivery, receipt in to_ask_for:
        _note(delivery, _look_for(delivery, receipt, notes.tools), tries, notes)
    return blocked


@dataclass(frozen=True, slots=True)
class _Tries:
    """Attempts at a group, this one included; ``refused``: of them those that its peer refuses, if it does so now.

    A peer that was away for a night must not be given up at the first word with which it comes back.
    """

    attempts: int
    refused: int


def _refusals(group: Sequence[Delivery]) -> int:
    return 1 + max(each.refused for each in group)


def _note(delivery: Delivery, receipt: Receipt, tries: _Tries, notes: _Notes) -> bool:
    """Record the outcome of a delivery; False where it is sent again, and all behind it with it."""
    if receipt.verdict is Verdict.SENT:
        notes.sent(delivery, receipt)
    elif _is_final(receipt, tries, notes.tools.settings):
        notes.failed(delivery, receipt)
    else:
        notes.again(delivery, receipt, tries.attempts)
        return False
    return True


def _look_for(delivery: Delivery, receipt: Receipt, tools: DeliveryTools) -> Receipt:
    """Ask the peer whether it holds what it calls a duplicate, does not name in its answer, or may have all the same.

    Of a duplicate its answer to an earlier attempt may have been lost. A server may store what it answers with an
    error, and is asked before that is given up.

    Our UIDs are made of the content, so what it holds under this one in this study is the same object.
    """
    destination = tools.settings.destination(delivery.destination)
    assert destination is not None
    calling = tools.settings.listener.ae_title
    try:
        with querying(destination, calling, [delivery], tools.database, tools.clock):
            held = all(tools.kinds[destination.kind].holds(destination, calling, [delivery]))
    except PeerUnreachableError as error:
        return Receipt(Verdict.UNREACHABLE, f"{receipt.note}, and could not be asked for it: {error}", True)
    except PeerError as error:
        return Receipt(Verdict.REJECTED, f"{receipt.note}, and cannot be asked for it: {error}", True)
    if held:
        already = receipt.verdict is Verdict.DUPLICATE
        return Receipt(Verdict.SENT, "(it held it already)" if already else "(it says so when it is asked)")
    return Receipt(Verdict.RETRY, f"{receipt.note}, and does not find it in this study when it is asked", True)


def _is_final(receipt: Receipt, tries: _Tries, settings: Settings) -> bool:
    """A rejection by the peer is final at once; one that is down or full gets far more attempts than one that fails."""
    return receipt.verdict is Verdict.REJECTED or _is_given_up(receipt, tries, settings)


def _is_given_up(receipt: Receipt, tries: _Tries, settings: Settings) -> bool:
    """Whether this was the last of its attempts."""
    if receipt.verdict is Verdict.REJECTED:
        return False
    if receipt.verdict in _MANY_ATTEMPTS:
        return tries.attempts >= settings.workers.unreachable_attempts
    return tries.refused >= settings.workers.attempts


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
    now = tools.clock()
    tools.database.write_all([(deliveries.hold, (delivery.id, tools.worker, reason, now)) for delivery in group])
    for delivery in group:
        log.warning("delivery %d is on hold: %s", delivery.id, reason)
