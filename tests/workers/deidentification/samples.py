"""Options, and data sets that name their patient wherever they can."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset

from config.integrations import Deidentification
from db.patients import PatientIdentifier, PatientRules
from tests.workers.harness import radiograph
from workers.deidentification.profile import Deidentifier
from workers.deidentification.pseudonyms import Pseudonyms, Subject

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
    for keyword, value in changes.items():
        if value is None:
            made.pop(keyword, None)
        else:
            setattr(made, keyword, value)
    return made


def written(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path
