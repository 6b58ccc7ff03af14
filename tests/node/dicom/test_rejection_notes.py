"""Rejection notes by C-STORE from DCMTK's storescu: a real Key Object Selection takes a real image back."""

from __future__ import annotations

from pathlib import Path

import highdicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from config.triage import Triage
from db.not_eligible_codes import NotEligibleCode
from db.records import NotEligible, ReceivedInstance
from node.dicom.document_content import NO_CONTENT, read_document_content
from node.dicom.received_documents import read_document
from node.dicom.rejection_notes import REASONS, rejection_of
from tests.node.dicom.listening import Listening, chest, dcmtk, listening

TITLES = {
    "113001": codes.DCM.RejectedForQualityReasons,
    "113037": codes.DCM.RejectedForPatientSafetyReasons,
    "113038": codes.DCM.IncorrectModalityWorklistEntry,
    "113039": codes.DCM.DataRetentionPolicyExpired,
}


def _note(image: Dataset, title: Code, path: Path) -> Path:
    content = highdicom.ko.KeyObjectSelection(document_title=title, referenced_objects=[image])
    document = highdicom.ko.KeyObjectSelectionDocument(
        evidence=[image],
        content=content,
        series_instance_uid=generate_uid(),
        series_number=99,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="ACME",
    )
    document.save_as(path)
    return path


def _image(path: Path) -> Dataset:
    image = chest(StudyID="1", AccessionNumber="A1", StudyTime="120000", PatientBirthDate="", PatientSex="O")
    image.ReferringPhysicianName = ""
    image.save_as(path, enforce_file_format=True)
    return image


def _send(node: Listening, *paths: Path) -> None:
    done = dcmtk("storescu", "-aet", "PACS", "-aec", "PLEURA", "-R", "127.0.0.1", node.port, *paths)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_is_read(code: str, tmp_path: Path) -> None:
    image = _image(tmp_path / "image.dcm")
    note = rejection_of(read_document(_note(image, TITLES[code], tmp_path / "note.dcm")))
    assert note is not None
    assert (note.code, note.sop_instance_uids) == (code, (str(image.SOPInstanceUID),))


def test_another_key_object_takes_nothing_back(tmp_path: Path) -> None:
    image = _image(tmp_path / "image.dcm")
    assert rejection_of(read_document(_note(image, codes.DCM.ForReferringProvider, tmp_path / "note.dcm"))) is None


def test_a_note_without_images_is_an_error(tmp_path: Path) -> None:
    path = _note(_image(tmp_path / "image.dcm"), TITLES["113001"], tmp_path / "note.dcm")
    document = dcmread(path)
    del document.CurrentRequestedProcedureEvidenceSequence
    document.save_as(path)
    with pytest.raises(ValueError, match="names no image"):
        rejection_of(read_document(path))


@pytest.mark.peer("storescu")
@pytest.mark.parametrize("note_first", [False, True])
def test_an_image_is_taken_back_whichever_comes_first(tmp_path: Path, note_first: bool) -> None:
    image = _image(tmp_path / "image.dcm")
    note = _note(image, TITLES["113038"], tmp_path / "note.dcm")
    with listening(tmp_path / "store") as node:
        for path in [note, tmp_path / "image.dcm"] if note_first else [tmp_path / "image.dcm", note]:
            _send(node, path)
        rows = dict(node.rows("sop_instance_uid, not_eligible_code"))
    assert rows[str(image.SOPInstanceUID)] == "rejected"
    assert rows[str(dcmread(note).SOPInstanceUID)] == "not-an-image"


@pytest.mark.peer("storescu")
def test_an_ordinary_key_object_leaves_the_image_alone(tmp_path: Path) -> None:
    image = _image(tmp_path / "image.dcm")
    note = _note(image, codes.DCM.ForReferringProvider, tmp_path / "note.dcm")
    with listening(tmp_path / "store") as node:
        _send(node, tmp_path / "image.dcm", note)
        rows = dict(node.rows("sop_instance_uid, not_eligible_code"))
    assert rows[str(image.SOPInstanceUID)] == ""


def test_a_note_of_our_own_that_comes_back_takes_nothing_back_here(tmp_path: Path) -> None:
    image = _image(tmp_path / "image.dcm")
    path = _note(image, TITLES["113001"], tmp_path / "note.dcm")
    document = dcmread(path)
    received = ReceivedInstance(
        str(document.SOPInstanceUID), str(document.SOPClassUID), "1.2", "d" * 64, "note.dcm", 1, "1.3", "1.4"
    )
    own = NotEligible(NotEligibleCode.OWN_RESULT.value, "This node has made it.")
    assert read_document_content(path, received, own, Triage()) == NO_CONTENT
    assert (
        read_document_content(path, received, NotEligible("not-an-image", "No image."), Triage()).rejection is not None
    )
