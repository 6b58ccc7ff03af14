"""A hospital around a whole ``pleura serve``: a RIS that orders and reports, a modality, and somebody to
notification.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset
from pynetdicom import AE
from pynetdicom.sop_class import ComputedRadiographyImageStorage

from db import notifications
from db.notifications import NotificationDetail
from db.order_tables import NotificationState
from db.queries import study_details
from db.queries.worklist import Worklist
from db.shown_records import StudyDetail
from db.states import Priority
from tests.integration.pleura import write_config
from tests.integration.studies import frontal
from tests.node.hl7.messages import Sender, order, report
from tests.node.hl7.process import Process
from tests.orthanc import wait_until
from tests.workers.notifications.receivers import Web, web

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Hospital:
    """A running node, and what its neighbours do."""

    def __init__(self, folder: Path, receiver: Web) -> None:
        config = write_config(
            folder,
            listener={"port": 0},
            admin={"enabled": False},
            workers={"scheduler_interval_seconds": 0.2, "backoff_seconds": 0.5, "maximum_backoff_seconds": 0.5},
            hl7={"enabled": True, "port": 0},
            notifications={
                "attempts": 100000,
                "webhook": {"enabled": True, "url": f"http://127.0.0.1:{receiver.port}/", "secret": "secret"},
            },
        )
        self.node = Process(config, "serve")
        self.receiver = receiver

    def find_ports(self) -> None:
        """Learn where the running node listens."""
        self.dicom_port = self._port(rb"PLEURA listens on 127\.0\.0\.1:(\d+)")
        self.ris = Sender(self._port(rb"HL7 listens on 127\.0\.0\.1:(\d+)"))

    def _port(self, pattern: bytes) -> int:
        found = self.wait(lambda: re.search(pattern, self.node.log.read_bytes()), "a listener")
        return int(found.group(1))

    def wait(self, condition: object, what: str) -> re.Match[bytes]:
        waited: re.Match[bytes] = wait_until(condition, what, seconds=300, alive=self.node.check_alive)  # type: ignore[arg-type]
        return waited

    def store(self, image: FileDataset) -> int:
        entity = AE("MODALITY")
        entity.add_requested_context(ComputedRadiographyImageStorage, image.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", self.dicom_port, ae_title="PLEURA")
        assert association.is_established
        assert association.send_c_store(image).Status == 0
        association.release()
        found = self.node.database.read(study_details.find_study, image.StudyInstanceUID)
        assert found is not None
        return found

    def study(self, study_id: int) -> StudyDetail:
        return self.node.database.read(study_details.study_detail, study_id)

    def notified(self, study_id: int) -> list[NotificationDetail]:
        return list(self.node.database.read(notifications.of_study, study_id))


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    with web(status=503) as receiver:
        hospital = Hospital(tmp_path, receiver)
        with hospital.node:
            hospital.find_ports()
            yield hospital
            assert hospital.node.end(signal.SIGTERM) == 0


def image_of_today(number: int) -> FileDataset:
    image = frontal(number)
    now = datetime.now(UTC)
    image.StudyDate, image.StudyTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    return image


def test_from_the_order_to_the_report(hospital: Hospital) -> None:
    patient = "PID|1||P0001^^^^MR||Doe^Jane"
    assert hospital.ris.send(order(accession="A0001", patient=patient)).code == "AA"
    study = hospital.store(image_of_today(1))
    assert hospital.study(study).row.priority is not Priority.ROUTINE, "the order was ahead of the image"
    hospital.wait(lambda: hospital.notified(study), "a notification")
    hospital.wait(lambda: hospital.receiver.requests, "an attempt to tell it")
    assert hospital.study(study).row.priority is Priority.CRITICAL

    assert hospital.ris.send(report(accession="A0001", patient=patient)).code == "AA"

    assert Worklist(hospital.node.database.engine).page() == ()
    hospital.wait(lambda: hospital.notified(study)[0].state is NotificationState.WITHDRAWN, "cancel")
    hospital.receiver.status = 200
    hospital.receiver.requests.clear()
    other = hospital.store(image_of_today(2))
    hospital.wait(
        lambda: [one.state for one in hospital.notified(other)] == [NotificationState.SENT], "the other notification"
    )
    (request,) = hospital.receiver.requests
    assert b"A0002" in request.body
    log = hospital.node.log.read_text()
    assert not any(secret in log for secret in ("Doe", "Jane", "A0001", "P0001"))
