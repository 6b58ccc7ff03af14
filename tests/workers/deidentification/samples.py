"""Options, radiographs, and studies as listener and worker leave them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from config.deidentification import Deidentification
from db import jobs
from db.database import Database
from db.patients import PatientIdentifier, PatientRules
from db.queries import study_details
from db.records import Outcome, ReceivedInstance
from tests.commands import record_instance
from tests.models.samples import set_elements
from tests.workers.harness import radiograph
from tests.workers.results.sources import analysis, encode_all
from workers.deidentification.profile import Deidentifier
from workers.deidentification.pseudonyms import Pseudonyms, Subject
from workers.job_outcome import as_file
from workers.results.source_image import read_header

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = "a key of the tests, of 32 letters and more"
OPTIONS = Deidentification(key=KEY)
PSEUDONYMS = Pseudonyms(KEY)
SUBJECT: Subject = PSEUDONYMS.subject(PatientIdentifier("P1"), "1.2.3", PatientRules())


def deidentifier(**options: object) -> Deidentifier:
    return Deidentifier(OPTIONS.model_copy(update=options), PSEUDONYMS)


def image(uid: str = "1.2.3.4.5.6", **changes: object) -> Dataset:
    """A radiograph that says that no text is burned in; ``changes`` set elements, None removes one."""
    made = radiograph(uid)
    made.ImageType, made.BurnedInAnnotation, made.Manufacturer = ["ORIGINAL", "PRIMARY"], "NO", "ACME"
    made.SpecificCharacterSet = "ISO_IR 100"
    set_elements(made, changes)
    return made


def written(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def receive(
    database: Database,
    store: Path,
    uid: str,
    patient: str = "Zqdoe",
    destinations: dict[str, tuple[str, ...]] | None = None,
    **changes: Any,
) -> int:
    """A study of one image with its results, as listener and worker leave it; gives the study's row."""
    made = image(
        uid, PatientName=f"{patient}^Zqjane", PatientID=f"ZQ{patient}", AccessionNumber=f"ZQ{uid[-1]}", **changes
    )
    path = written(made, store / f"{uid}.dcm")
    content = path.read_bytes()
    received = ReceivedInstance(
        uid,
        str(made.SOPClassUID),
        "1.2.840.10008.1.2.1",
        hashlib.sha256(content).hexdigest(),
        path.name,
        len(content),
        str(made.StudyInstanceUID),
        str(made.SeriesInstanceUID),
        patient_id=made.PatientID,
        patient_name=str(made.PatientName),
        accession_number=made.AccessionNumber,
        study_date=made.StudyDate,
        modality="CR",
    )
    ingest = record_instance(database, received, None, "pipeline", NOW)
    files = [as_file(kind, each) for kind, each in encode_all(analysis(read_header(path))).items()]
    for file in files:
        (store / file.record.path).parent.mkdir(parents=True, exist_ok=True)
        (store / file.record.path).write_bytes(file.content)
    (job_id,) = ingest.job_ids
    database.write(jobs.claim, job_id, "worker", NOW, timedelta(minutes=5))
    outcome = Outcome(results=tuple(file.record for file in files), destinations=destinations or {})
    database.write(jobs.finish, job_id, "worker", outcome, NOW)
    study = database.read(study_details.find_study, uid)
    assert study is not None
    return study
