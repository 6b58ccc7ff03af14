"""Erasing a study: no table names it any more, nothing that is under way is cut off, and the audit trail says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select, text, update

from db import (
    audit_tables,
    deliveries,
    erasures,
    feedback,
    holds,
    jobs,
)
from db.audit import AuditEntry, AuditFilter, AuditTrail, write_entry
from db.audit_events import AuditEvent
from db.database import Database
from db.erasures import Waiting
from db.errors import RecordNotFoundError
from db.order_tables import MergeRow, OrderRow
from db.patients import PatientIdentifier, PatientRules
from db.queries.erasure import erasure_plan
from db.states import JobState
from db.tables import Base, Job, Study
from db.user_tables import Verdict
from tests.commands import record_instance
from tests.db.examples import (
    HOUR,
    MINUTE,
    NOW,
    PIPELINE,
    SECOND,
    claim,
    deliveries_of,
    finished,
    outcome,
    received,
    record,
    study_of,
)

WORDS = ("quxelbrandt", "kzq-7741903", "acc-99817", "1.2.826.0.1.77.", "1.2.826.0.2.77", "1.2.826.0.3.77", "2.25.77")
"""What names the patient, the study and its objects; our own results are among the last."""


def _every_value(engine: Engine) -> Iterator[tuple[str, str]]:
    """Every row of every table, as text."""
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            for row in connection.execute(text(f"SELECT * FROM {table.name}")):
                yield table.name, " ".join(str(value) for value in row).lower()


def _tables_that_name_it(engine: Engine) -> set[str]:
    return {table for table, values in _every_value(engine) if any(word in values for word in WORDS)}


def _patient(number: int = 1, study: int = 77, **changes: Any) -> Any:
    return received(
        number,
        study,
        patient_name="Quxelbrandt^Zoë",
        patient_id="KZQ-7741903",
        accession_number="ACC-99817\\ACC-99818",
        station_name="KZQ-7741903",
        **changes,
    )


def _everything(database: Database) -> int:
    """A study of which every table has something; its row."""
    _order(database)
    (job_id,) = record_instance(database, _patient(), None, PIPELINE, NOW).job_ids
    (second,) = record_instance(database, _patient(2), None, PIPELINE, NOW).job_ids
    claim(database, job_id)
    database.write(jobs.finish, job_id, "w1", outcome(7700), NOW)
    study_id = study_of(database, 77)
    first, _ = deliveries_of(database, job_id)
    database.write(deliveries.claim, first, "d1", NOW, MINUTE)
    database.write(deliveries.sent, first, "d1", NOW)
    finding = database.read(feedback.findings, study_id)[0]
    database.write(feedback.give, finding.id, Verdict.REJECT, NOW, actor="ann", comment="not Quxelbrandt", source="web")
    database.write(_rest, study_id, second)
    return study_id


def _order(database: Database) -> None:
    values = dict.fromkeys(("placer_order_number", "filler_order_number", "issuer_of_patient_id"), "")
    values |= {"accession_number": "ACC-99817", "study_instance_uid": "1.2.826.0.2.77", "patient_id": "KZQ-7741903"}
    row = {**values, "status": "ordered", "created_at": NOW, "updated_at": NOW}
    database.write(lambda connection: connection.execute(insert(OrderRow).values(**row)))


def _rest(connection: Any, study_id: int, job_id: int) -> None:
    """What other parts of the node have written of the study."""
    tables = Base.metadata.tables
    uid = "1.2.826.0.2.77"
    rows: dict[str, dict[str, Any]] = {
        "rejections": {
            "sop_instance_uid": "1.2.826.0.1.77.2",
            "note_uid": "1.2.9",
            "code": "113037",
            "sentence": "wrong",
            "at": NOW,
        },
        "backfilled_studies": {"study_instance_uid": uid, "requested_at": NOW, "pull_ends_at": NOW},
        "prior_searches": {"study_id": study_id, "started_at": NOW, "prior_study_instance_uid": "1.2.826.0.2.5"},
        "notifications": {
            "study_id": study_id,
            "channel": "email",
            "reason": "pneumothorax",
            "state": "sent",
            "key": "k",
            "attempts": 1,
            "created_at": NOW,
            "sent_at": NOW,
        },
        "assessments": {
            "study_id": study_id,
            "sop_instance_uid": "1.2.826.0.1.77.9",
            "ordinal": 1,
            "referenced_uid": "2.25.7700",
            "tracking_uid": "",
            "verdict": "accept",
            "comment": "Quxelbrandt",
            "observer": "Dr",
            "problem": "",
            "at": NOW,
        },
    }
    for name, values in rows.items():
        connection.execute(insert(tables[name]).values(**values))
    entry = AuditEntry(NOW, "RESEARCH", "send", "of own results", study_id, detail="C-GET of RESEARCH: 2")
    write_entry(connection, entry)


def _erase(database: Database, study_id: int, now: Any = NOW) -> Waiting | None:
    database.write(erasures.request, study_id, "cli:ann", "", "case 88", now)
    return database.write(erasures.erase, study_id, now)


def test_no_table_names_an_erased_study_but_the_audit_trail(database: Database) -> None:
    study_id = _everything(database)
    finished(database, 1, 2)
    others = [values for table, values in _every_value(database.engine) if table != "audit"]
    held_before = _tables_that_name_it(database.engine)
    assert {
        "studies",
        "study_words",
        "study_accessions",
        "orders",
        "results",
        "rejections",
        "assessments",
    } <= held_before
    assert _erase(database, study_id) is None
    database.write(erasures.forget_files, [f.path for f in database.read(erasures.files_to_remove)])
    assert _tables_that_name_it(database.engine) == {"audit"}
    audited = [values for table, values in _every_value(database.engine) if table == "audit"]
    assert not any("quxelbrandt" in values for values in audited)
    # The study beside it has lost nothing.
    left = {values for table, values in _every_value(database.engine)}
    assert {values for values in others if "1.2.826.0.2.2 " in values} <= left
    assert study_of(database, 2) == 2


def test_the_audit_trail_says_who_erased_what_and_what_others_hold(database: Database) -> None:
    study_id = _everything(database)
    _erase(database, study_id)
    (entry,) = AuditTrail(database.engine).entries(AuditFilter(action="erase study"))
    assert (entry.actor, entry.study_instance_uid, entry.patient_id) == ("cli:ann", "1.2.826.0.2.77", "KZQ-7741903")
    assert entry.meaning.event is AuditEvent.STUDY_DELETED
    assert entry.detail == "2 images, 2 results: case 88"
    assert database.read(erasures.left_at, study_id) == {"pacs": ["2.25.7700"]}
    assert AuditTrail(database.engine).verify().problem == ""


def test_the_preview_names_what_goes_and_what_stays(database: Database) -> None:
    study_id = _everything(database)
    plan = database.read(erasure_plan, study_id, NOW)
    assert (plan.images, plan.results, plan.jobs, plan.findings, plan.orders) == (2, 2, 2, 1, 1)
    assert plan.byte_count == 2003 + 20
    assert (plan.unsent, plan.untold, plan.waits, plan.requested) == (1, 0, None, False)
    assert [(one.destination, one.sop_instance_uid, one.sent_at) for one in plan.held] == [("pacs", "2.25.7700", NOW)]
    told, retrieved = plan.taken
    assert (told.who, told.what) == ("email", "notification: pneumothorax")
    assert (retrieved.who, retrieved.what) == ("RESEARCH", "send: C-GET of RESEARCH: 2")
    with pytest.raises(RecordNotFoundError):
        database.read(erasure_plan, 99, NOW)


def test_every_table_that_may_name_a_study_is_looked_after() -> None:
    """A new table that refers to a study by its row goes by itself; one with UIDs or patient IDs must be seen to."""
    by_row = {table.name for table in erasures._tables_of_a_study()}
    by_uid = {"rejections", "backfilled_studies", "patient_merges", "studies", "erased_files"}
    assert audit_tables.AuditRow.__tablename__ not in by_row
    named = ("study_id", "patient_id", "_uid", "accession", "patient_name")
    may = {table.name for table in Base.metadata.sorted_tables for column in table.c if column.name.endswith(named)}
    assert may - by_row - by_uid == {"audit"}


def test_what_is_under_way_ends_first(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    waiting = _erase(database, 1)
    assert waiting == Waiting("an image is being analysed", NOW + MINUTE)
    # Nothing of it begins any more: its delivery is on hold when it is written.
    database.write(jobs.finish, job_id, "w1", outcome(), NOW)
    assert database.write(deliveries.claim, deliveries_of(database, job_id)[0], "d", NOW, MINUTE) is None
    assert database.read(lambda connection: connection.scalar(select(Study.hold_reason))) == erasures.HOLD_REASON
    assert database.write(erasures.erase, 1, NOW) is None
    assert database.read(erasures.requested) == ()


def test_a_delivery_that_arrives_while_it_is_waited_for_is_in_the_list(database: Database) -> None:
    _, (first, _) = finished(database)
    database.write(deliveries.claim, first, "d1", NOW, MINUTE)
    assert _erase(database, 1) == Waiting("a result is being sent", NOW + MINUTE)
    database.write(deliveries.sent, first, "d1", NOW + SECOND)
    assert database.write(erasures.erase, 1, NOW + SECOND) is None
    assert list(database.read(erasures.left_at, 1)) == ["pacs"]


def test_a_claim_of_a_dead_worker_is_waited_for_no_longer_than_it_holds(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    assert _erase(database, 1) is not None
    assert database.write(erasures.erase, 1, NOW + MINUTE) is None
    # The one that was cut off learns that there is nothing to record.
    with pytest.raises(RecordNotFoundError):
        database.write(jobs.finish, job_id, "w1", outcome(), NOW + MINUTE)


def test_a_pull_from_the_archive_ends_first(database: Database) -> None:
    record(database)
    values = {"study_instance_uid": "1.2.826.0.2.1", "requested_at": NOW, "pull_ends_at": NOW + HOUR}
    table = Base.metadata.tables["backfilled_studies"]
    database.write(lambda connection: connection.execute(insert(table).values(**values)))
    assert _erase(database, 1) == Waiting("it is being pulled from the archive", NOW + HOUR)
    assert database.write(erasures.erase, 1, NOW + HOUR) is None


def test_a_study_that_is_released_meanwhile_is_held_again_and_erased(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    _erase(database, 1)
    database.write(holds.release, 1, "bob", NOW)
    assert database.write(erasures.erase, 1, NOW) is not None
    assert database.read(lambda connection: connection.scalar(select(Study.on_hold)))
    assert database.write(erasures.erase, 1, NOW + MINUTE) is None


def test_erasing_twice_is_harmless_and_only_what_was_asked_for_goes(database: Database) -> None:
    record(database)
    assert database.write(erasures.erase, 1, NOW) is None
    assert study_of(database) == 1, "nobody had asked"
    database.write(erasures.request, 1, "ann", "", "case 1", NOW)
    database.write(erasures.request, 1, "bob", "", "case 2", NOW + SECOND)
    assert database.read(erasures.requested) == (1,)
    for _ in range(2):
        assert database.write(erasures.erase, 1, NOW) is None
    (entry,) = AuditTrail(database.engine).entries(AuditFilter(action="erase study"))
    assert entry.actor == "ann"
    with pytest.raises(RecordNotFoundError):
        database.write(erasures.request, 1, "ann", "", "case 1", NOW)


def test_numbers_of_erased_rows_are_given_to_nobody_else(database: Database) -> None:
    """The audit trail names studies, and messages in the broker jobs and deliveries, by their numbers."""
    job_id, ids = finished(database)
    _erase(database, 1)
    job_again, ids_again = finished(database)
    assert study_of(database) == 2
    assert job_again > job_id
    assert min(ids_again) > max(ids)


def test_a_study_that_is_sent_again_is_taken_anew_and_no_archive_is_asked_for_it_before(database: Database) -> None:
    record(database)
    _erase(database, 1)
    uids = ("1.2.826.0.2.1", "1.2.826.0.2.2")
    assert database.read(erasures.left_out, uids) == {"1.2.826.0.2.1"}
    job_id = record(database)
    assert (
        database.read(lambda connection: connection.scalar(select(Job.state).where(Job.id == job_id)))
        is JobState.QUEUED
    )
    assert database.read(erasures.left_out, uids) == frozenset()
    assert database.read(erasures.erased_among, uids) == {"1.2.826.0.2.1"}


def test_a_newer_study_no_longer_names_the_prior(database: Database) -> None:
    record(database)
    record(database, 1, 2)
    prior = "1.2.826.0.2.1"
    searches = Base.metadata.tables["prior_searches"]

    def compare(connection: Any) -> None:
        connection.execute(update(Study).where(Study.id == 2).values(compared_with=prior))
        found = {"study_id": 2, "started_at": NOW, "ended_at": NOW, "prior_study_instance_uid": prior}
        connection.execute(insert(searches).values(**found))

    database.write(compare)
    _erase(database, 1)
    names = select(Study.compared_with, searches.c.prior_study_instance_uid, searches.c.problem).join(searches)
    assert database.read(lambda connection: connection.execute(names).one()) == ("", "", erasures.PRIOR_ERASED)


RULES = PatientRules(own_issuers=("HOME",))


def test_a_patient_is_an_id_of_one_issuer(database: Database) -> None:
    record(database, 1, 1, patient_id="7")
    record(database, 1, 2, patient_id="7", issuer_of_patient_id="HOME")
    record(database, 1, 3, patient_id="7", issuer_of_patient_id="ELSEWHERE")
    record(database, 1, 4, patient_id="77")
    assert database.read(erasures.issuers_of, "7", RULES) == ("ELSEWHERE", "HOME")
    assert database.read(erasures.studies_of, PatientIdentifier("7"), RULES) == (1, 2)
    assert database.read(erasures.studies_of, PatientIdentifier("7", "ELSEWHERE"), RULES) == (3,)


def test_orders_without_a_study_and_merged_identifiers_go_with_the_patient(database: Database) -> None:
    _order(database)
    merge = {"prior_patient_id": "OLD", "prior_issuer": "", "patient_id": "KZQ-7741903", "issuer_of_patient_id": ""}
    other = {**merge, "prior_patient_id": "OTHER", "patient_id": "ELSE"}

    def note(connection: Connection) -> None:
        connection.execute(insert(MergeRow).values([{**values, "at": NOW} for values in (merge, other)]))

    database.write(note)
    who = PatientIdentifier("KZQ-7741903")
    found = database.read(erasures.patient_rows, who, RULES)
    assert (len(found.orders), len(found.merges)) == (1, 1)
    entry = erasures.patient_entry(who, found, "ann", "case 88", NOW)
    database.write(erasures.erase_patient_rows, who, RULES, entry)
    assert _tables_that_name_it(database.engine) == {"audit"}
    assert database.read(lambda connection: connection.scalars(select(MergeRow.patient_id)).all()) == ["ELSE"]
    (entry,) = AuditTrail(database.engine).entries(AuditFilter(action="erase patient"))
    assert entry.detail == "1 orders without a study, 1 merged identifiers: case 88"
