"""The rows of Table E.1-1, and what each action code and option makes of an attribute."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from pydicom.tag import Tag

import workers.deidentification.table as table
from config.deidentification import Deidentification
from workers.deidentification.table import Action, rule_of

CODES = {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}
BARE = Deidentification(dates="removed", patient_characteristics=False, device_identity=False, clean_descriptors=False)


def test_every_row_has_the_codes_of_the_standard() -> None:
    text = Path(table.__file__).with_name("table_e1_1.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert len(rows) == 655
    assert {row["basic"] for row in rows} == CODES
    for option in ("device", "patient", "dates", "descriptors", "content", "graphics"):
        assert {row[option] for row in rows} <= {"", "K", "C"}
    assert len({row["tag"] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        ("OtherPatientIDs", Action.REMOVE),  # X
        ("PatientBirthDate", Action.EMPTY),  # Z
        ("ClinicalTrialSubjectID", Action.DUMMY),  # D
        ("SOPInstanceUID", Action.UID),  # U
        ("AcquisitionDate", Action.REMOVE),  # X/Z of type 3
        ("RequestedProcedureDescription", Action.EMPTY),  # X/Z of type 2
        ("OperatorsName", Action.REMOVE),  # X/Z/D of type 3
        ("StationName", Action.EMPTY),  # X/Z/D of type 2
        ("DeviceSerialNumber", Action.DUMMY),  # X/Z/D of type 1
        ("ContentDate", Action.DUMMY),  # Z/D of type 1
        ("ObservationDateTime", Action.DUMMY),  # X/D of type 1
        ("SeriesDate", Action.REMOVE),  # X/D of type 3
        ("SourceImageSequence", Action.UID),  # X/Z/U*
    ],
)
def test_an_action_code_means_what_the_type_of_the_attribute_demands(keyword: str, action: Action) -> None:
    rule = rule_of(Tag(keyword))
    assert rule is not None
    assert rule.keyword == keyword
    assert rule.action(BARE, ours=False) is action


@pytest.mark.parametrize(
    ("keyword", "option", "action"),
    [
        ("PatientAge", {"patient_characteristics": True}, Action.KEEP),
        ("StationName", {"device_identity": True}, Action.KEEP),
        ("StudyDate", {"dates": "shifted"}, Action.CLEAN),
        ("StudyDescription", {"clean_descriptors": True}, Action.CLEAN),
    ],
)
def test_an_option_has_its_say(keyword: str, option: dict[str, object], action: Action) -> None:
    rule = rule_of(Tag(keyword))
    assert rule is not None
    assert rule.action(BARE, ours=False) is not action
    assert rule.action(BARE.model_copy(update=option), ours=False) is action


def test_content_and_graphics_are_cleaned_in_results_of_this_node_alone() -> None:
    for keyword in ("ContentSequence", "GraphicAnnotationSequence", "UnformattedTextValue"):
        rule = rule_of(Tag(keyword))
        assert rule is not None
        assert rule.action(BARE, ours=True) is Action.CLEAN
        assert rule.action(BARE, ours=False) is Action.DUMMY


@pytest.mark.parametrize("tag", [0x50000010, 0x50FE3000, 0x60003000, 0x60224000])
def test_curves_and_overlays_are_rows_of_every_repeating_group(tag: int) -> None:
    rule = rule_of(Tag(tag))
    assert rule is not None
    assert rule.action(BARE, ours=False) is Action.REMOVE
