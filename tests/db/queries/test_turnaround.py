"""What the database tells of a reading room."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from db import jobs, study_status
from db.database import Database
from db.queries.turnaround import observe
from db.records import TriageDecision
from db.states import Analysis, Priority
from tests.commands import record_instance, record_triage
from tests.db.examples import HOUR, LATERAL, NOW, PIPELINE, claim, finding, outcome, received, record, study_of

DAY = timedelta(days=1)


def _analysed(database: Database, study: int, label: str, **changes: object) -> int:
    job_id = record(database, 1, study)
    claim(database, job_id)
    findings = (finding(label, **changes), finding(label, model="another", **changes))
    assert database.write(jobs.finish, job_id, "w1", outcome(100 * study, findings=findings), NOW) is not None
    decision = TriageDecision(Priority.ROUTINE, NOW + HOUR, Analysis.ANALYSED, "no urgent finding")
    record_triage(database, study_of(database, study), decision, NOW)
    return study_of(database, study)


def test_an_observation(database: Database, engine: Engine) -> None:
    _analysed(database, 1, "pneumothorax")
    second = _analysed(database, 2, "pneumothorax", present=False)
    _analysed(database, 3, "lung_opacity", shadow=True)
    record_instance(database, received(1, 4), LATERAL, PIPELINE, NOW)
    record(database, 1, 5)  # still waits for its analysis
    database.write(study_status.report, second, NOW + HOUR, actor="ann", cause="marked as reported")

    seen = observe(engine, NOW - DAY, NOW + DAY)
    assert seen.arrivals == (NOW,) * 4
    assert (seen.analysed, seen.not_analysed) == (3, 1)
    assert seen.positives == {"pneumothorax": 1}, "a study counts once, whatever its models and images"
    assert seen.reports == (("ann", NOW + HOUR),)


def test_only_the_time_that_is_asked_for(database: Database, engine: Engine) -> None:
    study = _analysed(database, 1, "pneumothorax")
    database.write(study_status.report, study, NOW + 3 * DAY, actor="ann", cause="marked as reported")
    later = observe(engine, NOW + DAY, NOW + 2 * DAY)
    assert (later.arrivals, later.positives, later.reports) == ((), {}, ())
