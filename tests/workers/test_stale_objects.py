"""Rejection notes of our own: what they say, to whom they go, and what is left for a person."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from config.destinations import Destination
from config.settings import Settings, Site, Store
from db import deliveries, erasures, jobs, rejection_notes
from db.database import Database
from db.engine import connect
from db.queries import study_details
from db.records import (
    FOR_RETENTION,
    FOR_SAFETY,
    NOTE,
    Outcome,
    ReceivedInstance,
    RejectionNote,
    ResultRecord,
    StaleObject,
)
from node.dicom.received_documents import read_document
from node.dicom.rejection_notes import rejection_of
from tests.commands import record_instance
from tests.db.examples import deliveries_of
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.stores import store_away
from tests.workers.builders import NOON
from tests.workers.harness import CR, radiograph
from tests.workers.results.sources import EQUIPMENT, source
from workers.job_outcome import as_file
from workers.results.rejection_note import TITLES, encode_note
from workers.stale_objects import RejectionNotes, by_hand, notes_of
from workers.store_files import INSTANCES

SEG, SR = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"
MINUTE = timedelta(minutes=1)
TAKEN_BACK = RejectionNote("1.9", "113001", "The hospital has rejected this image for quality reasons.", ("1.2.1",))


def stale(number: int = 1, code: str = "113001", destination: str = "pacs", sop_class: str = SEG) -> StaleObject:
    return StaleObject(number, destination, "seg", sop_class, f"2.25.{number}", "2.25.9", code, f"Reason {code}.")


def note(*objects: StaleObject, header: Dataset | None = None) -> Dataset:
    return encode_note(header or source(), objects, equipment=EQUIPMENT, uid_root="2.25", created_at=NOON)


@pytest.mark.parametrize("code", TITLES)
def test_a_note_is_one_that_this_node_itself_would_follow(code: str, tmp_path: Path) -> None:
    made = note(stale(1, code), stale(2, code, sop_class=SR))
    path = tmp_path / "note.dcm"
    path.write_bytes(as_file(NOTE, made).content)
    read = rejection_of(read_document(path))
    assert read is not None
    assert (read.code, read.sop_instance_uids) == (code, ("2.25.1", "2.25.2"))
    assert (made.Modality, made.PatientID, made.StudyInstanceUID) == ("KO", "P-0815", source().StudyInstanceUID)
    items = [item for item in made.ContentSequence if item.RelationshipType == "CONTAINS"]
    assert [item.ValueType for item in items] == ["TEXT", "IMAGE", "COMPOSITE"]
    named = [item.get("ConceptNameCodeSequence", [Dataset()])[0].get("CodeValue") for item in made.ContentSequence]
    modifiers = [value for value in named if value == "113011"]
    assert len(modifiers) == (1 if code == "113001" else 0), "TID 2010: a reason of quality has a modifier of CID 7011"


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("code", TITLES)
def test_dciodvfy_accepts_every_note(code: str, tmp_path: Path) -> None:
    path = tmp_path / "note.dcm"
    path.write_bytes(as_file(NOTE, note(stale(1, code), stale(2, code, sop_class=SR))).content)
    assert errors_of(path) == []


def errors_of(path: Path) -> list[str]:
    """What dciodvfy has against an object."""
    output = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace", check=False)
    return [line for line in (output.stderr + output.stdout).splitlines() if line.startswith("Error")]


def test_the_same_note_has_the_same_uid_and_another_another() -> None:
    one, other = stale(1), stale(2)
    assert note(one, other).SOPInstanceUID == note(other, one).SOPInstanceUID
    others = (note(one), note(one, stale(3)), note(stale(1, FOR_SAFETY)), note(stale(1, destination="archive")))
    assert len({made.SOPInstanceUID for made in (note(one, other), *others)}) == 5


def test_one_note_for_each_destination_and_title() -> None:
    groups = notes_of([stale(1), stale(2, FOR_SAFETY), stale(3), stale(4, destination="archive")])
    assert [[one.delivery_id for one in group] for group in groups] == [[4], [1, 3], [2]]


class Node:
    """A study whose SEG and SR are at two destinations, of which one takes rejection notes."""

    def __init__(self, folder: Path, time_zone: str = "UTC") -> None:
        engine = connect(f"sqlite:///{folder}/pleura.sqlite")
        migrate(engine)
        self.database = Database(engine, NO_RULES)
        peers = (("pacs", True), ("archive", False))
        self.settings = Settings(
            store=Store(folder=folder),
            site=Site(time_zone=time_zone),
            destinations=tuple(
                Destination(name=name, ae_title="PACS", host="h", port=104, rejection_notes=notes)
                for name, notes in peers
            ),
        )
        self.dispatched: list[int] = []
        (folder / INSTANCES).mkdir()
        dcmwrite(folder / "1.dcm", radiograph("1.2.1"), enforce_file_format=True)
        image = ReceivedInstance("1.2.1", CR, "1.2", "a" * 64, "1.dcm", 1, "1.3", "1.4", patient_id="P1")
        (job_id,) = record_instance(self.database, image, None, "p" * 64, NOON).job_ids
        self.database.write(jobs.claim, job_id, "w", NOON, MINUTE)
        results = (
            ResultRecord("seg", SEG, "2.25.1", "2.25.11", "d", "results/1", 1),
            ResultRecord("sr", SR, "2.25.2", "2.25.12", "d", "results/2", 1),
        )
        everything: dict[str, tuple[str, ...]] = {name: ("seg", "sr") for name, _ in peers}
        outcome = Outcome(results=results, destinations=everything)
        assert self.database.write(jobs.finish, job_id, "w", outcome, NOON) is not None
        for delivery in deliveries_of(self.database, job_id):
            self.database.write(deliveries.claim, delivery, "d", NOON, MINUTE)
            self.database.write(deliveries.sent, delivery, "d", NOON)

    def enqueue(self, delivery_ids: Iterable[int]) -> bool:
        self.dispatched.extend(delivery_ids)
        return True

    def step(self) -> None:
        RejectionNotes(self.settings, self.database, EQUIPMENT, self.enqueue).step(NOON)

    @property
    def notes(self) -> Sequence[Any]:
        return [one for one in self.database.read(study_details.study_detail, 1).results if one.record.kind == NOTE]


@pytest.mark.usefixtures("machine_in_kolkata")
def test_a_note_tells_the_time_of_the_hospital_s_clocks(tmp_path: Path) -> None:
    node = Node(tmp_path, "America/New_York")
    node.database.write(rejection_notes.reject, TAKEN_BACK, NOON)
    node.step()
    (made,) = node.notes
    told = dcmread(tmp_path / made.record.path)
    expected = NOON.astimezone(ZoneInfo("America/New_York"))
    assert f"{told.ContentDate}{told.ContentTime}" == expected.strftime("%Y%m%d%H%M%S.%f")


def test_a_note_goes_where_notes_are_taken_and_the_rest_is_listed(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.step()
    assert node.notes == []
    node.database.write(rejection_notes.reject, TAKEN_BACK, NOON)
    node.step()
    node.step()
    (made,) = node.notes
    detail = node.database.read(study_details.study_detail, 1)
    delivery_ids = [one for one in detail.deliveries if one.result_id == made.id]
    assert [one.destination for one in delivery_ids] == ["pacs"]
    assert node.dispatched == [delivery_ids[0].id]
    document = dcmread(BytesIO((tmp_path / made.record.path).read_bytes()))
    (evidence,) = document.CurrentRequestedProcedureEvidenceSequence
    named = {
        item.ReferencedSOPInstanceUID
        for series in evidence.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert named == {"2.25.1", "2.25.2"}
    found = [
        item.TextValue for item in document.ContentSequence if item.get("TextValue", "").startswith("The hospital")
    ]
    assert found == [
        "The hospital has rejected this image for quality reasons. The result had been sent and must be removed there."
    ]
    left = by_hand(detail, node.settings.destinations)
    assert [(one.delivery.destination, one.sop_instance_uid) for one in left] == [
        ("archive", "2.25.1"),
        ("archive", "2.25.2"),
    ]


def test_a_note_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    """What is wrong must be taken back as soon as its file system is mounted again."""
    (tmp_path / "store").mkdir()
    node = Node(tmp_path / "store")
    node.database.write(rejection_notes.reject, TAKEN_BACK, NOON)
    notes = RejectionNotes(node.settings, node.database, EQUIPMENT, node.enqueue)
    with store_away(tmp_path / "store"):
        notes.step(NOON)
        assert node.notes == []
    notes.step(NOON)
    assert len(node.notes) == 1


def test_a_study_of_which_no_note_can_be_made_keeps_no_other_from_it(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.database.write(rejection_notes.reject, TAKEN_BACK, NOON)
    (tmp_path / "1.dcm").write_bytes(b"damaged")
    node.step()
    assert node.notes == []
    left = by_hand(node.database.read(study_details.study_detail, 1), node.settings.destinations)
    assert {one.delivery.destination for one in left} == {"archive"}


class Erasing:
    """The same node, of which somebody has asked to erase the study; ``pacs`` takes notes about that."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(folder)
        self.database = self.node.database
        self.database.write(erasures.request, 1, "ann", "", "case 88", NOON)

    def erase(self, minutes: int = 0) -> str:
        """What the erasure waits for; nothing where the study is gone."""
        now = NOON + minutes * MINUTE
        waits = self.database.write(erasures.erase, 1, now, ("pacs",))
        return "" if waits is None else waits.why

    def take_note(self) -> Dataset:
        """Make the note, and send it."""
        self.node.step()
        (made,) = self.node.notes
        assert self.erase() == "a rejection note is being sent"
        (delivery_id,) = self.node.dispatched
        self.database.write(deliveries.claim, delivery_id, "d", NOON, MINUTE)
        assert self.erase() == "a result is being sent"
        self.database.write(deliveries.sent, delivery_id, "d", NOON)
        return dcmread(self.node.settings.store.folder / made.record.path)


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("kept", [True, False])
def test_a_study_is_erased_when_those_that_hold_results_have_a_note(tmp_path: Path, kept: bool) -> None:
    """Also where retention has removed its images: old studies are what is erased most."""
    erasing = Erasing(tmp_path)
    if not kept:
        (tmp_path / "1.dcm").unlink()
    assert erasing.erase() == "a rejection note is being made"
    note_of_erasure = erasing.take_note()
    read = rejection_of(note_of_erasure)
    assert read is not None
    assert (read.code, read.sop_instance_uids) == (FOR_RETENTION, ("2.25.1", "2.25.2"))
    assert (note_of_erasure.PatientID, note_of_erasure.StudyInstanceUID) == ("P1", "1.2.1.1" if kept else "1.3")
    path = tmp_path / "note.dcm"
    note_of_erasure.save_as(path)
    assert errors_of(path) == []
    assert erasing.erase() == "", "it is gone"
    left = erasing.database.read(erasures.left_at, 1)
    assert left == {"archive": ["2.25.1", "2.25.2"], "pacs": ["2.25.1", "2.25.2", read.note_uid]}


def test_a_note_about_an_erasure_that_nobody_makes_is_waited_for_for_a_time(tmp_path: Path) -> None:
    erasing = Erasing(tmp_path)
    assert [erasing.erase(minutes) for minutes in (0, 9, 10)] == ["a rejection note is being made"] * 2 + [""]


def test_a_note_about_an_erasure_that_is_given_up_does_not_keep_the_study(tmp_path: Path) -> None:
    erasing = Erasing(tmp_path)
    erasing.erase()
    erasing.node.step()
    (delivery_id,) = erasing.node.dispatched
    erasing.database.write(deliveries.claim, delivery_id, "d", NOON, MINUTE)
    erasing.database.write(deliveries.fail, delivery_id, "d", "refused", NOON)
    assert erasing.erase() == ""


def test_no_note_is_made_where_none_is_wanted(tmp_path: Path) -> None:
    erasing = Erasing(tmp_path)
    assert erasing.database.write(erasures.erase, 1, NOON) is None
    with pytest.raises(ValidationError, match="needs rejection_notes"):
        Destination(name="pacs", ae_title="PACS", host="h", port=104, erasure_notes=True)
