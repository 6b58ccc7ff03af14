"""A node without its listener: real workers, scheduler, broker and database, fed by rows instead of by C-STORE."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from config.settings import Settings, load
from db.database import Database
from db.engine import connect
from db.records import ReceivedInstance, Route
from tests.commands import record_instance
from tests.db.recorded import queue_counts
from tests.migrated import migrate
from tests.orthanc import Orthanc, wait_until
from tests.rules import NO_RULES
from tests.workers.conftest import Broker
from tests.workers.fallible_worker import PIPELINE
from workers.analysis_queues import queue_of
from workers.composition import scheduler_of
from workers.enqueue import TaskQueue
from workers.repeat import repeat_until
from workers.results.identity import Identity

CR = "1.2.840.10008.5.1.4.1.1.1"


def radiograph(uid: str, rows: int = 64, columns: int = 48) -> Dataset:
    """A small Computed Radiography image."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UID(CR)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CR, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{uid}.1", f"{uid}.2"
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = "P1", "Test^Pat", "", ""
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "20260131", "120000", "", ""
    dataset.ReferringPhysicianName, dataset.SeriesNumber, dataset.InstanceNumber = "", 1, 1
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
    dataset.PixelSpacing, dataset.PatientOrientation = [0.2, 0.2], ["L", "F"]
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    pixels = np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns) % 4096
    dataset.PixelData = pixels.tobytes()
    return dataset


