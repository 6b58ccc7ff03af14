"""The counts behind drift, agreement and comparison, on both databases, and the report that is made of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from db import feedback, jobs, study_status
from db.database import Database
from db.queries import study_details
from db.queries.monitoring import ONLY_SHADOW, ModelMonitoring
from db.records import FindingRecord, NotEligible, Outcome
from db.user_tables import Verdict
from node.monitoring.drift import Counts, drift_report, weeks_before
from tests.commands import record_instance
from tests.db.examples import MINUTE, PIPELINE, finding, received, study_of

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = timedelta(weeks=1)


class Weeks:
    """Analyses at chosen times."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.number = 0

    def job(self, at: datetime, *findings: FindingRecord, not_analysed: str = "", **measures: float | str) -> int:
        self.number += 1
        made = record_instance(self.database, received(1, self.number), None, PIPELINE, at).job_ids[0]
        self.database.write(jobs.claim, made, "w", at, MINUTE)
        not_eligible = NotEligible(not_analysed, "no") if not_analysed else None
        self.database.write(
            jobs.finish, made, "w", Outcome(findings=findings, not_analysed=not_eligible, measures=measures), at
        )
        return self.number


def scored(probability: float | None, **changes: Any) -> FindingRecord:
    present = probability is not None and probability >= 0.5
    return replace(finding(), probability=probability, present=present, **changes)


def test_weeks_begin_on_monday_and_are_called_by_iso() -> None:
    first, second = weeks_before(datetime(2026, 1, 1, 9, tzinfo=UTC), 2)
    assert (first.label, first.start) == ("2026-W01", datetime(2025, 12, 29, tzinfo=UTC))
    assert (second.label, second.end) == ("2025-W52", first.start)


def test_scores_and_images_of_each_week(engine: Engine, database: Database) -> None:
    weeks = Weeks(database)
    for index in range(30):
        weeks.job(MONDAY, scored(index / 40), brightness=0.4 + index / 1000, view="PA", manufacturer="ACME")
    later = MONDAY + 5 * WEEK
    for index in range(30):
        weeks.job(later, scored(0.6 + index / 100), brightness=0.7 + index / 1000, view="AP", manufacturer="ACME")
    weeks.job(later, scored(None))
    weeks.job(later, not_analysed="rotated")
    report = drift_report(Counts(ModelMonitoring(engine)), later + timedelta(days=2), weeks=6)
    latest, first = report.scores
    assert (latest.week, latest.analysed, latest.not_assessed, latest.present, latest.status) == (
        "2026-W07",
        30,
        1,
        30,
        "drifted",
    )
    assert (first.week, first.analysed, first.status, first.psi) == ("2026-W02", 30, "reference", None)
    assert (first.present, first.median) == (10, 0.35)
    assert sum(first.histogram) == 30
    assert latest.psi is not None
    assert latest.psi > 0.25
    now, before = report.images
    assert (now.jobs, now.not_analysed, now.reasons, now.failed) == (32, 1, {"rotated": 1}, 0)
    measures = {one.name: one for one in now.measures}
    assert measures["brightness"].status == "drifted"
    assert measures["view"].mix == {"AP": 1.0}
    assert measures["view"].status == "drifted"
    assert measures["manufacturer"].status == "stable"
    assert {one.status for one in before.measures} == {"reference"}


def test_a_new_version_has_a_reference_of_its_own(engine: Engine, database: Database) -> None:
    weeks = Weeks(database)
    for index in range(20):
        weeks.job(MONDAY, scored(index / 40))
    later = MONDAY + 6 * WEEK
    for _ in range(20):
        weeks.job(later, scored(0.9, model_version="2.0"))
    (new,) = drift_report(Counts(ModelMonitoring(engine)), later, weeks=1).scores
    assert (new.version, new.status) == ("2.0", "reference")
    assert drift_report(Counts(ModelMonitoring(engine)), later, weeks=1, model="another").scores == ()


def test_superseded_findings_do_not_count(engine: Engine, database: Database) -> None:
    weeks = Weeks(database)
    study = weeks.job(MONDAY, scored(0.9))
    (job,) = database.read(study_details.study_detail, study_of(database, study)).jobs
    database.write(jobs.requeue, job.id, "ada", "again", MONDAY)
    database.write(jobs.claim, job.id, "w", MONDAY, MINUTE)
    database.write(jobs.finish, job.id, "w", Outcome(findings=(scored(0.2),)), MONDAY)
    (week,) = drift_report(Counts(ModelMonitoring(engine)), MONDAY, weeks=1).scores
    assert (week.analysed, week.present, week.median) == (1, 0, 0.2)


