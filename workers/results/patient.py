"""The patient of a result object, if the hospital has corrected the patient since the image was made."""

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
    """A copy of ``source`` with the current values of its patient; an equivalent spelling is not replaced.

    The source itself is not changed. An empty value of ``patient`` counts as unknown.
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
        made.pop(keyword, None)  # otherwise the element of the source would be changed
        setattr(made, keyword, value)
    return made
