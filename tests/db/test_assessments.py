"""Statements of received assessments against the findings of a study, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from db import assessments, feedback, jobs
from db.assessments import Assessment, Statement, unmatched
from db.database import Database
from db.errors import RecordNotFoundError
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import LesionRecord, SimilarRecord
from db.user_tables import Verdict
from tests.db.examples import NOW, claim, finding, outcome, record, study_of

OURS, OTHER = ("2.25.100", "2.25.101"), "2.25.777"


def with_verdicts(database: Database) -> None:
    """A study with two findings in one report, each with a tracking UID."""
    job_id = record(database)
    claim(database, job_id)
    findings = (finding(tracking_uid="2.25.1"), finding("nodule", tracking_uid="2.25.2", present=False))
    database.write(jobs.finish, job_id, "w1", replace(outcome(100), findings=findings), NOW)


def assess(database: Database, *statements: Statement, uid: str = "1.9", observer: str = "Reader^Rosa^M=x") -> int:
    return database.write(assessments.record, Assessment(uid, observer, statements), 1, NOW)


def test_a_statement_becomes_feedback_once(engine: Engine, database: Database) -> None:
    with_verdicts(database)
    found = Statement("modify", OURS, "2.25.2", "smaller\0 than that")
    assert assess(database, found, Statement("accept", (), "2.25.1")) == 0
    assert assess(database, found) == 0
    first, second = database.read(feedback.of_study, study_of(database))
    assert (first.label, first.verdict, first.actor) == ("nodule", Verdict.MODIFY, "dicom:Reader, Rosa M")
    assert (second.label, second.verdict, second.source) == ("pneumothorax", Verdict.ACCEPT, "dicom")


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (Statement(""), "none that is known"),
        (Statement("accept", (OTHER,)), "no result of this node"),
        (Statement("accept", (), "2.25.3"), "no finding of this study"),
        (Statement("reject", OURS), "none of the 2 findings"),
    ],
)
def test_what_fits_nothing_is_kept_with_the_reason(
    engine: Engine, database: Database, statement: Statement, problem: str
) -> None:
    with_verdicts(database)
    assert assess(database, statement, observer="") == 1
    (kept,) = unmatched(engine)
    assert problem in kept.problem
    assert (kept.observer, kept.verdict) == ("unknown", statement.verdict)
    assert database.read(feedback.of_study, study_of(database)) == ()


def test_a_tracking_uid_of_another_run_than_the_report_named(engine: Engine, database: Database) -> None:
    with_verdicts(database)
    second = record(database, number=2)
    claim(database, second)
    database.write(jobs.finish, second, "w1", outcome(300), NOW)
    assert assess(database, Statement("accept", ("2.25.301",), "2.25.1")) == 1
    assert "another result" in unmatched(engine)[0].problem


def test_an_instance_that_is_not_there(database: Database) -> None:
    with pytest.raises(RecordNotFoundError):
        assess(database, Statement("accept"))


def test_similar_cases_and_lesions_are_read_as_they_were_written(engine: Engine, database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    cases = (SimilarRecord("index/1", "pneumothorax", 0.25), SimilarRecord("index/2", "normal", 0.5))
    lesions = (LesionRecord("2.25.11", 0.75), LesionRecord("2.25.12", 0.5))
    findings = (finding(similar=cases), finding("nodule", tracking_uid="2.25.1", lesions=lesions))
    database.write(jobs.finish, job_id, "w1", replace(outcome(), findings=findings), NOW)
    (job,) = database.read(study_details.study_detail, study_of(database)).jobs
    assert [one.similar for one in job.findings] == [cases, ()]
    assert [one.record.similar for one in database.read(feedback.findings, study_of(database))] == [cases, ()]
    assert Worklist(database.engine).page()[0].findings[0].similar == cases
    assert [one.lesions for one in job.findings] == [(), lesions]
    assert [one.lesions for one in Worklist(database.engine).page()[0].findings] == [(), lesions]
    # A verdict on one of its lesions is one on the finding.
    assert assess(database, Statement("reject", (), "2.25.12")) == 0
    assert [one.label for one in database.read(feedback.of_study, study_of(database))] == ["nodule"]
