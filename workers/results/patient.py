"""Who an object is of, where the hospital has corrected the patient since the image was made."""

from __future__ import annotations

from pydicom.dataset import Dataset

from db.patients import plain_text
from db.records import PatientIdentity
from workers.results.header import text_of

_ELEMENTS = {
    "PatientID": "patient_id",
    "IssuerOfPatientID": "issuer_of_patient_id",
    "PatientName": "patient_name",
    "PatientBirthDate": "patient_birth_date",
    "PatientSex": "patient_sex",
}


def with_patient(source: Dataset, patient: PatientIdentity | None) -> Dataset:
    """``source`` with what is known of its patient now; its own spelling stays where that says the same.

    The source itself is left alone. An empty value of ``patient`` says nothing.
    """
    if patient is None:
        return source
    known = {keyword: getattr(patient, name) for keyword, name in _ELEMENTS.items()}
    changed = {
        keyword: value
        for keyword, value in known.items()
        if value and plain_text(value) != plain_text(text_of(source, keyword, "\\"))
    }
    if not changed:
        return source
    made = Dataset({element.tag: element for element in source})
    if hasattr(source, "file_meta"):
        made.file_meta = source.file_meta
    for keyword, value in changed.items():
        made.pop(keyword, None)  # or the value of the source's own element would change
        setattr(made, keyword, value)
    return made
