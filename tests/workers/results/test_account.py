"""From the database's view of a study to its summary."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from db.records import (
    Analysis,
    FindingRecord,
    InstanceDetail,
    InstanceState,
    JobDetail,
    JobState,
    Priority,
    Refusal,
    ResultDetail,
    ResultRecord,
    StudyDetail,
    StudyState,
    WorklistRow,
)
from tests.workers.results.sources import EQUIPMENT, MODEL, PNEUMOTHORAX, source
from tests.workers.results.trees import groups, values
from workers.results.account import account_of, summarise_study

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
CR, KEY_OBJECT, SR = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.5.1.4.1.1.88.34"
CODES = {"pneumothorax": PNEUMOTHORAX}


def instance(number: int, **changes) -> InstanceDetail:
    values = {
        "id": number,
        "sop_instance_uid": f"1.2.3.{number}",
        "sop_class_uid": CR,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "series_instance_uid": "1.2.4",
        "series_description": "",
        "modality": "CR",
        "body_part": "CHEST",
        "view": "PA",
        "digest": "d",
        "path": "p",
        "byte_count": 1,
        "patient_id": "P-0815",
        "calling_ae_title": "A",
        "state": InstanceState.ELIGIBLE,
        "refusal": None,
        "flag": "",
        "received_at": NOW,
    }
    return InstanceDetail(**(values | changes))


def job(number: int, state: JobState = JobState.DONE, **changes) -> JobDetail:
    values = {
        "id": 100 + number,
        "instance_id": number,
        "pipeline": "pp",
        "revision": 1,
        "state": state,
        "attempts": 1,
        "stat": False,
        "worker": "",
        "error": "",
        "unfit": None,
        "timings": {},
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": NOW,
        "due_at": None,
    }
    return JobDetail(**(values | changes))


def result(number: int, job_id: int | None, kind: str = "sr", revision: int = 1) -> ResultDetail:
    record = ResultRecord(kind, SR, f"2.25.{number}", "2.25.9", "d", "p", 1)
    return ResultDetail(number, job_id, revision, record, NOW)


def finding(**changes) -> FindingRecord:
    values = {
        "label": "pneumothorax",
        "model": "m",
        "model_version": "1",
        "probability": 0.875,
        "threshold": 0.5,
        "present": True,
        "shadow": False,
    }
    return FindingRecord(**(values | changes))


def study(**changes) -> StudyDetail:
    row = WorklistRow(
        study_id=1,
        study_instance_uid=str(source().StudyInstanceUID),
        patient_id="P-0815",
        patient_name="",
        accession_number="",
        study_date="",
        study_description="",
        state=StudyState.OPEN,
        priority=Priority.CRITICAL,
        analysis=Analysis.ANALYSED,
        held=False,
        reason="",
        stat=False,
        received_at=NOW,
        due_at=NOW,
        images=3,
        refused=1,
        deliveries_open=0,
        deliveries_failed=0,
    )
    lateral = Refusal("lateral", "This is a lateral view.")
    values = {
        "row": row,
        "patient_birth_date": "",
        "patient_sex": "",
        "issuer_of_patient_id": "",
        "study_time": "",
        "triage_reason": "pneumothorax",
        "settled_at": None,
        "last_activity_at": NOW,
        "activity": 3,
        "revision": 0,
        "instances": (
            instance(1),
            instance(2, state=InstanceState.REFUSED, refusal=lateral),
            instance(3),
            instance(4, sop_class_uid=KEY_OBJECT),
            instance(5, flag="own"),
            instance(6),
        ),
        "jobs": (
            job(1, findings=(finding(), finding(label="mass"), finding(label="pneumothorax", shadow=True))),
            job(3, unfit=Refusal("blank", "The image is blank.")),
            job(6, JobState.FAILED),
        ),
        "results": (result(71, 101), result(73, 103), result(70, 101, revision=9)),
        "deliveries": (),
        "events": (),
    }
    return StudyDetail(**(values | changes))


def make(detail: StudyDetail):
    return summarise_study(
        detail, source(), codes=CODES, models=(MODEL,), equipment=EQUIPMENT, uid_root="2.25", pipeline="pp"
    )


def test_every_image_is_accounted_for_and_nothing_else():
    account = account_of(study(), CODES)
    assert [item.image.sop_instance_uid for item in account.images] == ["1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.6"]
    assert [item.analysed for item in account.images] == [True, False, False, False]
    assert [item.failed for item in account.images] == [False, False, False, True]
    assert [item.reason for item in account.images] == [
        "",
        "This is a lateral view.",
        "The image is blank.",
        "The analysis failed.",
    ]
    assert [len(item.findings) for item in account.images] == [1, 0, 0, 0]
    assert [[report.sop_instance_uid for report in item.reports] for item in account.images] == [
        ["2.25.71"],
        [],
        ["2.25.73"],
        [],
    ]


def test_the_summary_says_priority_and_reasons():
    made = make(study())
    told, *images = groups(made)
    assert "critical" in values(told, "121106")[0]
    assert [values(group, "111065")[0] for group in images] == ["111222", "111225", "111225", "111224"]


def test_the_same_study_gives_the_same_uid_and_a_change_another():
    assert make(study()).SOPInstanceUID == make(study()).SOPInstanceUID
    assert make(study()).SOPInstanceUID != make(study(triage_reason="other")).SOPInstanceUID


def test_the_next_revision_names_the_last_summary():
    detail = study(
        revision=2, results=(result(71, 101), result(80, None, "summary", 1), result(81, None, "summary", 2))
    )
    (series,) = make(detail).PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.81"


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED])
def test_a_study_without_a_report_has_a_summary_only_if_an_analysis_failed(state):
    made = make(study(jobs=(job(1, state),), results=()))
    assert (made is None) == (state is JobState.DONE)


def test_a_held_job_is_not_analysed():
    account = account_of(replace(study(), jobs=(job(1, JobState.HELD),)), CODES)
    assert account.images[0].reason == "The analysis waits for a person."
