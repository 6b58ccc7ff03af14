"""What recording an instance does to its study and its jobs."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError, StatementError

from db import holds, instances, jobs, studies
from db.database import Database
from db.instance_statements import INSERT_STUDY, LOCK_STUDY, inserted_study
from db.patients import PatientIdentifier, PatientRules, PatientUpdate, correct_patient
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import NotEligible
from db.states import Analysis, InstanceState, JobState, Priority, StudyState
from tests.commands import record_instance, study_facts
from tests.db.examples import (
    HOUR,
    LATERAL,
    MINUTE,
    NOW,
    PIPELINE,
    claim,
    finished,
    outcome,
    received,
    record,
    result,
    study_of,
)


def test_an_eligible_instance_is_queued_and_its_study_is_in_the_worklist_at_once(database: Database) -> None:
    ingest = record_instance(database, received(), None, PIPELINE, NOW)
    assert len(ingest.job_ids) == 1
    assert not ingest.repeat
    assert not ingest.conflict
    (row,) = Worklist(database.engine).page()
    assert (row.priority, row.analysis, row.state) == (Priority.ROUTINE, Analysis.WAITING, StudyState.OPEN)
    assert (row.images, row.not_eligible, row.on_hold, row.received_at) == (1, 0, False, NOW)
    assert row.due_at > NOW
    assert [one.to_state for one in database.read(study_details.study_detail, row.study_id).events] == [
        "open",
        "eligible",
        "queued",
    ]


def test_a_refused_instance_is_kept_with_its_reason_and_gets_no_job(database: Database) -> None:
    ingest = record_instance(database, received(), LATERAL, PIPELINE, NOW)
    assert ingest.job_ids == ()
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.instances[0].state is InstanceState.NOT_ELIGIBLE
    assert detail.instances[0].not_eligible == LATERAL
    assert (detail.row.analysis, detail.row.not_eligible, detail.jobs) == (Analysis.NOT_ANALYSED, 1, ())
    record_instance(database, received(2), None, PIPELINE, NOW)
    assert Worklist(database.engine).page()[0].analysis is Analysis.WAITING


def test_a_stat_study_is_urgent_and_due_earlier(database: Database) -> None:
    record(database, study=1)
    record(database, study=2, stat=True)
    assert [(row.stat, row.priority) for row in Worklist(database.engine).page()] == [
        (True, Priority.URGENT),
        (False, Priority.ROUTINE),
    ]
    record_instance(database, received(2, study=1, stat=True), None, PIPELINE, NOW)
    assert database.read(study_details.study_detail, study_of(database, 1)).row.priority is Priority.URGENT


def test_a_repeat_changes_nothing_and_gives_the_open_jobs(database: Database) -> None:
    first = record_instance(database, received(), None, PIPELINE, NOW)
    before = database.read(study_details.study_detail, study_of(database))
    again = record_instance(database, received(), None, PIPELINE, NOW + MINUTE)
    assert (again.instance_id, again.job_ids, again.repeat) == (first.instance_id, first.job_ids, True)
    assert database.read(study_details.study_detail, study_of(database)) == before
    claim(database, first.job_ids[0])
    database.write(jobs.finish, first.job_ids[0], "w1", outcome(), NOW)
    assert record_instance(database, received(), None, PIPELINE, NOW).job_ids == ()


@pytest.mark.parametrize(
    "changes",
    [{"patient_id": "P2"}, {"series_instance_uid": "1.2.826.0.3.9"}, {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}],
    ids=["patient", "series", "class"],
)
def test_a_uid_that_comes_again_for_something_else_is_kept_apart_and_holds_the_study(
    database: Database, changes: dict[str, Any]
) -> None:
    job_id = record(database)
    ingest = record_instance(database, received(digest="e" * 64, path="other", **changes), None, PIPELINE, NOW)
    assert ingest.conflict
    assert ingest.job_ids == ()
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.row.on_hold
    assert "other content" in detail.row.hold_reason
    assert [one.flag for one in detail.instances] == ["", "conflict"]
    assert {job.state for job in detail.jobs} == {JobState.ON_HOLD}
    assert database.write(jobs.claim, job_id, "w1", NOW, MINUTE) is None
    assert database.read(jobs.to_enqueue, NOW + HOUR, MINUTE) == ()
    newest = detail.jobs[1].id
    assert database.write(holds.release, detail.row.study_id, "admin", NOW) == (newest,), "from then on it counts alone"
    assert database.write(jobs.claim, job_id, "w1", NOW, MINUTE) is None
    assert database.write(jobs.claim, newest, "w1", NOW, MINUTE) is not None


def test_a_uid_that_comes_again_in_another_study_holds_both(database: Database) -> None:
    record(database, study=1)
    uid = received(study=1).sop_instance_uid
    assert record_instance(database, received(study=2, sop_instance_uid=uid), None, PIPELINE, NOW).conflict
    assert [row.on_hold for row in Worklist(database.engine).page()] == [True, True]


@pytest.mark.parametrize(
    "changes", [{"patient_id": "SOMEBODY-ELSE"}, {"issuer_of_patient_id": "B"}], ids=["patient", "issuer"]
)
def test_another_patient_in_the_same_study_holds_it(database: Database, changes: dict[str, Any]) -> None:
    record(database, issuer_of_patient_id="A")
    same: dict[str, Any] = {"issuer_of_patient_id": "A"} | changes
    ingest = record_instance(database, received(2, **same), None, PIPELINE, NOW)
    assert not ingest.conflict
    assert ingest.job_ids == ()
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.row.on_hold
    assert "different patients" in detail.row.hold_reason
    assert detail.row.patient_id == "P1"
    assert detail.instances[1].flag == "patient"


ANNA: dict[str, Any] = {"patient_name": "Müller^Anna^B", "patient_birth_date": "19600101"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"patient_name": "Berg^Bert"}, "(name)"), ({"patient_birth_date": "19600102"}, "(birth date)")],
    ids=["name", "birth date"],
)
def test_another_person_under_the_same_patient_id_holds_the_study(
    database: Database, changes: dict[str, Any], why: str
) -> None:
    record(database, **ANNA)
    assert record_instance(database, received(2, **(ANNA | changes)), None, PIPELINE, NOW).job_ids == ()
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.row.on_hold
    assert detail.row.hold_reason.endswith(why)
    assert detail.instances[1].flag == "patient"


@pytest.mark.parametrize(
    "changes",
    [
        {"patient_name": "MULLER^ANNA"},
        {"patient_name": "Anna Müller"},
        {"patient_name": "M\ufffdller^Anna"},
        {"patient_name": ""},
        {"patient_birth_date": ""},
        {"patient_birth_date": "1960"},
        {"patient_name": "Müller^An\0na"},
        {"patient_sex": "O"},
    ],
)
def test_a_name_written_otherwise_holds_nothing(database: Database, changes: dict[str, Any]) -> None:
    record(database, **ANNA)
    assert record_instance(database, received(2, **(ANNA | changes)), None, PIPELINE, NOW).job_ids
    assert not Worklist(database.engine).page()[0].on_hold


def test_the_name_in_an_object_that_is_no_radiograph_holds_nothing(database: Database) -> None:
    record(database)
    record_instance(
        database, received(2, patient_name="Roe^Jane"), NotEligible("not-an-image", "A report."), PIPELINE, NOW
    )
    assert not Worklist(database.engine).page()[0].on_hold


def test_an_image_with_the_name_from_before_a_correction_holds_nothing(database: Database) -> None:
    record(database)
    study_id = study_of(database)
    news = PatientUpdate((PatientIdentifier("P1"),), name="Roe^Jane")
    assert database.write(correct_patient, news, PatientRules(), "hl7", NOW) == (study_id,)
    database.write(holds.release, study_id, "admin", NOW)
    assert record_instance(database, received(2), None, PIPELINE, NOW).job_ids


def test_a_study_has_each_modality_of_its_series_once(database: Database) -> None:
    shown = []
    for number, modality in enumerate(("DX", "DX", "SR", "", "CR", "SR"), start=1):
        record(database, number, modality=modality, series_instance_uid=f"1.2.826.0.3.{number}")
        (row,) = Worklist(database.engine).page()
        shown.append(" ".join(row.modalities))
    assert shown == ["DX", "DX", "DX SR", "DX SR", "CR DX SR", "CR DX SR"]


def test_a_missing_patient_id_contradicts_nothing_and_is_filled_in(database: Database) -> None:
    record(database, patient_id="")
    record(database, 2, patient_id="P1 ")
    record(database, 3, patient_id="P1")
    (row,) = Worklist(database.engine).page()
    assert (row.on_hold, row.patient_id) == (False, "P1 ")


def test_a_late_image_reopens_a_complete_study_and_a_refused_one_does_not(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    assert database.write(studies.complete, study_id, (), {}, NOW) == ()
    record_instance(database, received(2), LATERAL, PIPELINE, NOW)
    assert Worklist(database.engine).page()[0].state is StudyState.COMPLETE
    record(database, 3)
    assert Worklist(database.engine).page()[0].state is StudyState.OPEN


def test_our_own_result_that_comes_back_touches_nothing(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    before = study_facts(database, study_id)
    own = result("seg", 1010).sop_instance_uid
    assert database.read(instances.is_own_result, own)
    assert not database.read(instances.is_own_result, "1.2.3")
    record_instance(database, received(9, sop_instance_uid=own), LATERAL, PIPELINE, NOW + HOUR)
    assert study_facts(database, study_id) == before
    detail = database.read(study_details.study_detail, study_id)
    assert (detail.row.images, detail.row.not_eligible, detail.row.on_hold) == (1, 0, False)
    assert detail.instances[1].flag == "own"


def test_text_that_a_database_cannot_hold_is_cleaned(database: Database) -> None:
    record(database, patient_name="Do\0e^J\udcffane", accession_number="9" * 5000)
    (row,) = Worklist(database.engine).page()
    assert row.patient_name == "Doe^J?ane"
    assert row.accession_number == "9" * 256


def test_names_in_other_scripts_survive(database: Database) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    record(database, patient_name=name)
    assert Worklist(database.engine).page()[0].patient_name == name


def test_what_fails_midway_leaves_nothing(database: Database, engine: Engine) -> None:
    no_pipeline: Any = None
    with pytest.raises(IntegrityError):
        record_instance(database, received(), None, no_pipeline, NOW)
    with engine.connect() as connection:
        for table in ("studies", "series", "instances", "jobs", "events"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_an_error_of_the_database_does_not_show_the_patient(database: Database) -> None:
    no_pipeline: Any = None
    with pytest.raises(IntegrityError) as caught:
        record_instance(database, received(patient_name="Secret^Name", view="Secret"), None, no_pipeline, NOW)
    assert "Secret" not in str(caught.value)


def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="aware"):
        record_instance(database, received(), None, PIPELINE, NOW.replace(tzinfo=None))


def test_a_new_study_is_known_as_it_would_be_read(database: Database) -> None:
    def insert(connection: Connection) -> tuple[object, object]:
        values = instances._study_values(received(patient_name="Müller^Jörg"), LATERAL, NOW, counted=True)
        study_id = INSERT_STUDY.insert(connection, values)
        assert not INSERT_STUDY.insert(connection, values)
        read = LOCK_STUDY.first(connection, {"study_instance_uid": values["study_instance_uid"]})
        return vars(inserted_study(study_id, values)), read._asdict()

    made, read = database.write(insert)
    assert made == read


def test_our_own_result_in_a_study_of_its_own_is_not_counted(database: Database) -> None:
    finished(database)
    own = result("seg", 1010).sop_instance_uid
    record_instance(database, received(9, study=5, sop_instance_uid=own), LATERAL, PIPELINE, NOW + HOUR)
    row = database.read(study_details.study_detail, study_of(database, 5)).row
    assert (row.images, row.not_eligible) == (0, 0)
