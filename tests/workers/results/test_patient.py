"""Who an object is of, after the hospital has corrected the patient."""

from __future__ import annotations

from db.records import PatientIdentity
from tests.workers.results.sources import analysis, encode_all, source
from workers.results.patient import with_patient


def test_what_is_known_now_replaces_what_the_image_says_and_the_image_is_left_alone() -> None:
    image = source()
    known = PatientIdentity("P-0815", "HOSPITAL", "Müller^Jürgen", "19610204", "M")
    made = with_patient(image, known)
    identity = (made.PatientID, made.IssuerOfPatientID, str(made.PatientName), made.PatientBirthDate, made.PatientSex)
    assert identity == ("P-0815", "HOSPITAL", "Müller^Jürgen", "19610204", "M")
    assert str(image.PatientName) == "Doe^Jane"
    assert made.file_meta == image.file_meta


def test_the_images_own_spelling_stays_where_it_says_the_same() -> None:
    image = source(PatientName="DOE^JANE^^")
    assert with_patient(image, None) is image
    assert with_patient(image, PatientIdentity("P-0815", "", "Doe^Jane", "", "")) is image


def test_every_kind_of_object_carries_the_new_identity() -> None:
    corrected = with_patient(source(), PatientIdentity("P-9", patient_name="Ναι^Αννα"))  # noqa: RUF001
    for kind, made in encode_all(analysis(corrected)).items():
        assert (made.PatientID, str(made.PatientName)) == ("P-9", "Ναι^Αννα"), kind  # noqa: RUF001
        assert made.SpecificCharacterSet == "ISO_IR 192", "the source's cannot hold it"
