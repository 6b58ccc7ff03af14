"""Too many images wait for analysis: further ones are refused, and tried again by their senders."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydicom import Dataset

from config.listener import Listener
from db import jobs
from db.database import Database
from tests.node.dicom.listening import Listening, chest, listening
from tests.node.dicom.test_storage_scp import calling, send
from tests.rules import NO_RULES
from workers.clock import utc_now

OUT_OF_RESOURCES = 0xA700


def answer(listener: Listening, image: Dataset) -> int | None:
    with calling(listener.port) as association:
        return send(association, image)


def test_images_wait_at_the_modality_and_not_unseen_in_the_queue(tmp_path: Path) -> None:
    with listening(tmp_path, Listener(port=0, maximum_waiting_jobs=2)) as listener:
        assert [answer(listener, chest()) for _ in range(3)] == [0, 0, OUT_OF_RESOURCES]
        assert len(listener.rows()) == len(listener.files()) == 2
        assert listener.leftovers() == []
        assert answer(listener, chest(StudyDescription="Chest STAT")) == 0, "what is urgent is taken all the same"
        assert answer(listener, chest(ViewPosition="LL")) == 0, "and so is what is not analysed"

        for job_id, _ in listener.dispatched[:2]:
            lease = timedelta(minutes=1)
            assert Database(listener.engine, NO_RULES).write(jobs.claim, job_id, "w1", utc_now(), lease)
        assert answer(listener, chest()) == 0
