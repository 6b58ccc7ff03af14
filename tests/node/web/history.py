"""Weeks of made-up analyses without pictures: scores that move, a model in shadow, readers, and an assessment."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from db import assessments, feedback, jobs, study_status
from db.assessments import Assessment, Statement
from db.database import Database
from db.queries import study_details
from db.records import FindingRecord, NotEligible, Outcome, ReceivedInstance
from db.user_tables import Verdict
from tests.commands import record_instance
from tests.node.web.demo import PIPELINE, Demo

WEEKS = 11
_THRESHOLD = 0.45


def fill_weeks(demo: Demo, now: datetime, a_week: int = 40) -> None:
    """Analyses of the past; from the seventh week on the images are brighter and the scores higher."""
    chance = random.Random(3)
    for week in range(WEEKS, 0, -1):
        moved = week <= 4
        for index in range(a_week):
            at = now - timedelta(weeks=week, minutes=-170 * index)
            study = _analyse(demo, chance, at, moved, week * 1000 + index)
            if index % 5 == 0:
                _read(demo.database, study, chance, at)
            demo.database.write(
                study_status.report, study, at + timedelta(hours=1), actor="rosa", cause="marked as reported"
            )
    _assess(demo, now)


def _analyse(demo: Demo, chance: random.Random, at: datetime, moved: bool, number: int) -> int:
    uid = f"1.2.826.0.1.3680043.8.499.{number}"
    received = ReceivedInstance(
        uid, "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2.1", f"{number:064x}", "gone", 1, f"{uid}.1", f"{uid}.2",
        patient_id=f"W-{number}", patient_name="Past^Patient", modality="CR", view="PA", study_description="Chest PA",
    )  # fmt: skip
    job_id = record_instance(demo.database, received, None, PIPELINE, at).job_ids[0]
    demo.database.write(jobs.claim, job_id, "reader-1:jobs:4711", at, timedelta(minutes=1))
    if chance.random() < 0.06:
        outcome = Outcome(not_analysed=NotEligible(chance.choice(("cropped", "rotated")), "It cannot be analysed."))
    else:
        score = min(0.99, chance.betavariate(1.3, 6) + (0.14 if moved else 0))
        other = min(0.99, max(0.0, score + chance.gauss(0, 0.07)))
        outcome = Outcome(
            findings=(_finding("chest-classifier", score), _finding("literature-densenet", other, shadow=True)),
            measures=_measures(chance, moved),
            modes={"chest-classifier": "active", "literature-densenet": "shadow"},
            timings={"read": 0.1, "predict": 0.4, "encode": 0.1},
            ran_on="cpu",
        )
    demo.database.write(
        jobs.finish, job_id, "reader-1:jobs:4711", outcome, at + timedelta(seconds=chance.uniform(1, 3))
    )
    found = demo.database.read(study_details.find_study, f"{uid}.1")
    assert found is not None
    return found


def _finding(model: str, score: float, *, shadow: bool = False) -> FindingRecord:
    present = score >= _THRESHOLD
    return FindingRecord("lung_opacity", model, "1.0.0", score, _THRESHOLD, present=present, shadow=shadow)


def _measures(chance: random.Random, moved: bool) -> dict[str, float | str]:
    return {
        "brightness": round(chance.gauss(0.61 if moved else 0.48, 0.05), 4),
        "contrast": round(chance.gauss(0.22, 0.02), 4),
        "rows": 2048.0,
        "columns": float(chance.choice((1760, 2048))),
        "spacing": 0.15,
        "view": chance.choice(("PA", "PA", "PA", "AP")),
        "manufacturer": "Globex" if moved and chance.random() < 0.5 else "ACME",
    }


def _read(database: Database, study: int, chance: random.Random, at: datetime) -> None:
    for finding in database.read(feedback.findings, study)[:1]:
        verdict = chance.choices(list(Verdict), (8, 1, 1))[0]
        database.write(feedback.give, finding.id, verdict, at + timedelta(hours=1), actor="rosa")


def _assess(demo: Demo, now: datetime) -> None:
    found = Statement("reject", ("1.2.3",), "2.25.99", "a skin fold")
    demo.database.write(assessments.record, Assessment("1.2.3.4", "Nguyen^Linh", (found,)), 1, now - timedelta(hours=3))
