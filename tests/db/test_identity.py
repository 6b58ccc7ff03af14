"""Whose study it is: identifiers of several issuers, the node's own issuer, and IDs that name nobody."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Engine

from db.node_rules import Rules
from db.notifications import NotificationRules
from db.orders import HospitalMessage, OrderKeys, OrderNews, OtherPatientError
from db.patients import PatientIdentifier, PatientNews, PatientRules, PlaceholderError
from db.records import Priority
from db.worklist import Worklist
from tests.db.examples import HOUR, NOW, PIPELINE, claim, finding, outcome, received, record, study_of

B123, C555 = PatientIdentifier("123", "B"), PatientIdentifier("555", "C")
TWO_NAMES = B123, C555
NUMBERS = count(1)
STAT: dict[str, Any] = {"priority": Priority.URGENT, "says_priority": True}
JANE = {"patient_name": "Doe^Jane", "patient_birth_date": "19700101", "patient_sex": "F"}


def opened(engine: Engine, *own: str, placeholders: tuple[str, ...] = ("unknown", "0+")) -> Worklist:
    return Worklist(engine, Rules(NotificationRules(), PatientRules(own, placeholders)))


def said(*patients: PatientNews, orders: tuple[OrderNews, ...] = ()) -> HospitalMessage:
    number = next(NUMBERS)
    return HospitalMessage("RIS|HOSPITAL", f"M{number}", f"{number:064x}", "ADT^A08", orders, patients)


def name_of(worklist: Worklist, study: int = 1) -> str:
    return worklist.study_detail(study_of(worklist, study)).row.patient_name


RENAMED = PatientNews(TWO_NAMES, name="Roe^Jane")


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
    worklist = opened(engine, *own)
    record(worklist, patient_id="555", issuer_of_patient_id=issuer)
    result = worklist.receive_message(said(RENAMED), NOW)
    assert (name_of(worklist) == "Roe^Jane") is renamed
    assert bool(result.study_ids) is renamed


def test_a_message_says_when_only_the_setting_could_tell_whose_study_it_is(engine: Engine) -> None:
    worklist = opened(engine)
    record(worklist, patient_id="555")
    assert worklist.receive_message(said(RENAMED), NOW).issuer_unknown
    assert not worklist.receive_message(said(PatientNews((PatientIdentifier("9", "B"),))), NOW).issuer_unknown
    known = opened(engine, "A")
    assert not known.receive_message(said(PatientNews(TWO_NAMES, name="Poe^Jane")), NOW).issuer_unknown


def merged(*prior: PatientIdentifier) -> PatientNews:
    return PatientNews(TWO_NAMES, prior=prior)


@pytest.mark.parametrize(("own", "now"), [((), "99"), (("C",), "555"), (("B",), "123")])
def test_a_merge_moves_a_study_without_issuer_only_under_its_own(
    engine: Engine, own: tuple[str, ...], now: str
) -> None:
    worklist = opened(engine, *own)
    record(worklist, patient_id="99")
    worklist.receive_message(said(merged(PatientIdentifier("99", "B"), PatientIdentifier("99", "C"))), NOW)
    detail = worklist.study_detail(study_of(worklist))
    assert (detail.row.patient_id, detail.issuer_of_patient_id) == (now, "")
    record(worklist, study=2, patient_id="99")
    assert worklist.study_detail(study_of(worklist, 2)).row.patient_id == now, "and so does what comes later"


def test_a_merge_across_issuers_writes_the_new_one(engine: Engine) -> None:
    worklist = opened(engine, "A")
    record(worklist, patient_id="99")
    worklist.receive_message(said(merged(PatientIdentifier("99"))), NOW)
    detail = worklist.study_detail(study_of(worklist))
    assert (detail.row.patient_id, detail.issuer_of_patient_id) == ("123", "B")


def test_the_survivor_of_a_merge_is_the_one_of_the_same_issuer_under_any_of_its_names(engine: Engine) -> None:
    worklist = opened(engine, "C", "1.2.3")
    record(worklist, patient_id="99")
    worklist.receive_message(said(merged(PatientIdentifier("99", "1.2.3"))), NOW)
    assert worklist.study_detail(study_of(worklist)).row.patient_id == "555"


def ordered(**changes: Any) -> OrderNews:
    return OrderNews(OrderKeys(accession_number="A-1"), TWO_NAMES, **{**STAT, **changes})


def test_an_order_of_another_issuer_does_not_touch_a_study(engine: Engine) -> None:
    worklist = opened(engine)
    record(worklist, patient_id="555")
    with pytest.raises(OtherPatientError, match="patient_id_issuers"):
        worklist.receive_message(said(orders=(ordered(reported=True),)), NOW)
    with pytest.raises(OtherPatientError, match="another patient"):
        opened(engine, "A").receive_message(said(orders=(ordered(reported=True),)), NOW)
    assert not worklist.study_facts(study_of(worklist)).reported
    assert opened(engine, "C").receive_message(said(orders=(ordered(),)), NOW).study_ids


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
    worklist = opened(engine, *own)
    worklist.receive_message(said(orders=(ordered(),)), NOW)
    record(worklist, patient_id=image.patient_id, issuer_of_patient_id=image.issuer)
    wanted = Priority.URGENT if urgent else None
    assert worklist.study_facts(study_of(worklist)).hospital_priority is wanted


@pytest.mark.parametrize(("own", "flag"), [((), ""), (("A",), "patient"), (("B",), "")])
def test_images_of_one_study_with_and_without_issuer(engine: Engine, own: tuple[str, ...], flag: str) -> None:
    worklist = opened(engine, *own)
    worklist.record_instance(received(1, patient_id="123"), None, PIPELINE, NOW)
    worklist.record_instance(received(2, patient_id="123", issuer_of_patient_id="B"), None, PIPELINE, NOW)
    assert worklist.study_detail(study_of(worklist)).instances[1].flag == flag


@pytest.mark.parametrize(
    "news",
    [
        PatientNews((PatientIdentifier("UNKNOWN"),), name="Roe^Jane"),
        PatientNews((PatientIdentifier("P7"),), prior=(PatientIdentifier("Unknown"),)),
        PatientNews((PatientIdentifier("0000"),), prior=(PatientIdentifier("P1"),)),
    ],
)
def test_nobody_is_corrected_or_merged_under_a_placeholder(engine: Engine, news: PatientNews) -> None:
    worklist = opened(engine)
    record(worklist, patient_id="UNKNOWN")
    record(worklist, study=2, patient_id="P1")
    with pytest.raises(PlaceholderError):
        worklist.receive_message(said(news), NOW)
    record(worklist, study=3, patient_id="UNKNOWN")
    ids = [worklist.study_detail(study_of(worklist, study)).row.patient_id for study in (1, 2, 3)]
    assert ids == ["UNKNOWN", "P1", "UNKNOWN"]
    assert name_of(worklist) == "Doe^Jane"


def priors(worklist: Worklist, **changes: str) -> int:
    """How many earlier films tell of a finding: one was made of Jane Doe, then one with ``changes``."""
    for study, values in ((1, JANE), (2, JANE | changes)):
        at = NOW + timedelta(hours=study)
        instance = received(1, study, **{"patient_id": changes.get("patient_id", "P1"), **values})
        (job,) = worklist.record_instance(instance, None, PIPELINE, at).job_ids
        claim(worklist, job, now=at)
        worklist.finish_job(job, "w1", outcome(100 * study, findings=(finding(),)), at + HOUR)
    return len(worklist.study_facts(study_of(worklist, 2)).priors)


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
    worklist = opened(engine)
    for study in (1, 2):
        at = NOW + timedelta(hours=study)
        (job,) = worklist.record_instance(received(1, study, patient_id="P1", **nobody), None, PIPELINE, at).job_ids
        claim(worklist, job, now=at)
        worklist.finish_job(job, "w1", outcome(100 * study, findings=(finding(),)), at + HOUR)
    assert worklist.study_facts(study_of(worklist, 2)).priors == ()
