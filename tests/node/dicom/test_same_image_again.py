"""The same image by C-STORE from modality and archive: taken at once, compared later, and nobody has to look at it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydicom import Dataset, uid
from pydicom.uid import UID
from pynetdicom import AE

from db import jobs, repeated_instances
from db.database import Database
from db.queries import study_details
from db.shown_records import StudyDetail
from db.states import JobState
from tests.node.dicom.listening import Listening, chest, listening
from tests.rules import NO_RULES
from workers.clock import utc_now
from workers.repeated_instances import difference

_CR = uid.ComputedRadiographyImageStorage


def _send(port: int, image: Dataset, syntax: str) -> None:
    entity = AE(ae_title="SCU")
    entity.add_requested_context(_CR, syntax)
    association = entity.associate("127.0.0.1", port, ae_title="PLEURA")
    image.file_meta.TransferSyntaxUID = UID(syntax)
    assert association.send_c_store(image).Status == 0x0000
    association.release()


def _compare(node: Listening) -> StudyDetail:
    """Do what the worker does with each job that only compares."""
    database = Database(node.engine, NO_RULES)
    for job_id, _ in database.read(jobs.to_enqueue, utc_now() + timedelta(hours=1), timedelta(0)):
        job = database.write(jobs.claim, job_id, "w", utc_now(), timedelta(minutes=1))
        if job is not None and job.compare_with is not None:
            (before,) = job.compare_with
            assert database.write(
                repeated_instances.record_comparison,
                job.id,
                "w",
                difference(node.folder / before, node.folder / job.instance_path),
                utc_now(),
            )
    return database.read(study_details.study_detail, 1)


def test_the_archives_copy_of_a_modalitys_image_holds_nothing(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        image = chest()
        _send(node.port, image, uid.ExplicitVRLittleEndian)
        image.RetrieveAETitle, image.InstanceAvailability = "ARCHIVE", "ONLINE"
        _send(node.port, image, uid.ImplicitVRLittleEndian)
        assert node.dispatched[1] == (2, True), "it is compared before other work"
        detail = _compare(node)
        assert not detail.row.on_hold
        assert detail.row.images == 1
        assert [one.flag for one in detail.instances] == ["", "repeat"]
        assert detail.jobs[1].state is JobState.WITHDRAWN
        assert len(node.files()) == 2, "what was received is kept as it came"


def test_another_image_under_the_same_uid_is_on_hold(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        image = chest()
        _send(node.port, image, uid.ExplicitVRLittleEndian)
        image.PixelData = bytes(512 * 511) + b"\x01" * 512
        _send(node.port, image, uid.ImplicitVRLittleEndian)
        detail = _compare(node)
        assert detail.row.on_hold
        assert [one.flag for one in detail.instances] == ["", "conflict"]
