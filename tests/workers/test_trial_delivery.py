"""A test object says what it is, stays one object a day, and tells how a destination takes results."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import dcmwrite

from config.destinations import Destination
from config.settings import Eligibility, Settings, Site
from node.dicom.eligibility import check_eligibility
from tests.orthanc import running_orthanc
from tests.ports import free_port
from workers.composition import equipment_of
from workers.destinations.destination_kinds import destination_kinds
from workers.results.trial_object import PATIENT_ID, STUDY_DESCRIPTION, trial_object
from workers.services.trial_delivery import TrialDelivery, send_trial_object

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
SETTINGS = Settings()
EQUIPMENT = equipment_of(SETTINGS)


def send(destination: Destination, now: datetime = NOW) -> TrialDelivery:
    return send_trial_object(SETTINGS, destination, destination_kinds(SETTINGS), EQUIPMENT, now)


def test_it_is_the_same_object_all_day_and_another_one_elsewhere() -> None:
    first = trial_object(EQUIPMENT, "2.25", "PLEURA", "pacs", NOW)
    later = trial_object(EQUIPMENT, "2.25", "PLEURA", "pacs", NOW + timedelta(hours=9))
    assert first == later
    others = [("PLEURA", "archive", NOW), ("OTHER", "pacs", NOW), ("PLEURA", "pacs", NOW + timedelta(days=1))]
    uids = {trial_object(EQUIPMENT, "2.25", *other).SOPInstanceUID for other in others}
    assert len({first.SOPInstanceUID, *uids}) == 4


def test_its_day_is_the_hospital_s() -> None:
    """At three in the morning in Greenwich it is still the day before in New York."""
    nowhere = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1)
    settings = Settings(site=Site(time_zone="America/New_York"))
    sent = send_trial_object(settings, nowhere, destination_kinds(settings), EQUIPMENT, NOW)
    before = trial_object(EQUIPMENT, "2.25", "PLEURA", "pacs", NOW - timedelta(days=1))
    assert (sent.sop_instance_uid, before.StudyDate) == (before.SOPInstanceUID, "20260228")


def test_nobody_takes_it_for_a_patient_and_a_node_never_analyses_it() -> None:
    made = trial_object(EQUIPMENT, "2.25", "PLEURA", "pacs", NOW)
    assert (made.PatientID, made.StudyDescription, made.QualityControlImage) == (PATIENT_ID, STUDY_DESCRIPTION, "YES")
    assert check_eligibility(made, Eligibility()) is not None


@pytest.mark.peer("dciodvfy")
def test_dciodvfy_finds_no_error(tmp_path: Path) -> None:
    path = tmp_path / "test.dcm"
    dcmwrite(path, trial_object(EQUIPMENT, "2.25", "PLEURA", "pacs", NOW), enforce_file_format=True)
    output = subprocess.run(["dciodvfy", path], capture_output=True, text=True).stderr
    assert [line for line in output.splitlines() if line.startswith("Error")] == []


def test_a_destination_that_is_not_there_is_said() -> None:
    sent = send(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1))
    assert not sent.taken
    assert "cannot be reached" in sent.note


@pytest.mark.peer("Orthanc")
def test_orthanc_takes_it_holds_it_and_can_delete_it(tmp_path: Path) -> None:
    with running_orthanc(tmp_path, modalities={"pleura": ("PLEURA", free_port())}) as orthanc:
        pacs = Destination(
            name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=orthanc.dicom_port, verification="query"
        )
        for _ in range(2):
            sent = send(pacs)
            assert (sent.taken, sent.held, sent.note) == (True, True, "")
        (found,) = orthanc.get("/instances")
        orthanc.request("DELETE", f"/instances/{found}")
        assert orthanc.get("/instances") == []
