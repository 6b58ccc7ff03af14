"""The hospital corrects a patient while real workers analyse and send to a PACS that is asked whose the study is."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset

from db import holds, jobs
from db.patients import PatientIdentifier, PatientUpdate
from db.queries import study_details
from db.shown_records import StudyDetail
from tests.commands import receive_message
from tests.db.test_orders import message
from tests.orthanc import Orthanc, running_orthanc
from tests.viewers.phantoms import as_bytes
from tests.workers.conftest import Broker
from tests.workers.harness import Parts, radiograph, running_parts
from workers.clock import utc_now

pytestmark = [pytest.mark.slow, pytest.mark.peer("Orthanc")]

UID = "1.2.3.1000"
JANET = PatientUpdate((PatientIdentifier("P9"),), prior=(PatientIdentifier("P1"),), name="Doe^Janet")


def corrected_image() -> Dataset:
    """The image as the PACS has it, where the patient was corrected as well."""
    image = radiograph(UID)
    image.PatientID, image.PatientName = "P9", "Doe^Janet"
    return image


def detail_of(parts: Parts) -> StudyDetail:
    study = parts.database.read(study_details.find_study, f"{UID}.1")
    assert study is not None
    return parts.database.read(study_details.study_detail, study)


def results_of(pacs: Orthanc) -> list[Dataset]:
    return [one for one in pacs.datasets() if one.Modality in ("SEG", "SR")]


@pytest.mark.parametrize("when", ["while it is analysed", "while it waits to be sent"])
def test_one_result_arrives_and_names_the_patient_as_corrected(broker: Broker, tmp_path: Path, when: str) -> None:
    meanwhile = when == "while it is analysed"
    with (
        running_orthanc(tmp_path / "pacs", modalities={"pleura": ("PLEURA", 1)}) as pacs,
        running_parts(tmp_path, broker, pacs, verify_identity=True) as parts,
    ):
        if meanwhile:
            parts.arm("predicting", "nobody")
        parts.take_in(UID)
        if meanwhile:
            parts.wait_until(lambda: parts.hits(), "the network to be at work")
        else:
            # The PACS does not have the study yet: what was made waits for it.
            parts.wait_until(lambda: any(one.attempts for one in detail_of(parts).deliveries), "a first attempt")
        receive_message(parts.database, message(1, patient=JANET), utc_now())
        pacs.upload(as_bytes(corrected_image()))
        parts.go_on()
        parts.wait_until(lambda: parts.counts() == {"jobs.done": 1, "deliveries.on_hold": 2}, "a person to be needed")
        assert results_of(pacs) == []

        study = detail_of(parts).row.study_id
        parts.database.write(holds.release, study, "ann", utc_now())
        if not meanwhile:
            parts.wait_until(
                lambda: all("another patient ID" in one.error for one in detail_of(parts).deliveries),
                "the PACS to say so",
            )
            (job,) = detail_of(parts).jobs
            parts.database.write(jobs.requeue, job.id, "ann", "by hand", utc_now())
        parts.wait_until(lambda: parts.counts().get("deliveries.sent") == 2, "the results to be sent")
        assert {(str(one.PatientID), str(one.PatientName)) for one in results_of(pacs)} == {("P9", "Doe^Janet")}
        assert len(results_of(pacs)) == 2
        assert set(parts.counts()) <= {"jobs.done", "deliveries.sent", "deliveries.withdrawn"}
