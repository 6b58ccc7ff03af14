"""Storage verification: a destination is asked for what it accepted, and gets again what it does not hold.

An answer to C-STORE says that the bytes have arrived. Whether they are in the archive is another matter: it may
quarantine what it cannot match, or lose it in a crash. With ``verification`` a destination is asked later, by C-FIND
or by Storage Commitment (PS3.4 Annex J), whose report comes to the listener at a time of the peer's choosing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

from pydicom.uid import generate_uid

from config.destinations import Destination
from config.settings import Settings
from db import verification
from db.database import Database
from db.database import Step as Written
from db.records import Unverified
from workers.audit.transfers import querying
from workers.clock import Clock, utc_now
from workers.destinations.destination_kind import DestinationKind, PeerContact, PeerError, PeerUnreachableError
from workers.destinations.destination_kinds import destination_kinds

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 3600.0
_LEASE_WAITS = 8
"""A question takes connecting, associating, releasing, and an answer for each object; what is not asked in this many
waits is asked again, which does no harm."""

_AT_ONCE = 20
"""So many answers are written in one transaction."""

_LOST = "the destination took it and does not hold it"


@dataclass(frozen=True, slots=True)
class VerificationTools:
    """All that :func:`verify_storage` and :func:`take_report` work with."""

    settings: Settings
    database: Database
    kinds: Mapping[str, DestinationKind]
    clock: Clock
    new_uid: Callable[[], str]


def verification_tools(settings: Settings, database: Database) -> VerificationTools:
    """What a node verifies deliveries with."""
    return VerificationTools(
        settings, database, destination_kinds(settings), utc_now, lambda: str(generate_uid(prefix=None))
    )


class Step(Enum):
    """What follows from a destination's word that it does not hold an object."""

    ASK_AGAIN = auto()
    SEND_AGAIN = auto()
    GIVE_UP = auto()


def after_missing(missing: int, attempts: int) -> Step:
    """Say what follows when a destination has said ``missing`` times (this one included) that it holds no such object.

    An archive may need its time, so it is asked ``attempts`` times before the object is sent again, once.
    """
    if missing == attempts:
        return Step.SEND_AGAIN
    return Step.GIVE_UP if missing >= 2 * attempts else Step.ASK_AGAIN


def wait_after(attempts: int, destination: Destination) -> timedelta:
    """How long to wait after the question with number ``attempts`` (from 1): doubling, up to an hour."""
    seconds = destination.verification_after_seconds * 2.0 ** min(attempts, 32)
    return timedelta(seconds=min(seconds, max(LONGEST_WAIT_SECONDS, destination.verification_after_seconds)))


def verify_after(destination: Destination) -> timedelta | None:
    """How long after sending a destination is first asked; None where nobody asks."""
    return None if destination.verification == "none" else timedelta(seconds=destination.verification_after_seconds)


def verify_storage(delivery_id: int, tools: VerificationTools) -> PeerContact:
    """Ask a delivery's destination whether it holds the object, and all others about which it is to be asked now."""
    settings = tools.settings
    slowest = max((each.timeout_seconds for each in settings.destinations), default=0.0)
    lease = timedelta(seconds=_LEASE_WAITS * slowest)
    asked = tools.database.write(verification.claim, delivery_id, tools.new_uid(), tools.clock(), lease)
    if not asked:
        log.debug("delivery %d needs no verification now", delivery_id)
        return PeerContact.NONE
    destination = settings.destination(asked[0].destination)
    if destination is None or destination.verification == "none":
        tools.database.write_all([(verification.postpone, (each, "", None)) for each in asked])
        return PeerContact.NONE
    calling = settings.listener.ae_title
    ask = _request if destination.verification == "commitment" else _query
    return ask(asked, destination, calling, tools)


def _query(
    asked: Sequence[Unverified], destination: Destination, calling: str, tools: VerificationTools
) -> PeerContact:
    heard: list[_Note] = []
    try:
        with querying(destination, calling, asked, tools.database, tools.clock):
            for held in tools.kinds[destination.kind].holds(destination, calling, asked):
                heard.append(_heard(asked[len(heard)], held, destination, tools))
    except PeerError as error:
        _write([*heard, *_unheard(asked[len(heard) :], f"not verified yet: {error}", destination, tools)], tools)
        return _contact(error)
    _write(heard, tools)
    return PeerContact.ANSWERED