class Parts:
    """The parts of a node, each started again when it has died."""

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        pacs: Orthanc | None,
        *,
        real: bool = False,
        kinds: Sequence[str] = ("seg", "sr"),
        verify_identity: bool = False,
        **workers: Any,
    ) -> None:
        self.folder = folder
        self._module = "tests.workers.real_worker" if real else "tests.workers.fallible_worker"
        self.broker = broker
        store = folder / "store"
        (store / "kill").mkdir(parents=True)
        destination = {
            "name": "pacs",
            "ae_title": pacs.ae_title if pacs else "PACS",
            "host": "127.0.0.1",
            "port": pacs.dicom_port if pacs else 1,
            "kinds": list(kinds),
            "verify_identity": verify_identity,
        }
        limits = {"scheduler_interval_seconds": 0.2, "reenqueue_after_seconds": 2, "backoff_seconds": 0.2, **workers}
        self.config = folder / "pleura.toml"
        self.config.write_text(_toml(store, broker.url, limits, destination))
        self.settings: Settings = load(self.config)
        migrate(connect(self.settings.database_url))
        self.database = Database(connect(self.settings.database_url), NO_RULES)
        self.task_queue = TaskQueue(broker.url)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts = 0
        self._numbers = itertools.count(1000)
        self._log = (folder / "workers.log").open("ab")
        self._stop = threading.Event()
        scheduler = scheduler_of(self.settings, self.task_queue)
        self._node_scheduler = threading.Thread(
            target=repeat_until, args=(self._stop, scheduler.once, limits["scheduler_interval_seconds"])
        )

    def start(self, *queues: str) -> None:
        for queue in queues or ("jobs", "deliveries"):
            self.start_worker(queue)
        self._node_scheduler.start()

    def stop(self) -> None:
        self._stop.set()
        self._node_scheduler.join()
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(90)  # how soon it stops is tested elsewhere; here it may wait for a disk that others fill
        self._log.close()

    def tend(self) -> None:
        """Start what has died again, as ``pleura serve`` does."""
        for queue, process in list(self.processes.items()):
            if process.poll() is not None:
                self.restarts += 1
                self.start_worker(queue)

    def take_in(
        self, uid: str, *, enqueue: bool = True, stat: bool = False, rows: int = 64, route: Route | None = None
    ) -> str:
        """Do what the listener does with a small image; the UID is given back."""
        digest = f"{int(uid.rsplit('.', 1)[1]):064x}"
        self.take_in_dataset(radiograph(uid, rows), digest, PIPELINE, enqueue=enqueue, stat=stat, route=route)
        return uid

    def take_in_dataset(
        self,
        dataset: Dataset,
        digest: str,
        pipeline: str,
        *,
        enqueue: bool = True,
        stat: bool = False,
        route: Route | None = None,
    ) -> None:
        """Do what the listener does with any image."""
        path = Path("instances", f"{digest}.dcm")
        (self.settings.store.folder / path).parent.mkdir(exist_ok=True)
        dcmwrite(self.settings.store.folder / path, dataset, enforce_file_format=True)
        received = ReceivedInstance(
            sop_instance_uid=str(dataset.SOPInstanceUID),
            sop_class_uid=str(dataset.SOPClassUID),
            transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
            digest=digest,
            path=str(path),
            byte_count=1,
            study_instance_uid=str(dataset.StudyInstanceUID),
            series_instance_uid=str(dataset.SeriesInstanceUID),
            patient_id=str(dataset.PatientID),
            patient_name=str(dataset.PatientName),
            patient_birth_date="19500101",
            patient_sex="F",
            stat=stat,
            route=route,
            queue=queue_of(route, self.settings.models),
        )
        ingest = record_instance(self.database, received, None, pipeline, datetime.now(UTC))
        if enqueue:
            self.task_queue.enqueue_jobs([(job_id, stat) for job_id in ingest.job_ids], received.queue)

    def take_in_next(self, count: int) -> list[str]:
        """Take in so many images with UIDs of their own."""
        return [self.take_in(f"1.2.3.{next(self._numbers)}") for _ in range(count)]

    def arm(self, point: str, victim: str) -> None:
        """Have ``victim`` ("child" or "parent") killed at ``point``, once; with "nobody" a process waits there."""
        armed = self.settings.store.folder / "kill" / f"{point}.{victim}"
        part = armed.with_name(f"part-{armed.name}")
        part.write_text(victim)
        part.rename(armed)

    def go_on(self) -> None:
        """Let the process go on that waits at an armed point."""
        (self.settings.store.folder / "go").touch()

    def hits(self) -> list[tuple[str, str]]:
        """Which points have killed whom so far, in order."""
        path = self.settings.store.folder / "hits"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line.split()[0], line.split()[1]) for line in lines]

    def wait_until(self, condition: Any, what: str, seconds: float = 120) -> Any:
        return wait_until(condition, what, seconds=seconds, pause=0.05, alive=self.tend)

    def counts(self) -> dict[str, int]:
        """Jobs and deliveries by state, without the zeros."""
        return {state: count for state, count in self.database.read(queue_counts).items() if count}

    def log(self) -> str:
        self._log.flush()
        return (self.folder / "workers.log").read_text(errors="replace")

    def start_worker(self, queue: str) -> None:
        command = [sys.executable, "-m", self._module, queue, str(self.config)]
        self.processes[queue] = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=os.environ.copy())


def expected_results(uid: str, kinds: Sequence[str] = ("seg", "sr")) -> set[str]:
    """SOP Instance UIDs of the SEG and the SR of an image: derived from the work, so they are known beforehand."""
    digest = f"{int(uid.rsplit('.', 1)[1]):064x}"
    identity = Identity("2.25", uid, digest, PIPELINE, 1)
    return {identity.uid(kind) for kind in kinds}


@contextmanager
def running_parts(folder: Path, broker: Broker, pacs: Orthanc | None = None, **workers: Any) -> Iterator[Parts]:
    """Run workers and scheduler until the block ends."""
    parts = Parts(folder, broker, pacs, **workers)
    parts.start()
    try:
        yield parts
    finally:
        parts.stop()


def _toml(store: Path, broker: str, workers: dict[str, Any], destination: dict[str, Any]) -> str:
    def table(name: str, values: dict[str, Any]) -> str:
        return "\n".join([name, *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""])

    return "\n".join(
        [
            table("[store]", {"folder": str(store)}),
            table("[broker]", {"url": broker}),
            table("[workers]", workers),
            table("[triage]", {"completion_seconds": 3600}),
            table("[[destinations]]", destination),
        ]
    )
