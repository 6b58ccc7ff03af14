"""verify() and take_report() with a hand-written peer: what follows from each answer, and from none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from config.destinations import Destination
from config.settings import Settings, Store, Workers
from db import verification
from db.records import Unverified
from tests.scripted import Scripted
from tests.workers.builders import FakeClock
from workers.destinations.destination_kind import DestinationKind, Outgoing, PeerError, Receipt, StoredObject
from workers.verification import (
    Step,
    VerificationTools,
    after_missing,
    take_report,
    verify_after,
    verify_storage,
    wait_after,
)


def unverified(number: int = 1, **changes: Any) -> Unverified:
    row = Unverified(number, "pacs", "1.2.1", f"1.2.3.{number}", "1.2.4", "1.2.5", 1, 0, "2.25.1")
    return replace(row, **changes)


class FakeVerifications(Scripted):
    """Rows that are all due, and what became of them."""

    answers: ClassVar[Mapping[Callable[..., Any], str]] = {
        verification.claim: "claim_verifications",
        verification.asked_in: "asked_in",
        verification.verified: "delivery_verified",
        verification.postpone: "postpone_verification",
        verification.send_again: "send_again",
        verification.give_up: "give_up_verification",
    }

    def __init__(self, *rows: Unverified) -> None:
        super().__init__()
        self.rows = list(rows)
        self.notes: list[tuple[Any, ...]] = []

    def claim_verifications(
        self, delivery_id: int, transaction_uid: str, now: datetime, lease: timedelta
    ) -> tuple[Unverified, ...]:
        return tuple(replace(row, transaction_uid=transaction_uid) for row in self.rows)

    def asked_in(self, transaction_uid: str, sop_instance_uids: Sequence[str]) -> tuple[Unverified, ...]:
        mine = [row for row in self.rows if row.transaction_uid == transaction_uid]
        return tuple(row for row in mine if row.sop_instance_uid in sop_instance_uids)

    def delivery_verified(self, asked: Unverified, now: datetime) -> bool:
        self.notes.append((asked.id, "verified"))
        return True

    def postpone_verification(self, asked: Unverified, note: str, due: datetime | None, missing: int = 0) -> bool:
        self.notes.append((asked.id, "missing" if missing else "later", note, due))
        return True

    def send_again(self, asked: Unverified, cause: str, now: datetime) -> bool:
        self.notes.append((asked.id, "again", cause))
        return True

    def give_up_verification(self, asked: Unverified, cause: str, now: datetime) -> bool:
        self.notes.append((asked.id, "given up", cause))
        return True


class FakePeer(DestinationKind):
    """A peer that holds what it is told to hold; an error where it should not answer."""

    def __init__(self, *on_hold: bool | PeerError, commitment: PeerError | None = None) -> None:
        self.on_hold = on_hold
        self.commitment = commitment
        self.requests: list[tuple[str, list[str]]] = []

    def send(self, destination: Destination, calling: str, objects: Sequence[Outgoing]) -> Iterator[Receipt]:
        raise AssertionError("nothing is sent here")

    def verify(self, destination: Destination, calling: str) -> None:
        raise AssertionError("nobody verifies here")

    def holds(self, destination: Destination, calling: str, objects: Sequence[StoredObject]) -> Iterator[bool]:
        for on_hold in self.on_hold:
            if isinstance(on_hold, PeerError):
                raise on_hold
            yield on_hold

    def request_commitment(
        self, destination: Destination, calling: str, transaction_uid: str, objects: Sequence[StoredObject]
    ) -> None:
        if self.commitment is not None:
            raise self.commitment
        self.requests.append((transaction_uid, [each.sop_instance_uid for each in objects]))


@pytest.fixture
def tools(tmp_path: Path) -> Callable[..., VerificationTools]:
    def make(
        rows: FakeVerifications, peer: FakePeer, verification: str = "query", name: str = "pacs"
    ) -> VerificationTools:
        where: dict[str, Any] = {
            "name": name,
            "ae_title": "PACS",
            "host": "127.0.0.1",
            "port": 104,
            "verification": verification,
        }
        settings = Settings(
            store=Store(folder=tmp_path),
            workers=Workers(attempts=3, unreachable_attempts=5),
            destinations=(Destination(**where, verification_after_seconds=10),),
        )
        return VerificationTools(settings, rows, {"dimse": peer}, FakeClock(), lambda: "2.25.99")

    return make


def at(tools: VerificationTools, seconds: float) -> datetime:
    return tools.clock() + timedelta(seconds=seconds)


def test_each_object_gets_its_answer(tools: Callable[..., VerificationTools]) -> None:
    rows = FakeVerifications(unverified(1), unverified(2))
    with_tools = tools(rows, FakePeer(True, False))
    verify_storage(1, with_tools)
    note = "the destination took it and does not hold it; it is asked again"
    assert rows.notes == [(1, "verified"), (2, "missing", note, at(with_tools, 20))]


def test_what_a_lost_connection_leaves_open_is_asked_again(tools: Callable[..., VerificationTools]) -> None:
    rows = FakeVerifications(unverified(1), unverified(2, attempts=3), unverified(3, attempts=5))
    with_tools = tools(rows, FakePeer(True, PeerError("no answer")))
    verify_storage(1, with_tools)
    assert rows.notes == [
        (1, "verified"),
        (2, "later", "not verified yet: no answer", at(with_tools, 80)),
        (3, "later", "never verified: asked 5 times in vain", None),
    ]


@pytest.mark.parametrize(
    ("missing", "step"), [(0, "missing"), (1, "missing"), (2, "again"), (3, "missing"), (5, "given up")]
)
def test_what_is_lost_is_sent_again_once(tools: Callable[..., VerificationTools], missing: int, step: str) -> None:
    rows = FakeVerifications(unverified(missing=missing))
    verify_storage(1, tools(rows, FakePeer(False)))
    assert [note[1] for note in rows.notes] == [step]


def test_steps_after_missing() -> None:
    steps = [after_missing(number, 2) for number in range(1, 6)]
    assert steps == [Step.ASK_AGAIN, Step.SEND_AGAIN, Step.ASK_AGAIN, Step.GIVE_UP, Step.GIVE_UP]
    assert [after_missing(number, 1) for number in (1, 2)] == [Step.SEND_AGAIN, Step.GIVE_UP]


def test_a_commitment_is_requested_for_all_at_once_and_waited_for(tools: Callable[..., VerificationTools]) -> None:
    rows, peer = FakeVerifications(unverified(1), unverified(2)), FakePeer()
    with_tools = tools(rows, peer, "commitment")
    verify_storage(1, with_tools)
    assert peer.requests == [("2.25.99", ["1.2.3.1", "1.2.3.2"])]
    assert [note[1:] for note in rows.notes] == [
        ("later", "the destination was asked for Storage Commitment and has not reported yet", at(with_tools, 20))
    ] * 2


def test_a_peer_without_commitment_is_told_of(tools: Callable[..., VerificationTools]) -> None:
    rows = FakeVerifications(unverified(1))
    verify_storage(1, tools(rows, FakePeer(commitment=PeerError("it does not offer Storage Commitment")), "commitment"))
    assert rows.notes[0][2] == "not verified yet: it does not offer Storage Commitment"


def test_a_report_verifies_what_is_safe_and_tells_what_is_not(tools: Callable[..., VerificationTools]) -> None:
    rows = FakeVerifications(unverified(1), unverified(2), unverified(3), unverified(4, transaction_uid="2.25.2"))
    with_tools = tools(rows, FakePeer(), "commitment")
    found = take_report("2.25.1", ["1.2.3.1", "1.2.3.4"], {"1.2.3.2": "no such object"}, with_tools)
    assert found == (1, 1)
    note = "the destination took it and does not hold it (no such object); it is asked again"
    assert rows.notes == [(1, "verified"), (2, "missing", note, at(with_tools, 20))]
    assert take_report("2.25.77", ["1.2.3.1"], {}, with_tools) == (0, 0)
    assert take_report("2.25.1", ["1.2.3.3"], {"1.2.3.3": "no such object"}, with_tools) == (0, 1), "both is not safe"
    assert rows.notes[2:] == [(3, "missing", note, at(with_tools, 20))]


@pytest.mark.parametrize(("name", "verification"), [("other", "query"), ("pacs", "none")])
def test_a_destination_that_need_not_verify_any_more_is_not_asked(
    tools: Callable[..., VerificationTools], name: str, verification: str
) -> None:
    rows = FakeVerifications(unverified(1))
    verify_storage(1, tools(rows, FakePeer(PeerError("never asked")), verification, name))
    assert rows.notes == [(1, "later", "", None)]


def test_nothing_is_asked_where_somebody_else_asks(tools: Callable[..., VerificationTools]) -> None:
    rows = FakeVerifications()
    verify_storage(1, tools(rows, FakePeer(PeerError("never asked"))))
    assert rows.notes == []


def test_waits_double_up_to_an_hour() -> None:
    pacs = Destination(name="a", ae_title="A", host="h", port=1, verification="query", verification_after_seconds=60)
    assert [wait_after(number, pacs).total_seconds() for number in (1, 2, 5, 6, 200)] == [120, 240, 1920, 3600, 3600]
    slow = pacs.model_copy(update={"verification_after_seconds": 7200.0})
    assert wait_after(1, slow) == timedelta(hours=2), "never sooner than the hospital asked for"
    assert verify_after(pacs) == timedelta(minutes=1)
    assert verify_after(pacs.model_copy(update={"verification": "none"})) is None
