"""What peers send, in the audit trail: counted for a caller and study, written when it is quiet, and never lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from db import audit_chain
from db.audit import AuditEntry, AuditFilter, AuditTrail, write_entry
from db.database import Database
from db.engine import connect
from db.records import ReceivedInstance
from node.dicom.received_transfers import ReceivedTransfers, write_missing, write_transfers
from node.dicom.spool import StoreCommand
from tests.db.examples import received, record
from tests.migrated import migrate
from tests.orthanc import wait_until
from tests.rules import NO_RULES

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
CR = "1.2.840.10008.5.1.4.1.1.1"


class Written:
    """What was written, unless the database does not answer; ``elapsed`` is a clock that a test moves."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.answers = True
        self.elapsed = 0.0

    def __call__(self, entries: Sequence[AuditEntry]) -> None:
        if not self.answers:
            raise OperationalError("", None, Exception())
        self.entries += entries


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def transfers(written: Written, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReceivedTransfers]:
    monkeypatch.setattr("node.dicom.received_transfers._PAUSE_SECONDS", 3600.0)
    made = ReceivedTransfers(written, lambda: NOW, lambda: written.elapsed)
    yield made
    made.close()


def _store(transfers: ReceivedTransfers, study: str, sender: str = "MODALITY", row: int = 1) -> None:
    command = StoreCommand(CR, "1.2", CR, "1.2.840.10008.1.2", sender, "PLEURA", address="10.0.0.7")
    transfers.stored(ReceivedInstance("1.2", CR, "", "", "", 0, study, "1.3", patient_id="K-1"), command, row)


def test_images_of_a_study_are_one_entry_when_nothing_more_comes(
    transfers: ReceivedTransfers, written: Written
) -> None:
    for _ in range(3):
        _store(transfers, "1.2.3")
    _store(transfers, "1.2.4", "OTHER")
    transfers.write_due()
    assert written.entries == [], "more may come"
    written.elapsed = 3.0
    transfers.write_due()
    first, other = written.entries
    assert (first.actor, first.detail, first.address) == ("MODALITY", "3 instances", "10.0.0.7")
    assert (first.study_instance_uid, first.patient_id, first.data["instances"]) == ("1.2.3", "K-1", {CR: 3})
    assert (other.actor, other.detail) == ("OTHER", "1 instance")
    transfers.write_due(everything=True)
    assert len(written.entries) == 2


def test_a_long_transfer_is_told_while_it_goes_on(transfers: ReceivedTransfers, written: Written) -> None:
    for second in range(31):
        written.elapsed = float(second)
        _store(transfers, "1.2.3")
        transfers.write_due()
    assert [one.detail for one in written.entries] == ["31 instances"]


def test_what_is_refused_is_told_by_its_status(transfers: ReceivedTransfers, written: Written) -> None:
    for _ in range(2):
        transfers.failed(StoreCommand(CR, "1.2", CR, "", "MODALITY", "PLEURA", address="10.0.0.7"), 0xA700)
    transfers.write_due(everything=True)
    (entry,) = written.entries
    assert (entry.failed, entry.detail) == (True, "2 instances refused with status 0xA700")


def test_a_database_that_does_not_answer_loses_nothing(transfers: ReceivedTransfers, written: Written) -> None:
    written.answers = False
    _store(transfers, "1.2.3")
    transfers.write_due(everything=True)
    _store(transfers, "1.2.3")
    written.answers = True
    transfers.write_due(everything=True)
    assert [one.detail for one in written.entries] == ["2 instances"]


def test_a_database_that_is_away_for_long_is_one_line_of_the_log(
    transfers: ReceivedTransfers, written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for answers in (False, False, False, True, True):
        written.answers = answers
        _store(transfers, "1.2.3")
        transfers.write_due(everything=True)
    assert [record.message.rpartition(" (")[0] or record.message for record in caplog.records] == [
        "the audit trail of what peers send cannot be written",
        "the audit trail of what peers send is written again",
    ]


def test_more_studies_than_are_counted_at_a_time_lose_none(
    transfers: ReceivedTransfers, written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    """A migration brings 300 studies a second, far more than fit while each waits for what may come of it."""
    for first in range(0, 5000, 200):
        for number in range(first, first + 200):
            _store(transfers, f"1.2.{number}")
        wait_until(lambda: len(transfers._counts) < 250, "room for more", 30, 0.001)
    transfers.close(30)
    assert {entry.study_instance_uid for entry in written.entries} == {f"1.2.{number}" for number in range(5000)}
    assert not caplog.records


def test_what_is_left_is_written_at_the_end() -> None:
    written = Written()
    transfers = ReceivedTransfers(written, lambda: NOW, lambda: 0.0)
    _store(transfers, "1.2.3")
    transfers.close(30)
    assert [one.detail for one in written.entries] == ["1 instance"]


def test_what_a_killed_listener_did_not_tell_of_is_told_by_the_next_one(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/test.sqlite")
    migrate(engine)
    database = Database(engine, NO_RULES)
    rows = [record(database, number, study) for number, study in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3))]
    later = NOW + timedelta(days=3650)

    def recorded() -> list[tuple[str, str, dict[str, int]]]:
        entries = AuditTrail(engine).entries(AuditFilter(action="receive"))
        return [(one.study_instance_uid, one.detail, one.data["instances"]) for one in reversed(entries)]

    transfers = ReceivedTransfers(lambda entries: database.write(write_transfers, entries), lambda: NOW)
    transfers.stored(received(1, 1), _command(received(1, 1)), rows[0])
    for number, study in ((3, 2), (4, 2)):
        transfers.stored(received(number, study), _command(received(number, study)), rows[number - 1])
    transfers.close(30)
    before = recorded()
    assert len(before) == 2, "of the second image of study 1 and the first of study 3 the listener did not tell"

    assert database.write(write_missing, later) == 2
    (first, second) = recorded()[2:]
    late = "1 instance, recorded late: the listener was killed"
    assert first == (received(2, 1).study_instance_uid, late, {received().sop_class_uid: 1})
    assert second == (received(5, 3).study_instance_uid, late, {received().sop_class_uid: 1})
    assert database.write(write_missing, later) == 0, "it is told once"
    assert database.read(audit_chain.verify).problem == ""
    engine.dispose()


def test_only_what_came_before_the_start_is_missing(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/test.sqlite")
    migrate(engine)
    database = Database(engine, NO_RULES)
    record(database)
    assert database.write(write_missing, NOW - timedelta(days=3650)) == 0
    caller = received().calling_ae_title
    without = {"peer": caller, "instances": {CR: 1}}
    database.write(write_entry, AuditEntry(NOW, caller, "receive", study_id=1, data=without))
    assert database.write(write_missing, NOW + timedelta(days=3650)) == 0, "an entry that names no row counts all"
    engine.dispose()


def _command(instance: ReceivedInstance) -> StoreCommand:
    return StoreCommand(instance.sop_class_uid, "1.2", CR, "", instance.calling_ae_title, "PLEURA")
