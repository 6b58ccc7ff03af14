"""prove() and take_report() with a hand-written peer: what follows from each answer, and from none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.settings import Destination, Settings, Store, Workers
from db.records import Unproven
from tests.workers.builders import FakeClock
from workers.destinations.destination_kind import HeldStudy, Outgoing, PeerError, Receipt, StoredObject
from workers.verification import ProofTools, Step, after_missing, prove, prove_after, take_report, wait_after


def unproven(number: int = 1, **changes: Any) -> Unproven:
    row = Unproven(number, "pacs", "1.2.1", f"1.2.3.{number}", "1.2.4", "1.2.5", 1, 0, "2.25.1")
    return replace(row, **changes)


class FakeProofs:
    """Rows that are all due, and what became of them."""

    def __init__(self, *rows: Unproven) -> None:
        self.rows = list(rows)
        self.notes: list[tuple[Any, ...]] = []

    def claim_proofs(
        self, delivery_id: int, transaction_uid: str, now: datetime, lease: timedelta
    ) -> tuple[Unproven, ...]:
        return tuple(replace(row, transaction_uid=transaction_uid) for row in self.rows)

    def asked_in(self, transaction_uid: str, sop_instance_uids: Sequence[str]) -> tuple[Unproven, ...]:
        mine = [row for row in self.rows if row.transaction_uid == transaction_uid]
        return tuple(row for row in mine if row.sop_instance_uid in sop_instance_uids)

    def delivery_proven(self, asked: Unproven, now: datetime) -> bool:
        self.notes.append((asked.id, "proven"))
        return True

    def postpone_proof(self, asked: Unproven, note: str, due: datetime | None, *, missing: bool = False) -> bool:
        self.notes.append((asked.id, "missing" if missing else "later", note, due))
        return True

    def send_again(self, asked: Unproven, cause: str, now: datetime) -> bool:
        self.notes.append((asked.id, "again", cause))
        return True

    def give_up_proof(self, asked: Unproven, cause: str, now: datetime) -> bool:
        self.notes.append((asked.id, "given up", cause))
        return True


class FakePeer:
    """A peer that holds what it is told to hold; an error where it should not answer."""

    def __init__(self, *held: bool | PeerError, commitment: PeerError | None = None) -> None:
        self.held = held
        self.commitment = commitment
        self.requests: list[tuple[str, list[str]]] = []

    def send(self, destination: Destination, calling: str, objects: Sequence[Outgoing]) -> Iterator[Receipt]:
        raise AssertionError("nothing is sent here")

    def verify(self, destination: Destination, calling: str) -> None:
        raise AssertionError("nobody verifies here")

    def find_study(self, destination: Destination, calling: str, study_instance_uid: str) -> HeldStudy | None:
        raise AssertionError("nobody asks for a study here")

    def verify_proof(self, destination: Destination, calling: str) -> None:
        raise AssertionError("nobody verifies here")

    def holds(self, destination: Destination, calling: str, objects: Sequence[StoredObject]) -> Iterator[bool]:
        for held in self.held:
            if isinstance(held, PeerError):
                raise held
            yield held

    def request_commitment(
        self, destination: Destination, calling: str, transaction_uid: str, objects: Sequence[StoredObject]
    ) -> None:
        if self.commitment is not None:
            raise self.commitment
        self.requests.append((transaction_uid, [each.sop_instance_uid for each in objects]))


@pytest.fixture
def tools(tmp_path: Path) -> Callable[..., ProofTools]:
    def make(rows: FakeProofs, peer: FakePeer, proof: str = "query", name: str = "pacs") -> ProofTools:
        where: dict[str, Any] = {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": 104, "proof": proof}
        settings = Settings(
            store=Store(folder=tmp_path),
            workers=Workers(attempts=3, unreachable_attempts=5),
            destinations=(Destination(**where, proof_seconds=10),),
        )
        return ProofTools(settings, rows, {"dimse": peer}, FakeClock(), lambda: "2.25.99")

    return make


def at(tools: ProofTools, seconds: float) -> datetime:
    return tools.clock() + timedelta(seconds=seconds)


def test_each_object_gets_its_answer(tools: Callable[..., ProofTools]) -> None:
    rows = FakeProofs(unproven(1), unproven(2))
    with_tools = tools(rows, FakePeer(True, False))
    prove(1, with_tools)
    note = "the destination took it and does not hold it; it is asked again"
    assert rows.notes == [(1, "proven"), (2, "missing", note, at(with_tools, 20))]


def test_what_a_lost_connection_leaves_open_is_asked_again(tools: Callable[..., ProofTools]) -> None:
    rows = FakeProofs(unproven(1), unproven(2, attempts=3), unproven(3, attempts=5))
    with_tools = tools(rows, FakePeer(True, PeerError("no answer")))
    prove(1, with_tools)
    assert rows.notes == [
        (1, "proven"),
        (2, "later", "not proven yet: no answer", at(with_tools, 80)),
        (3, "later", "never proven: asked 5 times in vain", None),
    ]


@pytest.mark.parametrize(
    ("missing", "step"), [(0, "missing"), (1, "missing"), (2, "again"), (3, "missing"), (5, "given up")]
)
def test_what_is_lost_is_sent_again_once(tools: Callable[..., ProofTools], missing: int, step: str) -> None:
    rows = FakeProofs(unproven(missing=missing))
    prove(1, tools(rows, FakePeer(False)))
    assert [note[1] for note in rows.notes] == [step]


def test_steps_after_missing() -> None:
    steps = [after_missing(number, 2) for number in range(1, 6)]
    assert steps == [Step.ASK_AGAIN, Step.SEND_AGAIN, Step.ASK_AGAIN, Step.GIVE_UP, Step.GIVE_UP]
    assert [after_missing(number, 1) for number in (1, 2)] == [Step.SEND_AGAIN, Step.GIVE_UP]


def test_a_commitment_is_requested_for_all_at_once_and_waited_for(tools: Callable[..., ProofTools]) -> None:
    rows, peer = FakeProofs(unproven(1), unproven(2)), FakePeer()
    with_tools = tools(rows, peer, "commitment")
    prove(1, with_tools)
    assert peer.requests == [("2.25.99", ["1.2.3.1", "1.2.3.2"])]
    assert [note[1:] for note in rows.notes] == [
        ("later", "the destination was asked for Storage Commitment and has not reported yet", at(with_tools, 20))
    ] * 2


def test_a_peer_without_commitment_is_told_of(tools: Callable[..., ProofTools]) -> None:
    rows = FakeProofs(unproven(1))
    prove(1, tools(rows, FakePeer(commitment=PeerError("it does not offer Storage Commitment")), "commitment"))
    assert rows.notes[0][2] == "not proven yet: it does not offer Storage Commitment"


def test_a_report_proves_what_is_safe_and_tells_what_is_not(tools: Callable[..., ProofTools]) -> None:
    rows = FakeProofs(unproven(1), unproven(2), unproven(3), unproven(4, transaction_uid="2.25.2"))
    with_tools = tools(rows, FakePeer(), "commitment")
    found = take_report("2.25.1", ["1.2.3.1", "1.2.3.4"], {"1.2.3.2": "no such object"}, with_tools)
    assert found == (1, 1)
    note = "the destination took it and does not hold it (no such object); it is asked again"
    assert rows.notes == [(1, "proven"), (2, "missing", note, at(with_tools, 20))]
    assert take_report("2.25.77", ["1.2.3.1"], {}, with_tools) == (0, 0)


@pytest.mark.parametrize(("name", "proof"), [("other", "query"), ("pacs", "none")])
def test_a_destination_that_need_not_prove_any_more_is_not_asked(
    tools: Callable[..., ProofTools], name: str, proof: str
) -> None:
    rows = FakeProofs(unproven(1))
    prove(1, tools(rows, FakePeer(PeerError("never asked")), proof, name))
    assert rows.notes == [(1, "later", "", None)]


def test_nothing_is_asked_where_somebody_else_asks(tools: Callable[..., ProofTools]) -> None:
    rows = FakeProofs()
    prove(1, tools(rows, FakePeer(PeerError("never asked"))))
    assert rows.notes == []


def test_waits_double_up_to_an_hour() -> None:
    pacs = Destination(name="a", ae_title="A", host="h", port=1, proof="query", proof_seconds=60)
    assert [wait_after(number, pacs).total_seconds() for number in (1, 2, 5, 6, 200)] == [120, 240, 1920, 3600, 3600]
    slow = pacs.model_copy(update={"proof_seconds": 7200.0})
    assert wait_after(1, slow) == timedelta(hours=2), "never sooner than the hospital asked for"
    assert prove_after(pacs) == timedelta(minutes=1)
    assert prove_after(pacs.model_copy(update={"proof": "none"})) is None
