"""A chest study of which nothing was analysed leaves one coded result with the reason; other silence has a cause."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from config.destinations import Destination
from db import studies
from db.records import NotEligible, Outcome
from models.model_spec import Code
from tests.workers.builders import NOON
from tests.workers.results.sources import measurement_report
from tests.workers.results.test_objects import complaints
from tests.workers.test_completion import Study, outcome
from workers.job_outcome import EncodedResult, kinds_of_studies
from workers.not_analysed import not_analysed_images
from workers.results import codes
from workers.results.codes import read_code

LATERAL = NotEligible("not-frontal", "View Position is LL, not a frontal view.")
CHILD = NotEligible("too-young", "The patient is younger than 18 years.")
RAW = NotEligible("for-processing", "The image is For Processing, not For Presentation.")
HAND = NotEligible("not-a-chest", "Body Part Examined is HAND, not a chest.")
UNREADABLE = Outcome(not_analysed=NotEligible("corrupt", "The pixel data is damaged."))
ROTATED = Outcome(not_analysed=NotEligible("rotated", "The chest does not stand upright in the image."))
FOOT = Outcome(
    not_analysed=NotEligible("not_frontal_chest", "The image does not look like a frontal chest radiograph.")
)


def destination(*kinds: str) -> Destination:
    return Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, kinds=kinds)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def read(made: EncodedResult) -> Dataset:
    return dcmread(BytesIO(made.content))


def status_of(report: Dataset) -> Code:
    (group,) = next(item for item in report.ContentSequence if item.ValueType == "CONTAINER" and _is_measured(item))[
        "ContentSequence"
    ].value
    return next(
        read_code(item.ConceptCodeSequence[0])
        for item in group.ContentSequence
        if read_code(item.ConceptNameCodeSequence[0]) == codes.SUMMARY_OF_ANALYSES
    )


def _is_measured(item: Dataset) -> bool:
    return read_code(item.ConceptNameCodeSequence[0]) == codes.IMAGING_MEASUREMENTS


@pytest.mark.parametrize(
    ("build", "sentence", "status"),
    [
        (lambda study: study.add(not_eligible=LATERAL), "AI: not analysed, lateral view", codes.NOT_ATTEMPTED),
        (
            lambda study: study.add(not_eligible=CHILD),
            "AI: not analysed, the patient is younger than 18 years",
            codes.NOT_ATTEMPTED,
        ),
        (
            lambda study: study.add(not_eligible=RAW),
            "AI: not analysed, the image is For Processing, not For Presentation",
            codes.NOT_ATTEMPTED,
        ),
        (lambda study: study.add(UNREADABLE), "AI: not analysed, the pixel data is damaged", codes.FAILED),
        (
            lambda study: study.add(ROTATED),
            "AI: not analysed, the chest does not stand upright in the image",
            codes.NOT_ATTEMPTED,
        ),
    ],
    ids=["lone lateral", "child", "For Processing", "unreadable", "rotated"],
)
def test_one_coded_result_with_the_reason(
    study: Study, build: Callable[[Study], None], sentence: str, status: Code
) -> None:
    build(study)
    (made,) = study.summarise(destination("seg", "sr", "summary"))
    report = read(made)

    assert made.record.kind == "sr"
    assert report.ContentSequence[0].TextValue == sentence
    assert read_code(report.ConceptNameCodeSequence[0]).value == "126000"
    assert status_of(report) == status
    assert study.summarise(destination("seg", "sr", "summary")) == (made,)


@pytest.mark.parametrize(
    "build",
    [
        lambda study: (study.add(outcome()), study.add(not_eligible=LATERAL)),
        lambda study: (study.add(fails=True), study.add(not_eligible=LATERAL)),
        lambda study: study.add(not_eligible=HAND),
        lambda study: study.add(FOOT),
        lambda study: study.add(not_eligible=CHILD, BodyPartExamined="", StudyDescription=""),
    ],
    ids=["lateral beside an analysed frontal", "the summary tells a failure", "hand", "foot", "nobody says chest"],
)
def test_no_such_result(study: Study, build: Callable[[Study], object]) -> None:
    build(study)

    assert "sr" not in [made.record.kind for made in study.summarise(destination("sr", "sc"))]


def test_the_most_telling_image_stands_for_the_study(study: Study) -> None:
    study.add(not_eligible=LATERAL)
    study.add(not_eligible=CHILD)
    assert [reason.code for _, reason in not_analysed_images(study.detail)] == ["too-young", "not-frontal"]

    study.add(UNREADABLE)
    assert not_analysed_images(study.detail)[0][1].code == "corrupt"


def test_a_later_analysis_replaces_it(study: Study) -> None:
    study.add(not_eligible=LATERAL)
    made = study.summarise(destination("sr", "sc"))
    assert study.database.write(studies.complete, study.id, tuple(each.record for each in made), {}, NOON) == ()
    study.add(outcome())
    (summary,) = study.summarise(destination("sr", "sc"))

    assert summary.record.kind == "summary"
    (before,) = read(summary).PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert before.ReferencedSOPInstanceUID == made[0].record.sop_instance_uid


def test_a_capture_where_captures_are_on(study: Study) -> None:
    study.add(not_eligible=LATERAL)
    report, capture = study.summarise(destination("sr", "sc"))
    picture = read(capture)

    assert (report.record.kind, capture.record.kind) == ("sr", "sc")
    assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.1"
    shown = picture.pixel_array
    assert shown.shape[2] == 3
    assert (shown.max(axis=2) > 200).mean() > 0.005, "there are words on it"


@pytest.mark.peer("dciodvfy")
def test_the_predicts_read_it(study: Study, tmp_path: Path) -> None:
    study.add(not_eligible=LATERAL)
    for made in study.summarise(destination("sr", "sc")):
        path = tmp_path / f"{made.record.kind}.dcm"
        path.write_bytes(made.content)
        assert complaints(path)[0] == [], made.record.kind
    report = tmp_path / "sr.dcm"
    assert measurement_report(report).get_image_measurement_groups()
    program = Path(sys.executable).with_name("tid1500reader")
    out = tmp_path / "sr.json"
    subprocess.run([program, "--inputDICOM", report, "--outputMetadata", out], check=True, capture_output=True)
    assert json.loads(out.read_text())["Measurements"]


def test_whoever_takes_summaries_takes_the_report_that_stands_for_one() -> None:
    taken = {kinds: kinds_of_studies([destination(*kinds)])["pacs"] for kinds in (("summary",), ("seg", "sr"), ("sc",))}

    assert "sr" in taken["summary",]
    assert taken["seg", "sr"] == ("seg", "sr")
    assert taken["sc",] == ("sc",)


def test_what_may_be_a_chest_is_rejected_after_the_question_for_the_body_part() -> None:
    from node.dicom.eligibility import _RULES, _body_part, _too_small

    assert _RULES.index(_body_part) < _RULES.index(_too_small)
