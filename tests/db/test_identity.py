"""Whose study it is: identifiers of several issuers, the node's own issuer, and IDs that name nobody."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Engine

from db import jobs
from db.database import Database
from db.node_rules import Rules
from db.orders import HospitalMessage, OrderKeys, OrderUpdate, OtherPatientError
from db.patients import PatientIdentifier, PatientRules, PatientUpdate, PlaceholderError
from db.queries import study_details
from db.states import Priority
from db.study_rules import NotificationRules
from tests.commands import receive_message, record_instance, study_facts
from tests.db.examples import HOUR, NOW, PIPELINE, claim, finding, outcome, received, record, study_of

B123, C555 = PatientIdentifier("123", "B"), PatientIdentifier("555", "C")
TWO_NAMES = B123, C555
NUMBERS = count(1)
STAT: dict[str, Any] = {"priority": Priority.URGENT, "says_priority": True}
JANE = {"patient_name": "Doe^Jane", "patient_birth_date": "19700101", "patient_sex": "F"}


def opened(engine: Engine, *own: str, placeholders: tuple[str, ...] = ("unknown", "0+")) -> Database:
    return Database(engine, Rules(NotificationRules(), PatientRules(own, placeholders)))


def message(*patients: PatientUpdate, orders: tuple[OrderUpdate, ...] = ()) -> HospitalMessage:
    number = next(NUMBERS)
    return HospitalMessage("RIS|HOSPITAL", f"M{number}", f"{number:064x}", "ADT^A08", orders, patients)


def name_of(database: Database, study: int = 1) -> str:
    return database.read(study_details.study_detail, study_of(database, study)).row.patient_name


RENAMED = PatientUpdate(TWO_NAMES, name="Roe^Jane")


@pytest.mark.parametrize(
    ("own", "issuer", "renamed"),
    [
        ((), "", False),
        (("A",), "", False),
        (("C",), "", True),
        (("North", "C"), "", True),
        (("C",), "North", False),
        (("North", "C"), "North", True),
        ((), "C", True),
        ((), "B", False),
    ],
)
def test_an_id_without_issuer_is_of_the_nodes_own_issuer_and_no_other(
    engine: Engine, own: tuple[str, ...], issuer: str, renamed: bool
) -> None:
    database = opened(engine, *own)
    record(database, patient_id="555", issuer_of_patient_id=issuer)
    result = receive_message(database, message(RENAMED), NOW)
    assert (name_of(database) == "Roe^Jane") is renamed
    assert bool(result.study_ids) is renamed


def test_a_message_says_when_only_the_setting_could_tell_whose_study_it_is(engine: Engine) -> None:
    database = opened(engine)
    record(database, patient_id="555")
    assert receive_message(database, message(RENAMED), NOW).issuer_unknown
    assert not receive_message(database, message(PatientUpdate((PatientIdentifier("9", "B"),))), NOW).issuer_unknown
    known = opened(engine, "A")
    assert not receive_message(known, message(PatientUpdate(TWO_NAMES, name="Poe^Jane")), NOW).issuer_unknown


def merged(*prior: PatientIdentifier) -> PatientUpdate:
    return PatientUpdate(TWO_NAMES, prior=prior)


@pytest.mark.parametrize(("own", "now"), [((), "99"), (("C",), "555"), (("B",), "123")])
def test_a_merge_moves_a_study_without_issuer_only_under_its_own(
    engine: Engine, own: tuple[str, ...], now: str
) -> None:
    database = opened(engine, *own)
    record(database, patient_id="99")
    receive_message(database, message(merged(PatientIdentifier("99", "B"), PatientIdentifier("99", "C"))), NOW)
    detail = database.read(study_details.study_detail, study_of(database))
    assert (detail.row.patient_id, detail.issuer_of_patient_id) == (now, "")
    record(database, study=2, patient_id="99")
    assert database.read(study_details.study_detail, study_of(database, 2)).row.patient_id == now, (
        "and so does what comes later"
    )


def test_a_merge_across_issuers_writes_the_new_one(engine: Engine) -> None:
    database = opened(engine, "A")
    record(database, patient_id="99")
    receive_message(database, message(merged(PatientIdentifier("99"))), NOW)
    detail = database.read(study_details.study_detail, study_of(database))
    assert (detail.row.patient_id, detail.issuer_of_patient_id) == ("123", "B")


def test_the_survivor_of_a_merge_is_the_one_of_the_same_issuer_under_any_of_its_names(engine: Engine) -> None:
    database = opened(engine, "C", "1.2.3")
    record(database, patient_id="99")
    receive_message(database, message(merged(PatientIdentifier("99", "1.2.3"))), NOW)
    assert database.read(study_details.study_detail, study_of(database)).row.patient_id == "555"


def ordered(**changes: Any) -> OrderUpdate:
    return OrderUpdate(OrderKeys(accession_number="A-1"), TWO_NAMES, **{**STAT, **changes})


def test_an_order_of_another_issuer_does_not_touch_a_study(engine: Engine) -> None:
    database = opened(engine)
    record(database, patient_id="555")
    with pytest.raises(OtherPatientError, match="patient_id_issuers"):
        receive_message(database, message(orders=(ordered(reported=True),)), NOW)
    with pytest.raises(OtherPatientError, match="another patient"):
        receive_message(opened(engine, "A"), message(orders=(ordered(reported=True),)), NOW)
    assert not study_facts(database, study_of(database)).reported
    assert receive_message(opened(engine, "C"), message(orders=(ordered(),)), NOW).study_ids


@pytest.mark.parametrize(
    ("own", "image", "urgent"),
    [
        ((), C555, True),
        ((), B123, True),
        ((), PatientIdentifier("555"), False),
        (("C",), PatientIdentifier("555"), True),
    ],
)
def test_an_order_that_is_ahead_is_remembered_under_each_of_its_identifiers(
    engine: Engine, own: tuple[str, ...], image: PatientIdentifier, urgent: bool
) -> None:
    database = opened(engine, *own)
    receive_message(database, message(orders=(ordered(),)), NOW)
    record(database, patient_id=image.patient_id, issuer_of_patient_id=image.issuer)
    wanted = Priority.URGENT if urgent else None
    assert study_facts(database, study_of(database)).hospital_priority is wanted


@pytest.mark.parametrize(("own", "flag"), [((), ""), (("A",), "patient"), (("B",), "")])
def test_images_of_one_study_with_and_without_issuer(engine: Engine, own: tuple[str, ...], flag: str) -> None:
    database = opened(engine, *own)
    record_instance(database, received(1, patient_id="123"), None, PIPELINE, NOW)
    record_instance(database, received(2, patient_id="123", issuer_of_patient_id="B"), None, PIPELINE, NOW)
    assert database.read(study_details.study_detail, study_of(database)).instances[1].flag == flag


@pytest.mark.parametrize(
    "news",
    [
        PatientUpdate((PatientIdentifier("UNKNOWN"),), name="Roe^Jane"),
        PatientUpdate((PatientIdentifier("P7"),), prior=(PatientIdentifier("Unknown"),)),
        PatientUpdate((PatientIdentifier("0000"),), prior=(PatientIdentifier("P1"),)),
    ],
)
def test_nobody_is_corrected_or_merged_under_a_placeholder(engine: Engine, news: PatientUpdate) -> None:
    database = opened(engine)
    record(database, patient_id="UNKNOWN")
    record(database, study=2, patient_id="P1")
    with pytest.raises(PlaceholderError):
        receive_message(database, message(news), NOW)
    record(database, study=3, patient_id="UNKNOWN")
    ids = [database.read(study_details.study_detail, study_of(database, study)).row.patient_id for study in (1, 2, 3)]
    assert ids == ["UNKNOWN", "P1", "UNKNOWN"]
    assert name_of(database) == "Doe^Jane"


def priors(database: Database, **changes: str) -> int:
    """How many earlier films tell of a finding: one was made of Jane Doe, then one with ``changes``."""
    for study, values in ((1, JANE), (2, JANE | changes)):
        at = NOW + timedelta(hours=study)
        instance = received(1, study, **{"patient_id": changes.get("patient_id", "P1"), **values})
        (job,) = record_instance(database, instance, None, PIPELINE, at).job_ids
        claim(database, job, now=at)
        database.write(jobs.finish, job, "w1", outcome(100 * study, findings=(finding(),)), at + HOUR)
    return len(study_facts(database, study_of(database, 2)).priors)


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, 1),
        ({"patient_name": "DOE^JANE^^"}, 1),
        ({"patient_name": "Roe^Jane"}, 0),
        ({"patient_name": ""}, 0),
        ({"patient_birth_date": "19700102"}, 0),
        ({"patient_birth_date": ""}, 0),
        ({"patient_sex": "M"}, 0),
        ({"issuer_of_patient_id": "A"}, 1),
        ({"issuer_of_patient_id": "B"}, 0),
        ({"patient_id": "UNKNOWN"}, 0),
        ({"patient_id": "000"}, 0),
    ],
)
def test_a_prior_needs_the_same_identity(engine: Engine, changes: dict[str, str], known: int) -> None:
    assert priors(opened(engine, "A"), **changes) == known


def test_an_id_alone_makes_nobody_known(engine: Engine) -> None:
    nobody = {"patient_name": "", "patient_birth_date": "", "patient_sex": "F"}
    database = opened(engine)
    for study in (1, 2):
        at = NOW + timedelta(hours=study)
        (job,) = record_instance(database, received(1, study, patient_id="P1", **nobody), None, PIPELINE, at).job_ids
        claim(database, job, now=at)
        database.write(jobs.finish, job, "w1", outcome(100 * study, findings=(finding(),)), at + HOUR)
    assert study_facts(database, study_of(database, 2)).priors == ()
