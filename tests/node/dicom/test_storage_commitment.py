"""Storage Commitment reports, over the network as a PACS sends them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from config.destinations import Destination
from config.settings import Settings
from db.database import Database
from db.engine import connect
from node.dicom.listener import reports_of
from node.dicom.storage_commitment import CommitmentReports, read_report
from tests.node.dicom.listening import chest, listening
from tests.orthanc import wait_until
from tests.rules import NO_RULES

SOME_FAILED = 2


class Noted:
    """Takes reports and keeps them; raises what it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.reports: list[tuple[str, list[str], dict[str, str]]] = []
        self.error = error

    def __call__(self, uid: str, committed: list[str], failed: dict[str, str]) -> tuple[int, int]:
        if self.error is not None:
            raise self.error
        self.reports.append((uid, committed, failed))
        return len(committed), len(failed)


@contextmanager
def reporting(port: int, *, role: bool = True, syntax: str = ImplicitVRLittleEndian) -> Iterator[Association]:
    """An association of a PACS that reports; with ``role`` it says that it is the SCP (PS3.4 J.3.3)."""
    entity = AE("PACS")
    entity.add_requested_context(StorageCommitmentPushModel, syntax)
    entity.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if role else []
    association = entity.associate("127.0.0.1", port, ae_title="PLEURA", ext_neg=roles)
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def report(committed: int = 1, failed: dict[str, int | None] | None = None, uid: str = "2.25.7") -> Dataset:
    found = Dataset()
    found.TransactionUID = uid
    found.ReferencedSOPSequence = [_item(f"1.2.3.{number}") for number in range(committed)]
    if failed:
        found.FailedSOPSequence = [_item(instance, reason) for instance, reason in failed.items()]
    return found


def _item(uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = ComputedRadiographyImageStorage
    item.ReferencedSOPInstanceUID = uid
    if reason is not None:
        item.FailureReason = reason
    return item


def tell(association: Association, result: Dataset, event: int = 1) -> int | None:
    status, _ = association.send_n_event_report(
        result, event, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    return int(status.Status) if status else None


@pytest.mark.parametrize("role", [True, False])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_report_is_taken_beside_images(tmp_path: Path, role: bool, syntax: str) -> None:
    """Whether or not the PACS says that it is the SCP: not every one does."""
    noted = Noted()
    with (
        listening(tmp_path, reports=CommitmentReports(noted)) as listener,
        reporting(listener.port, role=role, syntax=syntax) as association,
    ):
        assert tell(association, report(2)) == 0x0000
        assert association.send_c_store(chest()).Status == 0x0000
        assert tell(association, report(1, {"1.2.9": 0x0112, "1.2.8": 0x9999, "1.2.7": None}), SOME_FAILED) == 0x0000
    failed = {"1.2.9": "no such object", "1.2.8": "failure reason 0x9999", "1.2.7": "no reason given"}
    assert noted.reports == [("2.25.7", ["1.2.3.0", "1.2.3.1"], {}), ("2.25.7", ["1.2.3.0"], failed)]
    assert len(listener.rows()) == 1


def test_a_report_of_many_objects_arrives_whole(tmp_path: Path) -> None:
    noted = Noted()
    with (
        listening(tmp_path, reports=CommitmentReports(noted)) as listener,
        reporting(listener.port) as association,
    ):
        assert tell(association, report(1000)) == 0x0000
    assert len(noted.reports[0][1]) == 1000


def test_a_report_without_end_ends_the_association_and_nothing_else(tmp_path: Path) -> None:
    noted = Noted()
    endless = report(1)
    endless.add_new(0x00091010, "OB", bytes(1024 * 1024))
    with listening(tmp_path, reports=CommitmentReports(noted)) as listener:
        with reporting(listener.port) as association:
            assert tell(association, endless) is None
            wait_until(lambda: not association.is_established, "the end of the association")
        with reporting(listener.port) as association:
            assert tell(association, report(1)) == 0x0000
    assert len(noted.reports) == 1


def test_a_report_that_names_nothing_is_an_invalid_argument(tmp_path: Path) -> None:
    nameless = Dataset()
    nameless.ReferencedSOPSequence = []
    objectless = report(1)
    objectless.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = ""
    with (
        listening(tmp_path, reports=CommitmentReports(Noted())) as listener,
        reporting(listener.port) as association,
    ):
        assert [tell(association, result) for result in (nameless, objectless)] == [0x0115, 0x0115]


def test_a_report_that_cannot_be_recorded_is_not_taken(tmp_path: Path) -> None:
    """So that the PACS reports again, or we ask again."""
    with (
        listening(tmp_path, reports=CommitmentReports(Noted(OSError("the database is down")))) as listener,
        reporting(listener.port) as association,
    ):
        assert tell(association, report(1)) == 0x0110
        assert association.is_established


def test_nobody_reports_where_nobody_was_asked(tmp_path: Path) -> None:
    with listening(tmp_path) as listener, reporting(listener.port) as association:
        assert [context.abstract_syntax for context in association.accepted_contexts] == [
            ComputedRadiographyImageStorage
        ]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_report_in_another_context_harms_nobody(tmp_path: Path, wanted: bool) -> None:
    noted = Noted()
    with listening(tmp_path, reports=CommitmentReports(noted) if wanted else None) as listener:
        with reporting(listener.port) as association:
            status, _ = association.send_n_event_report(
                report(1),
                1,
                StorageCommitmentPushModel,
                StorageCommitmentPushModelInstance,
                meta_uid=ComputedRadiographyImageStorage,
            )
            assert status.get("Status") != 0x0000 or wanted
        with reporting(listener.port) as association:
            assert association.send_c_store(chest()).Status == 0x0000


def test_reports_are_taken_where_a_destination_verifies_by_commitment(tmp_path: Path) -> None:
    where = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
    database = Database(connect(f"sqlite:///{tmp_path / 'test.sqlite'}"), NO_RULES)
    assert reports_of(Settings(destinations=(Destination(**where, verification="query"),)), database) is None
    assert reports_of(Settings(destinations=(Destination(**where, verification="commitment"),)), database) is not None


def test_an_empty_report_says_nothing_of_any_object() -> None:
    found = Dataset()
    found.TransactionUID = "2.25.7"
    assert read_report(found) == ("2.25.7", [], {})
