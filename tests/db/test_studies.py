"""Triage, completing, holding, and reading of studies."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, Select, insert, select, text

from db import deliveries, holds, jobs, studies
from db.database import Database
from db.engine import writing
from db.errors import AmbiguousStudyError, RecordNotFoundError
from db.queries import study_details
from db.queries.worklist import Filters, Order, Worklist, WorklistPart, counts_statement, page_statement
from db.records import NotEligible, Outcome, TriageDecision
from db.states import Analysis, Priority, StudyState
from db.tables import Study
from tests.commands import record_instance, record_triage, study_facts
from tests.db.examples import (
    HOUR,
    LATERAL,
    MINUTE,
    NOW,
    PIPELINE,
    SECOND,
    TO_PACS,
    claim,
    finding,
    finished,
    outcome,
    received,
    record,
    result,
    study_of,
)

CRITICAL = TriageDecision(Priority.CRITICAL, NOW + 15 * MINUTE, Analysis.ANALYSED, "pneumothorax 90 %")


def test_facts_count_what_triage_needs(database: Database) -> None:
    finished(database)
    failed, _ = record(database, 2), record(database, 3)
    claim(database, failed)
    database.write(jobs.fail, failed, "w1", "crash", NOW)
    record_instance(database, received(4, stat=True), LATERAL, PIPELINE, NOW + MINUTE)
    facts = study_facts(database, study_of(database))
    assert (facts.jobs_waiting, facts.jobs_done, facts.jobs_failed) == (1, 1, 1)
    assert (facts.images_not_eligible, facts.images_not_analysed, facts.stat) == (1, 0, True)
    assert (facts.findings, facts.first_received_at) == ((finding(),), NOW)
    assert facts.hospital_priority is None
    with pytest.raises(RecordNotFoundError):
        study_facts(database, 4711)


def test_a_list_reads_of_the_findings_what_it_shows(database: Database) -> None:
    """A study that only models in shadow have analysed must not look like a negative, as one without findings does."""
    absent, shadow = finding("effusion", present=False), finding("mass", shadow=True)
    for study, found in enumerate(((finding(), absent, shadow), (absent, shadow), (shadow,), ()), start=1):
        job_id = record(database, 1, study)
        claim(database, job_id)
        database.write(jobs.finish, job_id, "w1", outcome(1000 * study, findings=found), NOW)
    worklist = Worklist(database.engine)
    listed = {row.study_instance_uid[-1]: row for row in worklist.page(as_listed=True)}
    assert {uid: row.findings for uid, row in listed.items()} == {"1": (finding(),), "2": (), "3": (shadow,), "4": ()}
    rows = worklist.page()
    assert [row.findings for row in rows] == [(finding(), absent, shadow), (absent, shadow), (shadow,), ()]
    assert [replace(row, findings=()) for row in rows] == [
        replace(row, findings=()) for row in worklist.page(as_listed=True)
    ]
    assert (listed["1"].jobs, listed["1"].deliveries, listed["1"].modalities) == (
        {"done": 1},
        {"pending": 2},
        ("DX",),
    )


def test_what_a_row_counts_is_of_its_own_study(database: Database) -> None:
    finished(database)
    record(database, 2, modality="CR", series_instance_uid="1.2.826.0.3.9")
    record(database, 3, modality="CR", series_instance_uid="1.2.826.0.3.10")
    record(database, 1, study=2, modality="")
    (first, second) = Worklist(database.engine).page(order=Order.STUDY)
    assert (first.jobs, first.deliveries) == ({"done": 1, "queued": 2}, {"pending": 2})
    assert first.modalities == ("CR", "DX")
    assert (second.jobs, second.deliveries, second.modalities) == ({"queued": 1}, {}, ("",))
    first.jobs["done"] = 7
    assert Worklist(database.engine).rows([first.study_id])[0].jobs["done"] == 1, "rows do not share what is counted"


def test_why_images_were_not_analysed_is_told_where_it_matters(database: Database) -> None:
    """What was tried comes first; beside an image that was analysed, why another was not eligible explains nothing."""
    record_instance(database, received(1), LATERAL, PIPELINE, NOW)
    study_id = study_of(database)
    assert study_facts(database, study_id).not_eligible_reasons == (LATERAL,)
    job_id = record(database, 2)
    claim(database, job_id)
    corrupt = NotEligible("corrupt", "The pixel data is damaged.")
    database.write(jobs.finish, job_id, "w1", Outcome(not_analysed=corrupt), NOW)
    assert study_facts(database, study_id).not_eligible_reasons == (corrupt, LATERAL)


def test_refusals_beside_an_analysed_image_are_not_looked_up(database: Database) -> None:
    finished(database)
    record_instance(database, received(2), LATERAL, PIPELINE, NOW)
    assert study_facts(database, study_of(database)).not_eligible_reasons == ()


def test_triage_is_written_once(database: Database) -> None:
    record(database)
    study_id = study_of(database)
    record_triage(database, study_id, CRITICAL, NOW)
    before = database.read(study_details.study_detail, study_id)
    record_triage(database, study_id, CRITICAL, NOW + HOUR)
    assert database.read(study_details.study_detail, study_id) == before
    assert (before.row.priority, before.row.due_at, before.row.reason) == (
        Priority.CRITICAL,
        NOW + 15 * MINUTE,
        "pneumothorax 90 %",
    )
    last = before.events[-1]
    assert (last.from_state, last.to_state, last.actor) == ("routine, waiting", "critical, analysed", "triage")


def test_a_decision_that_stands_is_among_the_facts(database: Database) -> None:
    record(database)
    study_id = study_of(database)
    record_triage(database, study_id, CRITICAL, NOW)
    assert study_facts(database, study_id).decision == CRITICAL


def test_of_stable_studies_urgent_ones_come_first(database: Database) -> None:
    for number, at in ((1, NOW), (2, NOW + 2 * SECOND), (3, NOW + SECOND)):
        job_id = record(database, number, number)
        claim(database, job_id)
        database.write(jobs.finish, job_id, "w1", outcome(100 * number), at)
    record_triage(database, study_of(database, 2), CRITICAL, NOW)
    one, urgent, other = (study_of(database, number) for number in (1, 2, 3))
    assert database.read(studies.stable, NOW + HOUR, MINUTE) == (urgent, one, other)


def test_a_study_is_stable_when_nothing_waits_and_nothing_happens(database: Database) -> None:
    job_id = record(database)
    study_id = study_of(database)
    assert database.read(studies.stable, NOW + HOUR, MINUTE) == ()
    claim(database, job_id)
    database.write(jobs.finish, job_id, "w1", outcome(), NOW + SECOND)
    assert database.read(studies.stable, NOW + MINUTE, MINUTE) == ()
    assert database.read(studies.stable, NOW + MINUTE + SECOND, MINUTE) == (study_id,)
    database.write(holds.hold, study_id, "merged", "admin", NOW)
    assert database.read(studies.stable, NOW + HOUR, MINUTE) == ()


def test_completing_sends_the_summary_and_a_later_one_replaces_it(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    summary = (result("summary", 1),)
    (first,) = database.write(studies.complete, study_id, summary, TO_PACS, NOW) or ()
    assert Worklist(database.engine).page()[0].state is StudyState.COMPLETE
    assert database.write(studies.complete, study_id, summary, TO_PACS, NOW) is None
    finished(database, 2)
    assert study_facts(database, study_id).revision == 1
    (second,) = database.write(studies.complete, study_id, (result("summary", 2),), TO_PACS, NOW) or ()
    detail = database.read(study_details.study_detail, study_id)
    assert detail.revision == 2
    states = {one.id: one.state.value for one in detail.deliveries if one.kind == "summary"}
    assert states == {first: "withdrawn", second: "pending"}
    group = database.write(deliveries.claim_group, "pacs", None, study_id, "d1", NOW, MINUTE)
    assert [(one.id, one.job_id, one.patient_id) for one in group] == [(second, None, "P1")]


def test_a_study_in_which_something_has_happened_is_not_complete(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    seen = study_facts(database, study_id).activity
    record_instance(database, received(2), LATERAL, PIPELINE, NOW)
    assert database.write(studies.complete, study_id, (), {}, NOW, seen) is None
    record_instance(database, received(3), LATERAL, PIPELINE, NOW + MINUTE)
    assert database.write(studies.complete, study_id, (), {}, NOW) is None
    record(database, 4)
    assert (
        database.write(studies.complete, study_id, (), {}, NOW + HOUR, study_facts(database, study_id).activity) is None
    )
    assert Worklist(database.engine).page()[0].state is StudyState.OPEN


def test_holding_and_releasing_leave_their_trace_once(database: Database) -> None:
    job_id = record(database)
    study_id = study_of(database)
    database.write(holds.hold, study_id, "merged", "admin", NOW)
    database.write(holds.hold, study_id, "again", "admin", NOW)
    assert (Worklist(database.engine).page()[0].on_hold, Worklist(database.engine).page()[0].hold_reason) == (
        True,
        "merged",
    )
    assert record_held(database)
    assert len(database.write(holds.release, study_id, "admin", NOW)) == 2
    assert database.write(holds.release, study_id, "admin", NOW) == ()
    assert database.read(jobs.to_enqueue, NOW, HOUR)[0] == (job_id, False)
    changes = [
        one.to_state for one in database.read(study_details.study_detail, study_id).events if one.entity == "study"
    ]
    assert changes == ["open", "on_hold", "released"]
    with pytest.raises(RecordNotFoundError):
        database.write(holds.hold, 4711, "nobody", "admin", NOW)


def record_held(database: Database) -> bool:
    """What arrives in a study on hold is held."""
    return record_instance(database, received(2), None, PIPELINE, NOW).job_ids == ()


def test_the_worklist_comes_in_the_order_in_which_studies_are_due(database: Database) -> None:
    for study, minutes in ((1, 30), (2, 10), (3, 20), (4, 10)):
        record(database, study=study)
        decision = TriageDecision(Priority.ROUTINE, NOW + minutes * MINUTE, Analysis.ANALYSED, "")
        record_triage(database, study_of(database, study), decision, NOW)
    assert [row.patient_id for row in Worklist(database.engine).page()] == ["P2", "P4", "P3", "P1"]
    assert [row.patient_id for row in Worklist(database.engine).page(limit=2, offset=1)] == ["P4", "P3"]


def test_complete_studies_may_be_left_out(database: Database) -> None:
    finished(database, study=1)
    record(database, study=2)
    database.write(studies.complete, study_of(database, 1), (), {}, NOW)
    assert [row.patient_id for row in Worklist(database.engine).page(only_open=True)] == ["P2"]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("doe^jane", ["P1", "P2"]),
        ("jane p2", ["P2"]),
        ("p2", ["P2"]),
        ("A-1", ["P1"]),
        ("%", []),
        ("_", []),
        ("\\", []),
        (received(study=2).study_instance_uid, ["P2"]),
        (received(study=2).study_instance_uid[:-1], []),
    ],
)
def test_searching(database: Database, search: str, found: list[str]) -> None:
    for study in (1, 2):
        record(database, study=study)
    assert [row.patient_id for row in Worklist(database.engine).page(filters=Filters(search=search))] == found


def test_finding_a_study(database: Database) -> None:
    record(database, study=1)
    record(database, study=2, accession_number="777")
    second = study_of(database, 2)
    assert database.read(study_details.find_study, f" #{second} ") == second
    assert database.read(study_details.find_study, "777") == second
    assert database.read(study_details.find_study, received(study=2).sop_instance_uid) == second
    for unknown in ("", " ", "9" * 30, "²", "nothing", "0", "#", "#0", "#9999999999", "#²"):
        assert database.read(study_details.find_study, unknown) is None


def test_a_bare_number_is_an_accession_number_and_no_row(database: Database) -> None:
    for study in (1, 2, 3):
        record(database, study=study, accession_number="3" if study == 1 else f"A-{study}")
    third = study_of(database, 3)
    assert database.read(study_details.find_study, "3") == study_of(database, 1)
    assert database.read(study_details.find_study, str(study_of(database, 2))) is None, (
        "the study that is meant may not be here yet"
    )
    assert database.read(study_details.find_study, f"#{third}") == third


def test_a_name_that_fits_two_studies_is_refused(database: Database) -> None:
    for study in (1, 2):
        record(database, study=study, accession_number="A-1")
    record(database, study=3, accession_number=f"#{study_of(database, 1)}")
    with pytest.raises(AmbiguousStudyError) as caught:
        database.read(study_details.find_study, "A-1")
    assert caught.value.study_ids == (study_of(database, 1), study_of(database, 2))
    with pytest.raises(AmbiguousStudyError):
        database.read(study_details.find_study, f"#{study_of(database, 1)}")


def test_the_view_says_what_the_worklist_says(database: Database, engine: Engine) -> None:
    finished(database, study=1)
    record(database, study=2, stat=True)
    database.write(holds.hold, study_of(database, 2), "merged", "admin", NOW)
    with engine.connect() as connection:
        view = connection.execute(text("SELECT * FROM worklist ORDER BY due_at, study_id")).all()
    rows = Worklist(database.engine).page()
    assert len(view) == len(rows) == 2
    for seen, row in zip(view, rows, strict=True):
        for name in ("study_id", "patient_id", "state", "priority", "analysis", "images", "not_eligible"):
            assert getattr(seen, name) == getattr(row, name)
        assert seen.reason == (row.hold_reason or row.reason)
        assert (seen.deliveries_open, seen.deliveries_failed) == (row.deliveries_open, row.deliveries_failed)
        assert seen.findings_present == len(row.present)
        assert bool(seen.on_hold) is row.on_hold


def test_times_are_read_back_aware_and_equal(database: Database) -> None:
    from datetime import timezone

    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7))) + timedelta(microseconds=1)
    record_instance(database, received(), None, PIPELINE, elsewhere)
    at = Worklist(database.engine).page()[0].received_at
    assert at == elsewhere
    assert at.utcoffset() == timedelta(0)


def _plan(engine: Engine, statement: Select[Any]) -> str:
    """The plan before the values are known, as a prepared statement has it."""
    postgresql = engine.dialect.name == "postgresql"
    sql = str(statement.compile(engine, compile_kwargs={"literal_binds": postgresql}))
    with engine.connect() as connection:
        if not postgresql:
            values = tuple(statement.compile(engine).params.values())
            return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values))
        return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"EXPLAIN {sql}"))


@pytest.mark.parametrize("include_complete", [True, False])
def test_old_reported_studies_do_not_slow_the_worklist_down(
    database: Database, engine: Engine, include_complete: bool
) -> None:
    """The database must walk the unreported studies only: the oldest million was reported long ago."""
    record(database)
    with writing(engine).begin() as connection:
        template = dict(connection.execute(select(Study.__table__)).one()._mapping)
        complete = {"state": StudyState.COMPLETE, "reported_at": NOW}
        rows = [
            {
                **template,
                **(complete if number < 5000 else {}),
                "id": number,
                "study_instance_uid": f"1.9.{number}",
                "due_at": NOW + number * SECOND,
            }
            for number in range(2, 5200)
        ]
        needs_a_person = {WorklistPart.NOT_ANALYSED: 5190, WorklistPart.FAILED: 5191, WorklistPart.ON_HOLD: 5192}
        rows[5190 - 2]["analysis"], rows[5191 - 2]["analysis"] = Analysis.NOT_ANALYSED, Analysis.FAILED
        rows[5192 - 2]["on_hold"] = True
        connection.execute(insert(Study), rows)
        connection.execute(text("ANALYZE"))
    plan = _plan(engine, page_statement(WorklistPart.UNREPORTED, Order.DUE, False, not include_complete))
    for part, number in needs_a_person.items():
        index = "ix_studies_on_hold_due_at_id" if part is WorklistPart.ON_HOLD else "ix_studies_not_analysed_due_at_id"
        assert index in _plan(engine, page_statement(part, Order.DUE, False, False)), part
        assert [row.study_id for row in Worklist(engine).page(show=part)] == [number]
    if engine.dialect.name == "sqlite":  # PostgreSQL has none of its index-only scans of a table that was not vacuumed
        counted = _plan(engine, counts_statement())
        assert "COVERING INDEX ix_studies_unreported_counted" in counted
        assert "TEMP B-TREE" not in counted
    assert Worklist(engine).counts() == {
        **dict.fromkeys(set(WorklistPart) - {WorklistPart.ALL}, 0),
        WorklistPart.UNREPORTED: 201,
        WorklistPart.ROUTINE: 201,
        WorklistPart.NOT_ANALYSED: 1,
        WorklistPart.FAILED: 1,
        WorklistPart.ON_HOLD: 1,
    }
    assert "ix_studies_unreported_due_at_id" in plan or (not include_complete and "ix_studies_state_due_at_id" in plan)
    assert {row.study_id for row in Worklist(database.engine).page(only_open=not include_complete)} == set(
        range(5000, 5050)
    )
