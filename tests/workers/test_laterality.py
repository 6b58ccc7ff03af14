"""The side of a finding, from its mask or its boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from db.records import FindingRecord
from models.contract import Box, Finding, Hanging, LungInvolvement, LungShare, ModelUse, Zone
from models.model_spec import Code
from models.radiograph.orientation import patient_orientation
from node.cli.worklist import finding_text
from node.web.formatting import Formatting
from tests.workers.results.sources import analysis, finding, source
from workers.job_outcome import finding_records
from workers.laterality import place_text, side_of, zones_of
from workers.results import codes
from workers.results.finding_text import side_code

CODE = Code("36118008", "SCT", "Pneumothorax")


def _finding(columns: slice | None = None, *boxes: Box) -> Finding:
    mask = None
    if columns is not None:
        mask = np.zeros((10, 100), dtype=bool)
        mask[2:5, columns] = True
    return Finding("pneumothorax", CODE, "chest", 0.9, 0.5, mask=mask, boxes=boxes)


SHAPE = (10, 100)


@pytest.mark.parametrize(
    ("columns", "side"),
    [(slice(10, 30), "right"), (slice(60, 90), "left"), (slice(30, 70), "both"), (slice(10, 48), "both")],
)
def test_a_place_has_a_side_where_the_orientation_tells_it(columns: slice, side: str) -> None:
    mirrored = {"left": "right", "right": "left"}.get(side, side)

    assert side_of(_finding(columns), SHAPE, ("L", "F")) == side
    assert side_of(_finding(columns), SHAPE, ("R", "F")) == mirrored


@pytest.mark.parametrize("orientation", [None, ("A", "F"), ("LF", "H")])
def test_a_side_is_never_guessed(orientation: tuple[str, str] | None) -> None:
    """Not even that of a radiograph that hangs as usual, the patient's right on the left."""
    assert side_of(_finding(slice(10, 30)), SHAPE, orientation) == "unknown"
    assert side_of(_finding(None, Box(5, 0, 20, 10, 0.9)), SHAPE, orientation) == "unknown"


@pytest.mark.parametrize("orientation", [None, ("L", "F")])
def test_what_shows_no_place_has_no_side(orientation: tuple[str, str] | None) -> None:
    assert side_of(_finding(slice(0, 0)), SHAPE, orientation) == ""
    assert side_of(_finding(None), SHAPE, orientation) == ""


def test_boxes() -> None:
    right, left = Box(5, 0, 20, 10, 0.9), Box(60, 0, 30, 10, 0.8)
    assert side_of(_finding(None, right), SHAPE, ("L", "F")) == "right"
    assert side_of(_finding(None, left), SHAPE, ("L", "F")) == "left"
    assert side_of(_finding(None, right, left), SHAPE, ("L", "F")) == "both"
    assert side_of(_finding(None, Box(45, 0, 40, 10, 0.9)), SHAPE, ("L", "F")) == "both"


@pytest.mark.parametrize("value", [None, ["L", "F"], ["R", "F"], ["F", "L"], ["A", "F"], ["L", "R"]])
@pytest.mark.parametrize("columns", [slice(2, 12), slice(30, 46), slice(20, 28)])
def test_database_report_and_segmentation_name_the_same_side(value: list[str] | None, columns: slice) -> None:
    mask = np.zeros((64, 48), dtype=bool)
    mask[2:20, columns] = True
    image = source(PatientOrientation=value)
    made = analysis(image, (finding(mask=mask),))

    (record,) = finding_records(made.prediction, None, None, patient_orientation(image))
    code = side_code(made, made.prediction.findings[0])

    assert {"left": codes.LEFT, "right": codes.RIGHT}.get(record.side) == code


def _in_lungs(left: tuple[Zone, ...], right: tuple[Zone, ...], hanging: Hanging = Hanging.USUAL) -> Finding:
    """A finding that a mask near the middle would put on both sides, in the lungs on the picture's left and right."""
    finding = _finding(slice(40, 60))
    return replace(finding, lungs=LungInvolvement(LungShare(0.1, left), LungShare(0.1, right)), hanging=hanging)


UP, LOW = (Zone.UPPER,), (Zone.MIDDLE, Zone.LOWER)