def test_agreement_counts_the_latest_word(engine: Engine, database: Database) -> None:
    weeks = Weeks(database)
    for _ in range(4):
        weeks.job(MONDAY, scored(0.9))
    found = [Verdict.REJECT, Verdict.MODIFY, Verdict.ACCEPT, Verdict.REJECT, Verdict.ACCEPT]
    for number, verdict in enumerate(found):
        database.write(feedback.give, 1 + number % 4, verdict, MONDAY + number * MINUTE, actor="rosa")
    (week,) = drift_report(Counts(ModelMonitoring(engine)), MONDAY, weeks=1).verdicts
    assert (week.accepted, week.modified, week.rejected, week.agreed) == (2, 1, 1, 0.5)
    assert (round(week.low, 3), round(week.high, 3)) == (0.15, 0.85)


def test_only_reported_studies_contradict(engine: Engine, database: Database) -> None:
    weeks = Weeks(database)
    for probability in (0.9, 0.1, 0.9, 0.9):
        weeks.job(MONDAY, scored(probability))
    database.write(feedback.give, 1, Verdict.REJECT, MONDAY, actor="rosa", comment="skin fold")
    database.write(feedback.give, 2, Verdict.MODIFY, MONDAY, actor="rosa")
    database.write(feedback.give, 3, Verdict.REJECT, MONDAY, actor="rosa")
    database.write(feedback.give, 4, Verdict.ACCEPT, MONDAY, actor="rosa")
    for study in (1, 2, 4):
        database.write(study_status.report, study_of(database, study), MONDAY, actor="rosa", cause="reported")
    found = drift_report(Counts(ModelMonitoring(engine)), MONDAY, weeks=1).discrepancies
    assert {(one.study_id, one.kind, one.comment) for one in found} == {
        (study_of(database, 1), "false notification", "skin fold"),
        (study_of(database, 2), "missed", ""),
    }


def test_a_model_in_shadow_beside_the_active_one(engine: Engine, database: Database) -> None:
    weeks = Weeks(database)
    for ours, other in ((0.9, 0.8), (0.9, 0.2), (0.1, 0.3), (0.2, 0.1), (0.3, 0.7)):
        weeks.job(MONDAY, scored(ours), scored(other, model="trial", shadow=True))
    weeks.job(MONDAY, scored(0.9), scored(None, model="trial", shadow=True))
    weeks.job(MONDAY, scored(0.9), scored(0.9, model="trial", label="nodule", shadow=True))
    weeks.job(MONDAY, scored(0.9), scored(0.2, shadow=True))
    (one,) = drift_report(Counts(ModelMonitoring(engine)), MONDAY, weeks=1).comparisons
    assert (one.active, one.shadow, one.label) == ("chest-classifier", "trial", "pneumothorax")
    assert (one.both, one.only_active, one.only_shadow, one.neither) == (1, 1, 1, 2)
    assert one.kappa is not None
    assert round(one.kappa, 3) == 0.167
    assert len(one.pairs) == 5
    assert {(pair.study_id, pair.active_present) for pair in one.differing} == {
        (study_of(database, 2), True),
        (study_of(database, 5), False),
    }
    assert drift_report(Counts(ModelMonitoring(engine)), MONDAY, weeks=1, model="nobody").comparisons == ()


def test_an_empty_node_has_an_empty_report(engine: Engine) -> None:
    report = drift_report(Counts(ModelMonitoring(engine)), MONDAY, weeks=3)
    assert report.weeks == ("2026-W02", "2026-W01", "2025-W52")
    assert (report.scores, report.images, report.verdicts, report.comparisons) == ((), (), (), ())


def test_a_week_is_counted_again_after_a_while(engine: Engine, database: Database) -> None:
    weeks, counts = Weeks(database), Counts(ModelMonitoring(engine))
    now = MONDAY + WEEK + timedelta(hours=1)

    def analysed(at: datetime) -> list[int]:
        return [one.analysed for one in drift_report(counts, at, weeks=2).scores]

    weeks.job(MONDAY, scored(0.9))
    weeks.job(now, scored(0.9))
    assert analysed(now) == [1, 1]
    weeks.job(MONDAY, scored(0.9))
    weeks.job(now, scored(0.9))
    assert analysed(now + timedelta(seconds=50)) == [1, 1]
    assert analysed(now + timedelta(seconds=70)) == [2, 1]
    assert analysed(now + timedelta(hours=6)) == [2, 2]


def test_an_image_of_which_no_model_counts_is_not_analysed_here_as_in_the_worklist(database: Database) -> None:
    weeks = Weeks(database)
    weeks.job(MONDAY, finding(shadow=True))
    weeks.job(MONDAY, finding(shadow=True), finding(model="other"))
    weeks.job(MONDAY, not_analysed="cropped")
    found = ModelMonitoring(database.engine).outcomes(MONDAY - WEEK, MONDAY + WEEK)
    assert found == {ONLY_SHADOW: 1, "": 1, "cropped": 1}
