"""Pseudonyms: the same for the same patient, another for another one, and nothing that leads back."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from pydicom.uid import UID

from config.deidentification import Deidentification
from db.patients import PatientIdentifier, PatientRules
from tests.workers.deidentification.samples import KEY
from workers.deidentification.pseudonyms import Pseudonyms

RULES = PatientRules(("HOSPITAL",), (r"unknown", r"0+"))


def _of(patient_id: str, issuer: str = "", study: str = "1.2", made: Pseudonyms | None = None) -> str:
    return (made or Pseudonyms(KEY)).subject(PatientIdentifier(patient_id, issuer), study, RULES).pseudonym


def test_a_patient_has_one_pseudonym_in_all_studies() -> None:
    assert _of("4711", study="1.2") == _of(" 4711 ", "HOSPITAL", study="3.4")
    assert len({_of("4711"), _of("4712"), _of("4711", "OTHER"), _of("4711", made=Pseudonyms(KEY, "trial"))}) == 4
    assert _of("4711", made=Pseudonyms("another key")) != _of("4711")


def test_who_has_no_id_is_one_patient_a_study() -> None:
    assert _of("UNKNOWN", study="1.2") != _of("UNKNOWN", study="3.4")
    assert _of("", study="1.2") == _of("", study="1.2")


def test_a_patient_has_one_shift_of_a_year_at_least() -> None:
    made = Pseudonyms(KEY)
    days = {made.subject(PatientIdentifier(str(number)), "1.2", RULES).days for number in range(200)}
    assert len(days) > 150
    assert min(days) >= 366
    assert max(days) <= 3650


def test_a_uid_is_valid_and_of_no_use_without_the_key() -> None:
    made = Pseudonyms(KEY)
    uid = made.uid("1.2.3")
    assert UID(uid).is_valid
    assert uid == Pseudonyms(KEY).uid("1.2.3")
    assert uid not in (made.uid("1.2.4"), Pseudonyms(KEY, "trial").uid("1.2.3"), Pseudonyms("other").uid("1.2.3"))


def test_neither_key_nor_settings_show_the_secret() -> None:
    assert KEY not in repr(Pseudonyms(KEY))
    assert KEY not in repr(Deidentification(key=KEY))


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="32 characters"):
        Deidentification(key="short")