def _request(
    asked: Sequence[Unverified], destination: Destination, calling: str, tools: VerificationTools
) -> PeerContact:
    contact = PeerContact.ANSWERED
    note = "the destination was asked for Storage Commitment and has not reported yet"
    try:
        kind = tools.kinds[destination.kind]
        kind.request_commitment(destination, calling, asked[0].transaction_uid, asked)
    except PeerError as error:
        note, contact = f"not verified yet: {error}", _contact(error)
    _write([*_unheard(asked, note, destination, tools)], tools)
    return contact


def _contact(error: PeerError) -> PeerContact:
    return PeerContact.NO_ANSWER if isinstance(error, PeerUnreachableError) else PeerContact.ANSWERED


def take_report(
    transaction_uid: str, committed: Sequence[str], failed: Mapping[str, str], tools: VerificationTools
) -> tuple[int, int]:
    """Take a Storage Commitment report: SOP Instance UIDs that the peer holds, and why it does not hold others.

    Returns how many of our objects it verifies and how many it does not; a report on nothing that we wait for is (0,
    0).
    """
    # What a report names as both is not safe.
    held = [uid for uid in committed if uid not in failed]
    verified = tools.database.read(verification.asked_in, transaction_uid, held)
    missing = tools.database.read(verification.asked_in, transaction_uid, list(failed))
    notes = []
    for each in (*verified, *missing):
        reason = failed.get(each.sop_instance_uid)
        destination = tools.settings.destination(each.destination)
        if destination is not None:
            notes.append(_heard(each, reason is None, destination, tools, reason or ""))
    _write(notes, tools)
    return len(verified), len(missing)


_Note = tuple[Written, int, str]
"""What is written of an object, and the level and words of its line in the log."""


def _write(notes: Sequence[_Note], tools: VerificationTools) -> None:
    """Write a few at a time, in the order of their rows: each commit waits for the disk, and others wait for us."""
    in_order = sorted(notes, key=lambda note: int(note[0][1][0].id))
    for start in range(0, len(in_order), _AT_ONCE):
        few = in_order[start : start + _AT_ONCE]
        tools.database.write_all([step for step, _, _ in few])
        for (_, (asked, *_)), level, words in few:
            log.log(level, "delivery %d to %s: %s", asked.id, asked.destination, words)


def _heard(
    asked: Unverified, held: bool, destination: Destination, tools: VerificationTools, reason: str = ""
) -> _Note:
    now = tools.clock()
    if held:
        return (verification.verified, (asked, now)), logging.INFO, "the destination holds it"
    cause = f"{_LOST} ({reason})" if reason else _LOST
    step = after_missing(asked.missing + 1, tools.settings.workers.attempts)
    words = f"{cause} ({step.name.lower()})"
    if step is Step.ASK_AGAIN:
        due = now + wait_after(asked.attempts, destination)
        return (verification.postpone, (asked, f"{cause}; it is asked again", due, 1)), logging.WARNING, words
    if step is Step.SEND_AGAIN:
        return (verification.send_again, (asked, f"{cause}; it is sent again", now)), logging.WARNING, words
    return (verification.give_up, (asked, f"{cause}, though it was sent twice", now)), logging.WARNING, words


def _unheard(
    asked: Sequence[Unverified], note: str, destination: Destination, tools: VerificationTools
) -> Iterator[_Note]:
    """Nothing is known yet: ask again later, and at last no more; what was sent stays sent, with a note."""
    now = tools.clock()
    for each in asked:
        last = each.attempts >= tools.settings.workers.unreachable_attempts
        due = None if last else now + wait_after(each.attempts, destination)
        words = f"never verified: asked {each.attempts} times in vain" if last else note
        yield (verification.postpone, (each, words, due)), logging.WARNING if last else logging.DEBUG, words
