"""Triage, completing, holding, and reading of studies."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, insert, select, text

from db.engine import writing
from db.errors import AmbiguousStudyError, RecordNotFoundError
from db.queries.worklist import Order, Show, page_statement
from db.records import Analysis, NotEligible, Outcome, Priority, StudyState, TriageDecision
from db.tables import Study
from db.worklist import Worklist
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


def test_facts_count_what_triage_needs(worklist: Worklist) -> None:
    finished(worklist)
    failed, _ = record(worklist, 2), record(worklist, 3)
    claim(worklist, failed)
    worklist.fail_job(failed, "w1", "crash", NOW)
    worklist.record_instance(received(4, stat=True), LATERAL, PIPELINE, NOW + MINUTE)
    facts = worklist.study_facts(study_of(worklist))
    assert (facts.jobs_waiting, facts.jobs_done, facts.jobs_failed) == (1, 1, 1)
    assert (facts.images_not_eligible, facts.images_not_analysed, facts.stat) == (1, 0, True)
    assert (facts.findings, facts.first_received_at) == ((finding(),), NOW)
    assert facts.hospital_priority is None
    with pytest.raises(RecordNotFoundError):
        worklist.study_facts(4711)


def test_why_images_were_not_analysed_is_told_where_it_matters(worklist: Worklist) -> None:
    """What was tried comes first; beside an image that was analysed a reason for not eligible explains nothing."""
    worklist.record_instance(received(1), LATERAL, PIPELINE, NOW)
    study_id = study_of(worklist)
    assert worklist.study_facts(study_id).not_eligible_counts == (LATERAL,)
    job_id = record(worklist, 2)
    claim(worklist, job_id)
    corrupt = NotEligible("corrupt", "The pixel data is damaged.")
    worklist.finish_job(job_id, "w1", Outcome(not_analysed=corrupt), NOW)
    assert worklist.study_facts(study_id).not_eligible_counts == (corrupt, LATERAL)


def test_refusals_beside_an_analysed_image_are_not_looked_up(worklist: Worklist) -> None:
    finished(worklist)
    worklist.record_instance(received(2), LATERAL, PIPELINE, NOW)
    assert worklist.study_facts(study_of(worklist)).not_eligible_counts == ()


def test_triage_is_written_once(worklist: Worklist) -> None:
    record(worklist)
    study_id = study_of(worklist)
    worklist.record_triage(study_id, CRITICAL, NOW)
    before = worklist.study_detail(study_id)
    worklist.record_triage(study_id, CRITICAL, NOW + HOUR)
    assert worklist.study_detail(study_id) == before
    assert (before.row.priority, before.row.due_at, before.row.reason) == (
        Priority.CRITICAL,
        NOW + 15 * MINUTE,
        "pneumothorax 90 %",
    )
    last = before.events[-1]
    assert (last.from_state, last.to_state, last.actor) == ("routine, waiting", "critical, analysed", "triage")


def test_a_study_is_stable_when_nothing_waits_and_nothing_happens(worklist: Worklist) -> None:
    job_id = record(worklist)
    study_id = study_of(worklist)
    assert worklist.stable_studies(NOW + HOUR, MINUTE) == ()
    claim(worklist, job_id)
    worklist.finish_job(job_id, "w1", outcome(), NOW + SECOND)
    assert worklist.stable_studies(NOW + MINUTE, MINUTE) == ()
    assert worklist.stable_studies(NOW + MINUTE + SECOND, MINUTE) == (study_id,)
    worklist.hold_study(study_id, "merged", "admin", NOW)
    assert worklist.stable_studies(NOW + HOUR, MINUTE) == ()


def test_completing_sends_the_summary_and_a_later_one_replaces_it(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    summary = (result("summary", 1),)
    (first,) = worklist.complete_study(study_id, summary, TO_PACS, NOW) or ()
    assert worklist.worklist()[0].state is StudyState.COMPLETE
    assert worklist.complete_study(study_id, summary, TO_PACS, NOW) is None
    finished(worklist, 2)
    assert worklist.study_facts(study_id).revision == 1
    (second,) = worklist.complete_study(study_id, (result("summary", 2),), TO_PACS, NOW) or ()
    detail = worklist.study_detail(study_id)
    assert detail.revision == 2
    states = {one.id: one.state.value for one in detail.deliveries if one.kind == "summary"}
    assert states == {first: "withdrawn", second: "pending"}
    group = worklist.claim_deliveries("pacs", None, study_id, "d1", NOW, MINUTE)
    assert [(one.id, one.job_id, one.patient_id) for one in group] == [(second, None, "P1")]


def test_a_study_in_which_something_has_happened_is_not_complete(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    seen = worklist.study_facts(study_id).activity
    worklist.record_instance(received(2), LATERAL, PIPELINE, NOW)
    assert worklist.complete_study(study_id, (), {}, NOW, seen) is None
    worklist.record_instance(received(3), LATERAL, PIPELINE, NOW + MINUTE)
    assert worklist.complete_study(study_id, (), {}, NOW) is None
    record(worklist, 4)
    assert worklist.complete_study(study_id, (), {}, NOW + HOUR, worklist.study_facts(study_id).activity) is None
    assert worklist.worklist()[0].state is StudyState.OPEN


def test_holding_and_releasing_leave_their_trace_once(worklist: Worklist) -> None:
    job_id = record(worklist)
    study_id = study_of(worklist)
    worklist.hold_study(study_id, "merged", "admin", NOW)
    worklist.hold_study(study_id, "again", "admin", NOW)
    assert (worklist.worklist()[0].on_hold, worklist.worklist()[0].hold_reason) == (True, "merged")
    assert record_held(worklist)
    assert len(worklist.release_study(study_id, "admin", NOW)) == 2
    assert worklist.release_study(study_id, "admin", NOW) == ()
    assert worklist.jobs_to_enqueue(NOW, HOUR)[0] == (job_id, False)
    words = [one.to_state for one in worklist.study_detail(study_id).events if one.entity == "study"]
    assert words == ["open", "on_hold", "released"]
    with pytest.raises(RecordNotFoundError):
        worklist.hold_study(4711, "nobody", "admin", NOW)


def record_held(worklist: Worklist) -> bool:
    """What arrives in a study on hold is held."""
    return worklist.record_instance(received(2), None, PIPELINE, NOW).job_ids == ()


def test_the_worklist_comes_in_the_order_in_which_studies_are_due(worklist: Worklist) -> None:
    for study, minutes in ((1, 30), (2, 10), (3, 20), (4, 10)):
        record(worklist, study=study)
        decision = TriageDecision(Priority.ROUTINE, NOW + minutes * MINUTE, Analysis.ANALYSED, "")
        worklist.record_triage(study_of(worklist, study), decision, NOW)
    assert [row.patient_id for row in worklist.worklist()] == ["P2", "P4", "P3", "P1"]
    assert [row.patient_id for row in worklist.worklist(limit=2, offset=1)] == ["P4", "P3"]


def test_complete_studies_may_be_left_out(worklist: Worklist) -> None:
    finished(worklist, study=1)
    record(worklist, study=2)
    worklist.complete_study(study_of(worklist, 1), (), {}, NOW)
    assert [row.patient_id for row in worklist.worklist(include_complete=False)] == ["P2"]


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
def test_searching(worklist: Worklist, search: str, found: list[str]) -> None:
    for study in (1, 2):
        record(worklist, study=study)
    assert [row.patient_id for row in worklist.worklist(search=search)] == found


def test_finding_a_study(worklist: Worklist) -> None:
    record(worklist, study=1)
    record(worklist, study=2, accession_number="777")
    second = study_of(worklist, 2)
    assert worklist.find_study(f" #{second} ") == second
    assert worklist.find_study("777") == second
    assert worklist.find_study(received(study=2).sop_instance_uid) == second
    for unknown in ("", " ", "9" * 30, "²", "nothing", "0", "#", "#0", "#9999999999", "#²"):
        assert worklist.find_study(unknown) is None


def test_a_bare_number_is_an_accession_number_and_no_row(worklist: Worklist) -> None:
    for study in (1, 2, 3):
        record(worklist, study=study, accession_number="3" if study == 1 else f"A-{study}")
    third = study_of(worklist, 3)
    assert worklist.find_study("3") == study_of(worklist, 1)
    assert worklist.find_study(str(study_of(worklist, 2))) is None, "the study that is meant may not be here yet"
    assert worklist.find_study(f"#{third}") == third


def test_a_name_that_fits_two_studies_is_refused(worklist: Worklist) -> None:
    for study in (1, 2):
        record(worklist, study=study, accession_number="A-1")
    record(worklist, study=3, accession_number=f"#{study_of(worklist, 1)}")
    with pytest.raises(AmbiguousStudyError) as not_eligible:
        worklist.find_study("A-1")
    assert not_eligible.value.study_ids == (study_of(worklist, 1), study_of(worklist, 2))
    with pytest.raises(AmbiguousStudyError):
        worklist.find_study(f"#{study_of(worklist, 1)}")


def test_the_view_says_what_the_worklist_says(worklist: Worklist, engine: Engine) -> None:
    finished(worklist, study=1)
    record(worklist, study=2, stat=True)
    worklist.hold_study(study_of(worklist, 2), "merged", "admin", NOW)
    with engine.connect() as connection:
        view = connection.execute(text("SELECT * FROM worklist ORDER BY due_at, study_id")).all()
    rows = worklist.worklist()
    assert len(view) == len(rows) == 2
    for seen, row in zip(view, rows, strict=True):
        for name in ("study_id", "patient_id", "state", "priority", "analysis", "images", "not_eligible"):
            assert getattr(seen, name) == getattr(row, name)
        assert seen.reason == (row.hold_reason or row.reason)
        assert (seen.deliveries_open, seen.deliveries_failed) == (row.deliveries_open, row.deliveries_failed)
        assert seen.findings_present == len(row.present)
        assert bool(seen.on_hold) is row.on_hold


def test_times_are_read_back_aware_and_equal(worklist: Worklist) -> None:
    from datetime import timezone

    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7))) + timedelta(microseconds=1)
    worklist.record_instance(received(), None, PIPELINE, elsewhere)
    at = worklist.worklist()[0].received_at
    assert at == elsewhere
    assert at.utcoffset() == timedelta(0)


@pytest.mark.parametrize("include_complete", [True, False])
def test_old_reported_studies_do_not_slow_the_worklist_down(
    worklist: Worklist, engine: Engine, include_complete: bool
) -> None:
    """The database must walk the unreported studies only: the oldest million was reported long ago."""
    record(worklist)
    with writing(engine).begin() as connection:
        template = dict(connection.execute(select(Study.__table__)).one()._mapping)
        settled = {"state": StudyState.COMPLETE, "reported_at": NOW}
        rows = [
            {
                **template,
                **(settled if number < 5000 else {}),
                "id": number,
                "study_instance_uid": f"1.9.{number}",
                "due_at": NOW + number * SECOND,
            }
            for number in range(2, 5200)
        ]
        connection.execute(insert(Study), rows)
        connection.execute(text("ANALYZE"))
    statement = page_statement(Show.UNREPORTED, Order.DUE, False, not include_complete).params(limit=50, offset=0)
    sql = str(statement.compile(engine, compile_kwargs={"literal_binds": True}))
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        plan = "\n".join(str(row[-1]) for row in connection.exec_driver_sql(explain + sql))
    assert "ix_studies_unreported_due_at_id" in plan or (not include_complete and "ix_studies_state_due_at_id" in plan)
    assert {row.study_id for row in worklist.worklist(include_complete=include_complete)} == set(range(5000, 5050))
