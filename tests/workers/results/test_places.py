"""Sides and zones of findings in the lungs: in the first sentence, in the report's sites and in the SEG's region."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from models.contract import Finding, Hanging, LungInvolvement, LungShare, Zone
from models.lung_fields import LUNG
from models.model_spec import Code
from tests.workers.results.sources import LUNG_OPACITY, analysis, corner_mask, encode_all, finding, source, write
from tests.workers.results.test_objects import complaints
from workers.results import codes
from workers.results.codes import read_code
from workers.results.encoder import Analysis
from workers.results.finding_text import Site, share_text, side_code, site_of, sites_of, statements
from workers.results.headline import sentence_of
from workers.results.result_reader import read_result

UP, LOW, ALL = (Zone.UPPER,), (Zone.MIDDLE, Zone.LOWER), tuple(Zone)
UPPER, MIDDLE, LOWER = (codes.ZONES[zone] for zone in Zone)


def opacity(left: tuple[Zone, ...], right: tuple[Zone, ...], hanging: Hanging = Hanging.USUAL) -> Finding:
    """Lung opacity in these zones of the lungs on the left and on the right of the picture."""
    lungs = LungInvolvement(LungShare(0.2 * bool(left), left), LungShare(0.3 * bool(right), right))
    place = {"mask": corner_mask(), "site": LUNG, "lungs": lungs, "hanging": hanging}
    return finding(label="lung_opacity", code=LUNG_OPACITY, probability=0.82, **place)


def made_of(found: Finding, orientation: list[str] | None = None) -> Analysis:
    return analysis(source(PatientOrientation=["L", "F"] if orientation is None else orientation), (found,))


CASES = [
    (UP, (), ["L", "F"], [(UPPER, codes.RIGHT)], "lung opacity right upper zone, 82 %"),
    (
        (),
        LOW,
        ["L", "F"],
        [(MIDDLE, codes.LEFT), (LOWER, codes.LEFT)],
        "lung opacity left middle and lower zones, 82 %",
    ),
    (UP, (), ["R", "F"], [(UPPER, None)], "lung opacity upper zone, 82 %"),
    (UP, (), "", [(UPPER, None)], "lung opacity upper zone, 82 %"),
    (UP, UP, ["L", "F"], [(UPPER, codes.RIGHT), (UPPER, codes.LEFT)], "lung opacity both lungs, 82 %"),
    (UP, UP, "", [(UPPER, None)], "lung opacity upper zone, 82 %"),
    (ALL, (), ["L", "F"], [(LUNG, codes.RIGHT)], "lung opacity right, 82 %"),
    (ALL, LOW, "", [(LUNG, None), (MIDDLE, None), (LOWER, None)], "lung opacity, 82 %"),
]


@pytest.mark.parametrize(("left", "right", "orientation", "sites", "sentence"), CASES)
def test_every_lung_and_zone_is_a_site(left, right, orientation, sites, sentence) -> None:
    made = made_of(opacity(left, right), orientation)
    found = made.prediction.findings[0]
    assert sites_of(made, found) == tuple(Site(*site) for site in sites)
    assert sentence in sentence_of(made, statements(made))
    one = site_of(made, found)
    assert one == (Site(*sites[0]) if len(sites) == 1 else Site(LUNG, side_code(made, found)))


def test_a_lung_at_the_edge_is_said_where_nothing_was_found() -> None:
    made = made_of(finding(label="lung_opacity", code=LUNG_OPACITY, probability=0.1, site=LUNG))
    cut = replace(made, prediction=replace(made.prediction, lungs_cut=True))
    assert sentence_of(made, statements(made)) == "AI: no finding above its threshold"
    assert (
        sentence_of(cut, statements(cut)) == "AI: no finding above its threshold; a lung reaches the edge of the image"
    )
    assert "not seen" in statements(cut)[0].remark
    assert "edge" not in statements(made)[0].remark


def test_a_mirrored_chest_with_its_orientation_has_its_side() -> None:
    made = made_of(opacity(UP, (), Hanging.MIRRORED), ["R", "F"])
    assert sites_of(made, made.prediction.findings[0]) == (Site(UPPER, codes.LEFT),)


@pytest.mark.parametrize("orientation", [["L", "F"], ["F", "L"], ["A", "F"], ""])
def test_a_mirrored_chest_that_says_otherwise_has_none(orientation) -> None:
    made = made_of(opacity(UP, (), Hanging.MIRRORED), orientation)
    assert sites_of(made, made.prediction.findings[0]) == (Site(UPPER, None),)
    objects = encode_all(made)
    assert not laterality(objects["sr"])
    assert "AnatomicRegionModifierSequence" not in objects["seg"].SegmentSequence[0].AnatomicRegionSequence[0]


@pytest.mark.parametrize(
    ("left", "right", "orientation", "shares"),
    [
        (UP, (), ["L", "F"], "20 % of the right lung."),
        (UP, LOW, ["L", "F"], "20 % of the right lung and 30 % of the left lung."),
        (UP, LOW, "", "20 % of one lung and 30 % of one lung."),
        (UP, (), ["R", "F"], "20 % of one lung."),
    ],
)
def test_the_report_says_how_much_of_each_lung_is_covered(left, right, orientation, shares) -> None:
    made = made_of(opacity(left, right), orientation)
    assert share_text(made, made.prediction.findings[0]) == shares
    comments = [str(element.value) for element in encode_all(made)["sr"].iterall() if element.VR == "UT"]
    assert any(shares in comment for comment in comments)
    assert share_text(made, finding()) == ""


def laterality(item: Dataset) -> list[str]:
    """Every laterality in a tree of content items."""
    found = []
    for child in item.get("ContentSequence") or ():
        if read_code(child.ConceptNameCodeSequence[0]).value == codes.LATERALITY.value:
            found.append(read_code(child.ConceptCodeSequence[0]).meaning)
        found += laterality(child)
    return found


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize(("left", "right", "orientation"), [case[:3] for case in CASES])
def test_objects_with_zones_are_valid_and_read_back(tmp_path, left, right, orientation) -> None:
    made = made_of(opacity(left, right), orientation)
    objects = encode_all(made)
    for kind, encoded in objects.items():
        errors, warnings = complaints(write(encoded, tmp_path / f"{kind}.dcm"))
        assert (errors, warnings) == ([], [])
    predicted = side_code(made, made.prediction.findings[0])
    assert set(laterality(objects["sr"])) == {side.meaning for side in sides_of(made)}
    region = objects["seg"].SegmentSequence[0].AnatomicRegionSequence[0]
    assert read_code(region) == site_of(made, made.prediction.findings[0]).code
    assert ("AnatomicRegionModifierSequence" in region) == (predicted is not None)
    read = [item.side for item in read_result(objects["sr"]).statements if "Opacity" in item.label]
    assert set(read) == {predicted.meaning if predicted is not None else ""}


def sides_of(made: Analysis) -> set[Code]:
    return {site.side for site in sites_of(made, made.prediction.findings[0]) if site.side is not None}
