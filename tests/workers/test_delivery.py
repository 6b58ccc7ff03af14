"""deliver() with a hand-written peer: what goes together, what is tried again, and what is on hold."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydicom import dcmread

from config.destinations import Destination
from config.settings import Settings, Store, Workers
from db import deliveries
from db.records import Delivery
from db.states import DeliveryState
from tests.scripted import Scripted
from tests.workers.builders import FakeClock, delivery
from workers.delivery import DeliveryTools, deliver, in_storing_order, longest_delivery
from workers.destinations.destination_kind import (
    DestinationKind,
    NotSupportedError,
    Outgoing,
    PeerContact,
    PeerError,
    PeerStudy,
    PeerUnreachableError,
    Receipt,
    SourceFile,
    StoredObject,
    Verdict,
)

SENT = Receipt(Verdict.SENT)
RETRY = Receipt(Verdict.RETRY, "busy")
DOWN = Receipt(Verdict.UNREACHABLE, "no answer")
FULL = Receipt(Verdict.LATER, "no room")
DUPLICATE = Receipt(Verdict.DUPLICATE, "it is here")
UNCLEAR = Receipt(Verdict.UNCLEAR, "it does not say", may_have_arrived=True)
NOT_ELIGIBLE = Receipt(Verdict.REJECTED, "not this class")


class FakeDeliveries(Scripted):
    """Deliveries by id, claimable while they are pending and due."""

    answers: ClassVar[Mapping[Callable[..., Any], str]] = {
        deliveries.claim_with_group: "claim_deliveries",
        deliveries.sent: "delivery_sent",
        deliveries.retry: "retry_delivery",
        deliveries.fail: "fail_delivery",
        deliveries.hold: "hold_delivery",
        deliveries.study_reports: "study_reports",
    }

    def __init__(self, *rows: Delivery) -> None:
        super().__init__()
        self.rows = {row.id: row for row in rows}
        self.notes: list[tuple[Any, ...]] = []
        self.unanswered: list[int] = []

    def _take(self, number: int) -> Delivery | None:
        row = self.rows[number]
        if row.state is not DeliveryState.PENDING:
            return None
        self.rows[number] = replace(row, state=DeliveryState.SENDING, attempts=row.attempts + 1)
        return self.rows[number]

    def _end(self, number: int, state: DeliveryState, *note: Any) -> bool:
        self.rows[number] = replace(self.rows[number], state=state)
        self.notes.append((number, state.value, *note))
        return True

    def claim_deliveries(
        self, delivery_id: int, worker: str, now: datetime, lease: timedelta, announce: deliveries.Announce
    ) -> tuple[Delivery, ...]:
        first = self.rows[delivery_id]
        if first.state is not DeliveryState.PENDING:
            return ()
        same = [one for one in self.rows.values() if (one.destination, one.job_id) == (first.destination, first.job_id)]
        taken = tuple(row for row in (self._take(one.id) for one in same) if row is not None)
        entry = announce(taken)
        self.audited += [entry] if entry is not None else []
        return taken

    def delivery_sent(
        self, delivery_id: int, worker: str, now: datetime, verify_after: timedelta | None = None
    ) -> bool:
        return self._end(delivery_id, DeliveryState.SENT, *([] if verify_after is None else [verify_after]))

    def retry_delivery(
        self,
        delivery_id: int,
        worker: str,
        error: str,
        now: datetime,
        after: timedelta,
        unanswered: bool,
        refused: bool,
    ) -> bool:
        self.unanswered += [delivery_id] if unanswered else []
        row = self.rows[delivery_id]
        self.rows[delivery_id] = replace(row, refused=row.refused + int(refused))
        return self._end(delivery_id, DeliveryState.PENDING, error, after.total_seconds())

    def fail_delivery(self, delivery_id: int, worker: str, error: str, now: datetime, unanswered: bool) -> bool:
        self.unanswered += [delivery_id] if unanswered else []
        return self._end(delivery_id, DeliveryState.FAILED, error)

    def study_reports(self, study_id: int) -> tuple[tuple[str, str], ...]:
        return (("results/aa/aa.dcm", "1.2.3"),)

    def hold_delivery(self, delivery_id: int, worker: str, reason: str, now: datetime) -> bool:
        return self._end(delivery_id, DeliveryState.ON_HOLD, reason)


class FakePeer(DestinationKind):
    """A peer that answers as it is told, one receipt an object, and notes what it was sent."""

    def __init__(
        self,
        *receipts: Receipt,
        on_hold: PeerStudy | PeerError | None = None,
        holds: bool | PeerError | None = None,
    ) -> None:
        self.receipts = list(receipts)
        self.on_hold = on_hold
        self.objects = holds
        self.words = "PATIENT^NAME"
        self.groups: list[list[str]] = []
        self.reports: tuple[SourceFile, ...] = ()

    def send(self, destination: Destination, calling: str, objects: Sequence[Outgoing]) -> Iterator[Receipt]:
        self.groups.append([each.sop_instance_uid for each in objects])
        self.reports = objects[0].reports
        for _ in objects:
            if not self.receipts:
                raise ZeroDivisionError(self.words)
            yield self.receipts.pop(0)

    def verify(self, destination: Destination, calling: str) -> None:
        raise AssertionError("nobody verifies here")

    def find_study(self, destination: Destination, calling: str, study_instance_uid: str) -> PeerStudy | None:
        if isinstance(self.on_hold, PeerError):
            raise self.on_hold
        return self.on_hold

    def holds(self, destination: Destination, calling: str, objects: Sequence[StoredObject]) -> Iterator[bool]:
        if self.objects is None:
            raise AssertionError("nothing is verified here")
        if isinstance(self.objects, PeerError):
            raise self.objects
        yield from [self.objects] * len(objects)


@pytest.fixture
def tools(tmp_path: Path) -> Callable[..., DeliveryTools]:
    def make(peer: FakePeer, rows: FakeDeliveries, *, name: str = "pacs", **options: Any) -> DeliveryTools:
        settings = Settings(
            store=Store(folder=tmp_path),
            workers=Workers(attempts=3, backoff_seconds=10, unreachable_attempts=5),
            destinations=(Destination(name=name, ae_title="PACS", host="127.0.0.1", port=104, **options),),
        )
        return DeliveryTools(settings, rows, {"dimse": peer}, FakeClock(), "host/deliveries/0/1#1")

    return make


def test_a_job_s_results_go_together_seg_before_sr(tools: Callable[..., DeliveryTools]) -> None:
    rows = FakeDeliveries(delivery(1, "sr"), delivery(2, "seg"), delivery(3, "sc", job_id=8))
    peer = FakePeer(SENT, SENT)
    deliver(1, tools(peer, rows))
    assert peer.groups == [["1.2.2", "1.2.1"]]
    assert rows.notes == [(2, "sent"), (1, "sent")]
    assert rows.rows[3].state is DeliveryState.PENDING, "another job's result is not of this group"


def test_a_summary_goes_with_the_reports_of_its_study_to_who_needs_them(
    tools: Callable[..., DeliveryTools], tmp_path: Path
) -> None:
    for needed, reports in ((True, (SourceFile(tmp_path / "results/aa/aa.dcm", "1.2.3"),)), (False, ())):
        peer = FakePeer(SENT)
        peer.takes_reports = needed
        deliver(1, tools(peer, FakeDeliveries(delivery(1, "summary", job_id=None))))
        assert peer.reports == reports


def test_the_audit_trail_tells_what_was_sent_and_what_was_not(tools: Callable[..., DeliveryTools]) -> None:
    rows = FakeDeliveries(delivery(1, "seg"), delivery(2, "sr"))
    deliver(1, tools(FakePeer(SENT, Receipt(Verdict.REJECTED, "no room")), rows))
    begun, sent, refused = rows.audited
    assert [one.action for one in rows.audited] == ["begin sending", "send", "send"]
    assert (begun.detail, sent.detail) == ("2 objects", "1 object")
    assert (refused.failed, refused.detail) == (True, "1 object not taken: no room")
    assert (sent.actor, sent.address, sent.data["peer"]) == ("PLEURA", "127.0.0.1", "PACS")
    assert (sent.study_instance_uid, sent.patient_id) == (rows.rows[1].study_instance_uid, rows.rows[1].patient_id)


def test_the_audit_trail_tells_what_was_asked(tools: Callable[..., DeliveryTools]) -> None:
    rows = FakeDeliveries(delivery(1))
    deliver(1, tools(FakePeer(on_hold=PeerUnreachableError("no answer")), rows, verify_identity=True))
    (asked,) = rows.audited
    assert (asked.action, asked.failed, asked.detail) == ("query", True, "no answer")
    query = dcmread(BytesIO(b64decode(asked.data["query"])), force=True)
    assert query.StudyInstanceUID == rows.rows[1].study_instance_uid


def test_a_message_that_comes_twice_sends_once(tools: Callable[..., DeliveryTools]) -> None:
    rows, peer = FakeDeliveries(delivery(1)), FakePeer(SENT)
    with_tools = tools(peer, rows)
    assert deliver(1, with_tools) is PeerContact.ANSWERED
    assert deliver(1, with_tools) is PeerContact.NONE
    assert len(peer.groups) == 1


def test_a_destination_that_verifies_is_asked_later(tools: Callable[..., DeliveryTools]) -> None:
    rows = FakeDeliveries(delivery(1))
    deliver(1, tools(FakePeer(SENT), rows, verification="query", verification_after_seconds=45))
    assert rows.notes == [(1, "sent", timedelta(seconds=45))]


def test_what_must_be_sent_again_takes_all_behind_it_along(tools: Callable[..., DeliveryTools]) -> None:
    rows = FakeDeliveries(delivery(1, "seg"), delivery(2, "sr", attempts=1))
    deliver(1, tools(FakePeer(RETRY, SENT), rows))
    # The same wait for both, counted from the one with more attempts: the SR never comes due before the SEG.
    assert rows.notes == [(1, "pending", "busy", 20), (2, "pending", "busy", 20)]


@pytest.mark.parametrize("verdict", [Verdict.UNREACHABLE, Verdict.REJECTED])
def test_what_may_have_arrived_is_noted_and_nothing_behind_it(
    tools: Callable[..., DeliveryTools], verdict: Verdict
) -> None:
    rows = FakeDeliveries(delivery(1, "seg"), delivery(2, "sr"))
    deliver(1, tools(FakePeer(Receipt(verdict, "no word", may_have_arrived=True), SENT), rows))
    assert rows.unanswered == [1]


def test_a_refused_object_does_not_hold_the_others_back(tools: Callable[..., DeliveryTools]) -> None:
    rows = FakeDeliveries(delivery(1, "seg"), delivery(2, "sr"))
    deliver(1, tools(FakePeer(NOT_ELIGIBLE, SENT), rows))
    assert rows.notes == [(1, "failed", "not this class"), (2, "sent")]


def test_a_busy_peer_is_tried_with_doubling_waits_and_then_failed(tools: Callable[..., DeliveryTools]) -> None:
    rows = FakeDeliveries(delivery(1))
    with_tools = tools(FakePeer(RETRY, RETRY, RETRY), rows)
    for _ in range(3):
        deliver(1, with_tools)
    assert rows.notes == [(1, "pending", "busy", 10), (1, "pending", "busy", 20), (1, "failed", "busy")]


@pytest.mark.parametrize("away", [DOWN, FULL])
def test_the_attempts_at_a_peer_that_was_away_do_not_count_when_it_is_back(
    tools: Callable[..., DeliveryTools], away: Receipt
) -> None:
    rows = FakeDeliveries(delivery(1))
    with_tools = tools(FakePeer(away, away, away, RETRY, RETRY, SENT), rows)
    for _ in range(6):
        deliver(1, with_tools)
    assert [note[1] for note in rows.notes] == ["pending"] * 5 + ["sent"]


def test_a_study_that_a_peer_does_not_have_yet_when_it_is_back_is_asked_for_again(
    tools: Callable[..., DeliveryTools],
) -> None:
    rows = FakeDeliveries(delivery(1, attempts=4))
    peer = FakePeer(SENT)
    with_tools = tools(peer, rows, verify_identity=True)
    deliver(1, with_tools)
    peer.on_hold = PeerStudy(rows.rows[1].patient_id)
    deliver(1, with_tools)
    assert [note[1] for note in rows.notes] == ["pending", "sent"]


@pytest.mark.parametrize(("answer", "contact"), [(DOWN, PeerContact.NO_ANSWER), (FULL, PeerContact.ANSWERED)])
def test_a_peer_that_is_down_or_full_gets_more_attempts(
    tools: Callable[..., DeliveryTools], answer: Receipt, contact: PeerContact
) -> None:
    rows = FakeDeliveries(delivery(1))
    with_tools = tools(FakePeer(answer, answer, answer, answer, SENT), rows)
    assert [deliver(1, with_tools) for _ in range(4)] == [contact] * 4
    deliver(1, with_tools)
    assert [note[1] for note in rows.notes] == ["pending", "pending", "pending", "pending", "sent"]


@pytest.mark.parametrize(
    ("holds", "state"),
    [
        (True, DeliveryState.SENT),
        (False, DeliveryState.PENDING),
        (PeerUnreachableError("it is down"), DeliveryState.PENDING),
        (PeerError("it does not offer queries (C-FIND)"), DeliveryState.FAILED),
    ],
)
@pytest.mark.parametrize("answer", [DUPLICATE, UNCLEAR])
def test_what_a_peer_calls_a_duplicate_or_does_not_name_is_looked_for_there(
    tools: Callable[..., DeliveryTools], answer: Receipt, holds: bool | PeerError, state: DeliveryState
) -> None:
    rows = FakeDeliveries(delivery(1, "seg"), delivery(2, "sr"))
    deliver(1, tools(FakePeer(answer, SENT, holds=holds), rows))
    assert (rows.rows[1].state, rows.rows[2].state) == (state, DeliveryState.SENT)
    assert rows.unanswered == ([] if state is DeliveryState.SENT else [1])


@pytest.mark.parametrize(
    ("holds", "state"),
    [
        (True, DeliveryState.SENT),
        (False, DeliveryState.FAILED),
        (PeerError("it does not offer queries (C-FIND)"), DeliveryState.FAILED),
        (PeerUnreachableError("it is down"), DeliveryState.PENDING),
    ],
)
def test_a_peer_that_answers_an_error_to_what_it_stores_is_asked_before_that_is_given_up(
    tools: Callable[..., DeliveryTools], holds: bool | PeerError, state: DeliveryState
) -> None:
    error = Receipt(Verdict.RETRY, "status 500", may_have_arrived=True)
    rows = FakeDeliveries(delivery(1, "seg"), delivery(2, "sr"))
    with_tools = tools(FakePeer(error, error, error, SENT, holds=holds), rows)
    for _ in range(3):
        deliver(1, with_tools)
    assert [note[1] for note in rows.notes if note[0] == 1] == ["pending", "pending", state.value]
    assert rows.rows[2].state is DeliveryState.SENT
    assert state is not DeliveryState.FAILED or "status 500" in rows.notes[-1][2] + rows.notes[-2][-1]


def test_an_error_of_ours_leaves_nothing_as_being_sent(
    tools: Callable[..., DeliveryTools], caplog: pytest.LogCaptureFixture
) -> None:
    rows = FakeDeliveries(delivery(1, "seg"), delivery(2, "sr"))
    with_tools = tools(FakePeer(), rows)
    for _ in range(3):
        deliver(1, with_tools)
    assert [note[1] for note in rows.notes] == ["pending", "pending"] * 2 + ["failed", "failed"]
    assert "ZeroDivisionError" in rows.notes[-1][2]
    assert "PATIENT" not in caplog.text


def test_what_takes_its_process_with_it_at_every_attempt_is_failed(tools: Callable[..., DeliveryTools]) -> None:
    rows, peer = FakeDeliveries(delivery(1, "seg", lost=3), delivery(2, "sr", lost=2)), FakePeer(SENT)
    deliver(1, tools(peer, rows))
    assert [note[:2] for note in rows.notes] == [(1, "failed"), (2, "sent")]


def test_a_peer_that_never_comes_back_is_given_up_at_last(tools: Callable[..., DeliveryTools]) -> None:
    rows = FakeDeliveries(delivery(1, attempts=4))
    deliver(1, tools(FakePeer(DOWN), rows))
    assert rows.notes == [(1, "failed", "no answer")]


def test_a_destination_that_was_removed_holds_its_deliveries(tools: Callable[..., DeliveryTools]) -> None:
    rows = FakeDeliveries(delivery(1), delivery(2, "sr"))
    deliver(1, tools(FakePeer(), rows, name="other"))
    assert [note[1] for note in rows.notes] == ["on_hold", "on_hold"]


@pytest.mark.parametrize(
    ("on_hold", "state"),
    [
        (PeerStudy("P1"), DeliveryState.SENT),
        (PeerStudy(" P1 "), DeliveryState.SENT),
        (PeerStudy("P2"), DeliveryState.ON_HOLD),
        (PeerStudy(""), DeliveryState.ON_HOLD),
        (PeerError("no queries"), DeliveryState.PENDING),
    ],
)
def test_a_result_goes_to_the_patient_it_was_made_for(
    tools: Callable[..., DeliveryTools], on_hold: PeerStudy | PeerError | None, state: DeliveryState
) -> None:
    rows = FakeDeliveries(delivery(1))
    peer = FakePeer(SENT, on_hold=on_hold)
    deliver(1, tools(peer, rows, verify_identity=True))
    assert rows.rows[1].state is state
    assert bool(peer.groups) is (state is DeliveryState.SENT)


@pytest.mark.parametrize(
    ("on_hold", "state"),
    [
        (PeerStudy("P1"), DeliveryState.SENT),
        (PeerStudy("P2"), DeliveryState.ON_HOLD),
        (PeerError("it does not offer queries (C-FIND)"), DeliveryState.PENDING),
    ],
)
def test_what_a_peer_has_lost_goes_only_to_the_study_it_was_made_for(
    tools: Callable[..., DeliveryTools], on_hold: PeerStudy | PeerError, state: DeliveryState
) -> None:
    rows = FakeDeliveries(delivery(1, missing=4))
    deliver(1, tools(FakePeer(SENT, on_hold=on_hold), rows))
    assert rows.rows[1].state is state


def test_what_a_peer_has_lost_with_its_study_does_not_bring_the_study_back(
    tools: Callable[..., DeliveryTools],
) -> None:
    rows, peer = FakeDeliveries(delivery(1, missing=4)), FakePeer(on_hold=None)
    with_tools = tools(peer, rows)
    for _ in range(3):
        deliver(1, with_tools)
    assert (rows.rows[1].state, peer.groups) == (DeliveryState.ON_HOLD, [])


def test_what_a_peer_without_queries_has_lost_is_for_a_person(tools: Callable[..., DeliveryTools]) -> None:
    rows = FakeDeliveries(delivery(1, missing=4))
    unsupported = NotSupportedError("it does not support queries (C-FIND)")
    deliver(1, tools(FakePeer(SENT, on_hold=unsupported), rows))
    ((_, state, reason),) = rows.notes
    assert (state, "does not hold it" in reason, "C-FIND" in reason) == ("on_hold", True, True)
    rows = FakeDeliveries(delivery(1, missing=4))
    deliver(1, tools(FakePeer(SENT, on_hold=unsupported), rows, verify_identity=True))
    assert rows.rows[1].state is DeliveryState.PENDING, "a setting to correct, here or there"


def test_a_study_that_the_archive_does_not_hold_is_waited_for_and_then_on_hold(
    tools: Callable[..., DeliveryTools],
) -> None:
    rows, peer = FakeDeliveries(delivery(1)), FakePeer(on_hold=None)
    with_tools = tools(peer, rows, verify_identity=True)
    for _ in range(3):
        deliver(1, with_tools)
    assert [note[1] for note in rows.notes] == ["pending", "pending", "on_hold"]
    assert "merged" in rows.notes[-1][2]
    assert peer.groups == [], "nothing may go to a study that is no longer there"


def test_storing_order() -> None:
    kinds = ["summary", "gsps", "sc", "sr", "seg"]
    ordered = in_storing_order([delivery(number, kind) for number, kind in enumerate(kinds)])
    assert [each.kind for each in ordered] == kinds[::-1]


def test_a_claim_outlives_the_slowest_destination() -> None:
    def at(name: str, seconds: float) -> Destination:
        return Destination(name=name, ae_title="A", host="h", port=1, timeout_seconds=seconds)

    assert longest_delivery(Settings()) == timedelta(0)
    assert longest_delivery(Settings(destinations=(at("a", 10), at("b", 30)))) == timedelta(seconds=11 * 30)
