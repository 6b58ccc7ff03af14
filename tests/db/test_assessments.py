"""Statements of received assessments against the findings of a study, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from db.assessments import Assessment, Statement, unmatched
from db.errors import RecordNotFoundError
from db.feedback import Feedback
from db.records import SimilarRecord
from db.user_tables import Verdict
from db.worklist import Worklist
from tests.db.examples import NOW, claim, finding, outcome, record, study_of

OURS, OTHER = ("2.25.100", "2.25.101"), "2.25.777"


def judged(worklist: Worklist) -> None:
    """A study with two findings in one report, each with a tracking UID."""
    job_id = record(worklist)
    claim(worklist, job_id)
    findings = (finding(tracking_uid="2.25.1"), finding("nodule", tracking_uid="2.25.2", present=False))
    worklist.finish_job(job_id, "w1", replace(outcome(100), findings=findings), NOW)


def assess(worklist: Worklist, *statements: Statement, uid: str = "1.9", observer: str = "Reader^Rosa^M=x") -> int:
    return worklist.record_assessment(Assessment(uid, observer, statements), 1, NOW)


def test_a_statement_becomes_feedback_once(engine: Engine, worklist: Worklist) -> None:
    judged(worklist)
    said = Statement("modify", OURS, "2.25.2", "smaller\0 than that")
    assert assess(worklist, said, Statement("accept", (), "2.25.1")) == 0
    assert assess(worklist, said) == 0
    first, second = Feedback(engine).of_study(study_of(worklist))
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
    engine: Engine, worklist: Worklist, statement: Statement, problem: str
) -> None:
    judged(worklist)
    assert assess(worklist, statement, observer="") == 1
    (kept,) = unmatched(engine)
    assert problem in kept.problem
    assert (kept.observer, kept.said) == ("unknown", statement.said)
    assert Feedback(engine).of_study(study_of(worklist)) == ()


def test_a_tracking_uid_of_another_run_than_the_report_named(engine: Engine, worklist: Worklist) -> None:
    judged(worklist)
    second = record(worklist, number=2)
    claim(worklist, second)
    worklist.finish_job(second, "w1", outcome(300), NOW)
    assert assess(worklist, Statement("accept", ("2.25.301",), "2.25.1")) == 1
    assert "another result" in unmatched(engine)[0].problem


def test_an_instance_that_is_not_there(worklist: Worklist) -> None:
    with pytest.raises(RecordNotFoundError):
        assess(worklist, Statement("accept"))


def test_similar_cases_are_read_as_they_were_written(engine: Engine, worklist: Worklist) -> None:
    job_id = record(worklist)
    claim(worklist, job_id)
    cases = (SimilarRecord("index/1", "pneumothorax", 0.25), SimilarRecord("index/2", "normal", 0.5))
    findings = (finding(similar=cases), finding("nodule"))
    worklist.finish_job(job_id, "w1", replace(outcome(), findings=findings), NOW)
    (job,) = worklist.study_detail(study_of(worklist)).jobs
    assert [one.similar for one in job.findings] == [cases, ()]
    assert [one.record.similar for one in Feedback(engine).findings(study_of(worklist))] == [cases, ()]
    assert worklist.worklist()[0].findings[0].similar == cases
