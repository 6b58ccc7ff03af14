"""The sentence that stands first in every report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from models.contract import Finding, NotAnalysed
from models.model_spec import Code
from tests.workers.results.sources import (
    LUNG_OPACITY,
    analysis,
    corner_mask,
    encode_all,
    finding,
    negative,
    source,
    study_summary,
)
from workers.results import codes
from workers.results.codes import read_code
from workers.results.finding_text import Area, area_value, probability_value, statements
from workers.results.headline import NOTHING_FOUND, percent, sentence_of
from workers.results.study_account import ImageAccount, Reference, StudyAccount, SummaryFinding
from workers.results.summary import sentence_about

IMAGE = Reference("1.2.840.10008.5.1.4.1.1.1", "1.2.3", "1.2.4")
ABNORMAL = Code("263654008", "SCT", "Abnormal")


def opacity(**changes: Any) -> Finding:
    values = {"label": "lung_opacity", "code": LUNG_OPACITY, "probability": 0.82, "threshold": 0.4}
    return finding(**(values | changes))


def whole(**changes: Any) -> Finding:
    values = {"label": "abnormal", "code": ABNORMAL, "probability": 0.9, "threshold": 0.5}
    return finding(**(values | changes))


def headline(*findings: Finding, **header: Any) -> str:
    made = analysis(source(**header), findings)
    return sentence_of(made, statements(made))


def test_what_was_found_where_and_how_surely() -> None:
    assert headline(opacity(mask=corner_mask())) == "AI: lung opacity right, 82 %"
    assert headline(opacity(mask=corner_mask()), PatientOrientation=None) == "AI: lung opacity, 82 %"
    both = headline(opacity(mask=corner_mask()), finding(probability=0.999))
    assert both == "AI: pneumothorax, more than 99 %; lung opacity right, 82 %"


def test_what_only_follows_from_a_finding_is_not_named() -> None:
    assert headline(opacity(parent="abnormal"), whole()) == "AI: lung opacity, 82 %"
    replaced = opacity(parent="abnormal", model="chest-opacity")
    assert headline(replaced, whole()) == "AI: lung opacity, 82 %", "sent by another model than the whole"
    assert headline(opacity(parent="abnormal", probability=0.1), whole()) == "AI: abnormal, 90 %"


def test_nothing_found_excludes_no_more_than_the_report_does() -> None:
    assert headline(*negative()) == NOTHING_FOUND == "AI: no finding above its threshold"
    assert headline(*negative(), ViewPosition="AP") == f"{NOTHING_FOUND}; pneumothorax not excluded"
    assert (
        headline(opacity(probability=0.1), finding(probability=None)) == f"{NOTHING_FOUND}; pneumothorax not assessed"
    )


def test_what_no_model_could_tell_is_no_negative() -> None:
    assert headline(finding(probability=None, reason="The map has no maximum.")) == (
        "AI: not analysed, the map has no maximum"
    )


@pytest.mark.parametrize(
    ("code", "reason", "sentence"),
    [
        ("not-frontal", "View Position is LL, not a frontal view.", "AI: not analysed, lateral view"),
        ("not-frontal", "View Position is PA LLD, not a frontal view.", "AI: not analysed, lateral decubitus view"),
        ("not-frontal", "Patient Orientation is that of a lateral view.", "AI: not analysed, lateral view"),
        (
            "too-young",
            "The patient is younger than 18 years.",
            "AI: not analysed, the patient is younger than 18 years",
        ),
        ("corrupt", "", "AI: not analysed, no reason is known"),
    ],
)
def test_why_nothing_was_analysed(code: str, reason: str, sentence: str) -> None:
    not_analysed = analysis(not_analysed=NotAnalysed(code, reason))
    assert sentence_of(not_analysed, ()) == sentence
    account = StudyAccount("routine", "", (ImageAccount(IMAGE, False, reason, code=code),))
    assert sentence_about(account) == sentence


@pytest.mark.parametrize(
    ("probability", "expected"), [(0.0, "less than 1 %"), (0.0351, "4 %"), (0.5, "50 %"), (1.0, "more than 99 %")]
)
def test_a_probability_is_never_certainty(probability: float, expected: str) -> None:
    assert percent(probability) == expected


def test_it_is_the_first_item_of_every_report() -> None:
    reports = [
        encode_all(analysis())["sr"],
        encode_all(analysis(findings=negative()))["sr"],
        encode_all(analysis(not_analysed=NotAnalysed("rotated", "It lies.")))["sr"],
        study_summary(source()),
    ]
    for report in reports:
        first = report.ContentSequence[0]
        assert read_code(first.ConceptNameCodeSequence[0]) == codes.SUMMARY
        assert first.TextValue.startswith("AI: ")
    assert reports[-1].ContentSequence[0].TextValue == "AI: pneumothorax, 88 %; 2 of 3 images not analysed"


def test_a_study_is_told_by_its_surest_image() -> None:
    found = SummaryFinding(LUNG_OPACITY, 0.62, "lung opacity", "right")
    images = (
        ImageAccount(IMAGE, True, findings=(found, SummaryFinding(ABNORMAL, 0.9, "abnormal", implied=True))),
        ImageAccount(IMAGE, True, findings=(replace(found, probability=0.82),)),
        ImageAccount(IMAGE, False, "This is a lateral view.", eligible=False),
    )
    assert sentence_about(StudyAccount("urgent", "", images)) == "AI: lung opacity right, 82 %"


def test_a_study_of_which_something_is_missing_is_no_negative() -> None:
    images = (ImageAccount(IMAGE, True), ImageAccount(IMAGE, False, "The analysis failed.", failed=True))
    assert sentence_about(StudyAccount("routine", "", images)) == f"{NOTHING_FOUND}; 1 of 2 images not analysed"


@pytest.mark.parametrize(
    ("millimetres", "value"),
    [
        (None, (1234, codes.PIXELS)),
        (38.4049, (38.4, codes.SQUARE_MILLIMETRE)),
        (99.999, (100.0, codes.SQUARE_MILLIMETRE)),
        (4321.987, (43.22, codes.SQUARE_CENTIMETRE)),
    ],
)
def test_a_size_is_told_as_people_read_it(millimetres: float | None, value: tuple[float, Code]) -> None:
    assert area_value(Area(1234, 0.1, millimetres, "")) == value


def test_a_probability_is_told_in_three_digits() -> None:
    assert [probability_value(each) for each in (0.8234567, 0.0351499, 1.0)] == [0.823, 0.0351, 1.0]


def test_a_probability_is_told_in_as_many_digits_as_its_threshold_demands() -> None:
    """A report says from which probability it is present: 0.374 beside 0.3741 would contradict it."""
    near = [(0.37414, 0.3741), (0.374099, 0.3741), (0.30059, 0.3006), (0.3741, 0.3741)]
    assert [probability_value(*each) for each in near] == [0.3741, 0.374, 0.30059, 0.3741]


def test_a_negative_says_how_much_it_is_worth() -> None:
    made = analysis(findings=(opacity(probability=0.1, sensitivity=0.7213), finding(probability=0.1)))
    known, unknown = statements(made)
    assert known.remark == "not detected; sensitivity at this threshold 72 % by the model card"
    assert unknown.remark == "not detected; the model card gives no sensitivity"
    (comment,) = [
        item.TextValue
        for group in encode_all(made)["sr"].ContentSequence[-1].ContentSequence[:1]
        for item in group.ContentSequence
        if read_code(item.ConceptNameCodeSequence[0]) == codes.COMMENT
    ]
    assert comment.startswith("Not detected; sensitivity at this threshold 72 %")


def test_the_site_is_the_organ_where_it_is_known() -> None:
    lung = Code("39607008", "SCT", "Lung")
    objects = encode_all(analysis(findings=(opacity(mask=corner_mask(), site=lung),)))
    region = objects["seg"].SegmentSequence[0].AnatomicRegionSequence[0]
    assert read_code(region) == lung
    sites = [
        item
        for group in objects["sr"].ContentSequence[-1].ContentSequence
        for item in group.ContentSequence
        if read_code(item.ConceptNameCodeSequence[0]) == codes.FINDING_SITE
    ]
    assert sites
    for site in sites:
        assert read_code(site.ConceptCodeSequence[0]) == lung
        assert read_code(site.ContentSequence[0].ConceptCodeSequence[0]) == codes.RIGHT
