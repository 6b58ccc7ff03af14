"""Killed with -9 under load: what was accepted has exactly its results in the PACS, counted there.

``tests/workers`` kills workers and broker at named points inside a job; here the listener and the whole node die while
images arrive, as they do when a machine loses its power.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset
from pynetdicom import AE
from pynetdicom.sop_class import ComputedRadiographyImageStorage

from tests.integration.pleura import Pleura, running_pleura
from tests.integration.studies import frontal
from tests.orthanc import Orthanc, running_orthanc, wait_until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900), pytest.mark.peer("Orthanc")]

log = logging.getLogger(__name__)

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
IMAGES = 24


@dataclass
class Modality:
    """A sender like any modality: it sends an image until it was told success, and only then forgets it."""

    port: int
    images: list[FileDataset]
    accepted: list[str] = field(default_factory=list)
    failures: int = 0
    pause: float = 0.15
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Send everything, in the background."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until everything has been accepted."""
        assert self._thread is not None
        self._thread.join(300)
        assert not self._thread.is_alive(), f"only {len(self.accepted)} of {len(self.images)} images were accepted"

    def _run(self) -> None:
        for image in self.images:
            while not self._store(image):
                self.failures += 1
                time.sleep(0.5)
            self.accepted.append(str(image.SOPInstanceUID))
            time.sleep(self.pause)

    def _store(self, image: FileDataset) -> bool:
        ae = AE(ae_title="SENDER")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 20
        ae.add_requested_context(ComputedRadiographyImageStorage)
        association = ae.associate("127.0.0.1", self.port, ae_title="PLEURA")
        if not association.is_established:
            return False
        try:
            status = association.send_c_store(image)
        except (RuntimeError, ValueError):
            return False
        finally:
            if association.is_established:
                association.release()
        return bool(status) and status.Status == 0x0000


def _results(pacs: Orthanc) -> Counter[tuple[str, str]]:
    """How many objects of which modality each patient has in the PACS."""
    return Counter((str(one.PatientID), str(one.Modality)) for one in pacs.datasets())


def _hit(node: Pleura, kill: Callable[[], None], why: str) -> None:
    kill()
    log.warning("kill -9: %s, %s", node.hits[-1], why)


def test_listener_and_whole_node_killed_while_images_arrive(tmp_path: Path) -> None:
    images = [frontal(number) for number in range(IMAGES)]
    with (
        running_orthanc(tmp_path / "pacs", modalities={"pleura": ("PLEURA", 1)}) as pacs,
        running_pleura(tmp_path / "pleura", pacs) as node,
    ):
        modality = Modality(node.port, images)
        modality.start()

        def accepted(number: int) -> None:
            wait_until(lambda: len(modality.accepted) >= number, f"{number} images accepted", seconds=180, pause=0.02)

        accepted(2)
        _hit(node, lambda: node.kill_part("listener"), "two images accepted")
        accepted(6)
        _hit(node, node.kill_everything, "images arrive and jobs run")
        node.start()
        wait_until(lambda: pacs.count() > 0, "a first result", seconds=180, alive=node.check_alive)
        _hit(node, node.kill_everything, "results are being sent")
        node.start()
        accepted(12)
        _hit(node, lambda: node.kill_part("listener"), "half of the images accepted")
        accepted(16)
        _hit(node, lambda: node.kill_part("broker"), "jobs wait in the queue")
        accepted(18)
        _hit(node, lambda: node.kill_part("scheduler"), "the scheduler completes studies")
        modality.finish()
        _hit(node, node.kill_everything, "the last image was accepted a moment ago")
        node.start()

        assert len(node.hits) == 7, node.hits
        assert sorted(modality.accepted) == sorted(str(image.SOPInstanceUID) for image in images)
        expected = Counter({(str(image.PatientID), "SEG"): 1 for image in images})
        # Two reports: of the image, and of the study once it has complete.
        expected.update({(str(image.PatientID), "SR"): 2 for image in images})
        wait_until(
            lambda: _results(pacs) == expected, "every result, once", seconds=240, pause=1, alive=node.check_alive
        )
        time.sleep(5)
        assert _results(pacs) == expected, "more came after everything was there"