@pytest.mark.parametrize(("left", "right", "side"), [(UP, (), "right"), ((), LOW, "left"), (UP, LOW, "both")])
def test_the_lung_decides_the_side_where_lungs_were_found(
    left: tuple[Zone, ...], right: tuple[Zone, ...], side: str
) -> None:
    mirrored = {"left": "right", "right": "left"}.get(side, side)
    assert side_of(_in_lungs(left, right), SHAPE, ("L", "F")) == side
    assert side_of(_in_lungs(left, right, Hanging.MIRRORED), SHAPE, ("R", "F")) == mirrored
    assert side_of(_in_lungs(left, right, Hanging.UNSURE), SHAPE, ("L", "F")) == side
    assert side_of(_in_lungs(left, right, Hanging.UNSURE), SHAPE, ("R", "F")) == mirrored


@pytest.mark.parametrize(
    ("hanging", "orientation"),
    [
        (Hanging.MIRRORED, ("L", "F")),
        (Hanging.USUAL, ("R", "F")),
        (Hanging.USUAL, None),
        (Hanging.USUAL, ("F", "L")),
        (Hanging.USUAL, ("P", "F")),
    ],
    ids=["mirrored image", "wrong header", "no header", "lying header", "lateral header"],
)
def test_no_side_is_told_where_anatomy_and_header_do_not_agree(
    hanging: Hanging, orientation: tuple[str, str] | None
) -> None:
    """Least of all from the anatomy alone: a mirrored image and a heart on the right look the same."""
    assert side_of(_in_lungs(UP, (), hanging), SHAPE, orientation) == "unknown"
    for other in (_finding(slice(10, 30)), _finding(None, Box(5, 0, 20, 10, 0.9))):
        assert side_of(replace(other, hanging=hanging), SHAPE, orientation) == "unknown", "whatever the finding is"


def test_the_database_keeps_zones_and_the_larger_share() -> None:
    lungs = LungInvolvement(LungShare(0.2, UP), LungShare(0.35, LOW))
    made = analysis(source(PatientOrientation=["L", "F"]), (finding(mask=np.ones((64, 48), bool), lungs=lungs),))
    (record,) = finding_records(made.prediction, None, None, ("L", "F"))
    assert (record.side, record.zones, record.lung_share) == ("both", "upper,middle,lower", 0.35)
    (record,) = finding_records(replace(made.prediction, findings=(finding(),)), None, None, ("L", "F"))
    assert (record.side, record.zones, record.lung_share) == ("", "", None)


def test_the_database_keeps_whose_lungs_a_share_is_of() -> None:
    lungs = LungInvolvement(LungShare(0.2, UP), LungShare(0.35, LOW))
    found = finding(mask=np.ones((64, 48), bool), lungs=lungs)
    made = replace(analysis(source(), (found, finding())).prediction, lungs_by="fields")
    made = replace(made, models=(*made.models, ModelUse("fields", "2.1", "Fields", "0" * 64, "1.2.3")))
    assert [record.lungs_by for record in finding_records(made, None)] == ["fields 2.1", ""]


@pytest.mark.parametrize(
    ("side", "zones", "share", "shown"),
    [
        ("right", "lower", 0.32, "right lower zone, 32 % of the lung"),
        ("unknown", "lower", 0.32, "lower zone, side not told, 32 % of the lung"),
        ("both", "upper,lower", 0.32, "both lungs, 32 % of the lung"),
        ("left", "", None, "left"),
        ("", "", None, ""),
    ],
)
def test_page_and_terminal_say_where_it_is(side: str, zones: str, share: float | None, shown: str) -> None:
    record = FindingRecord("x", "m", "1", 0.8, 0.5, True, False, side=side, zones=zones, lung_share=share)
    assert Formatting().place(record) == shown
    words = shown.split(",")[0]
    assert finding_text(replace(record, present=False)) == "x not detected 0.8 (threshold 0.5)"
    whole = replace(record, probability=0.4, reason="follows from y", side="", zones="")
    assert finding_text(whole) == "x present 0.4 (threshold 0.5), follows from y"
    assert finding_text(record) == f"x present 0.8 (threshold 0.5){f', {words}' if words else ''}"


def test_zones_in_words() -> None:
    assert zones_of(_in_lungs(UP, LOW)) == (Zone.UPPER, Zone.MIDDLE, Zone.LOWER)
    assert zones_of(_finding(slice(10, 30))) == ()
    assert place_text("right", UP) == "right upper zone"
    assert place_text("left", LOW) == "left middle and lower zones"
    assert place_text("unknown", LOW) == "middle and lower zones"
    assert place_text("both", UP) == place_text("both", tuple(Zone)) == "both lungs"
    assert place_text("both", ()) == place_text("unknown", ()) == place_text("unknown", tuple(Zone)) == ""
    assert place_text("left", tuple(Zone)) == place_text("left", ()) == "left"
