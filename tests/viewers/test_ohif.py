"""OHIF in a real browser draws our SEG and SR where the finding is, for each kind of source.

The expected region is the drawn mark: it comes from the test and from the picture itself, never from our encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.viewers import pictures
from tests.viewers.conftest import Viewers, pictures_of
from tests.viewers.made import PROBABILITY, results
from tests.viewers.phantoms import Look, as_bytes, mark, radiograph
from workers.results.finding_text import Area, area_value

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000), pytest.mark.peer("Orthanc", "chromium", "node")]

LOOKS = {
    "cr": Look("CR"),
    "sc-jpeg": Look("SC"),
    # MONOCHROME1, wider than high, seen from behind.
    "dx-monochrome1": Look("DX", ("R", "F"), monochrome1=True, rows=520, columns=704),
    # As real files are: nothing is known about size or sides.
    "cr-bare": Look("CR", None, spacing=None),
}
LEAST_OVERLAP = 0.95


@pytest.fixture(scope="module")
def seen(viewers: Viewers) -> dict[str, Any]:
    """What OHIF showed of each study; the pictures are in artifacts/viewers/ohif-<name>."""
    cases: list[dict[str, Any]] = []
    for name, look in LOOKS.items():
        source = radiograph(look)
        source.PatientID = f"PHANTOM-{name}"
        made = results(source, look)
        for one in (source, made["seg"], made["sr"]):
            viewers.pacs.upload(as_bytes(one))
        cases.append(
            {
                "name": name,
                "study": str(source.StudyInstanceUID),
                "seg": int(made["seg"].SeriesNumber),
                "sr": int(made["sr"].SeriesNumber),
                "folder": str(pictures_of(f"ohif-{name}")),
            }
        )
    answers = viewers.drive("ohif.mjs", cases, size={"width": 1400, "height": 1000})
    for case in cases:
        answers[case["name"]]["folder"] = Path(case["folder"])
    return answers


@pytest.fixture(params=sorted(LOOKS))
def case(request: pytest.FixtureRequest, seen: dict[str, Any]) -> dict[str, Any]:
    one: dict[str, Any] = {"look": LOOKS[request.param], **seen[request.param]}
    assert "failed" not in one, one
    return one


def _regions(case: dict[str, Any], hidden: str) -> tuple[pictures.Picture, pictures.Region]:
    """A screenshot without overlay, and the mark's region in it by the test's own arithmetic."""
    picture = pictures.read(case["folder"] / hidden)
    look: Look = case["look"]
    place = pictures.place_of_radiograph(picture)
    height, width = place.bottom - place.top, place.right - place.left
    assert height / width == pytest.approx(look.rows / look.columns, rel=0.01), "the viewer distorts the radiograph"
    return picture, pictures.on_screen(mark(look.rows, look.columns), place, picture.shape[:2])


def test_the_segment_is_drawn_on_the_mark(case: dict[str, Any]) -> None:
    hidden, expected = _regions(case, "hidden.png")
    drawn = pictures.changed(hidden, pictures.read(case["folder"] / "shown.png"))
    assert pictures.overlap(drawn, expected) >= LEAST_OVERLAP
    assert pictures.overlap(drawn, pictures.mark_seen(hidden)) >= LEAST_OVERLAP


def test_a_mirrored_or_turned_segment_would_be_noticed(case: dict[str, Any]) -> None:
    hidden, expected = _regions(case, "hidden.png")
    drawn = pictures.changed(hidden, pictures.read(case["folder"] / "shown.png"))
    for wrong in (np.fliplr(drawn), np.flipud(drawn), np.rot90(drawn, 2), np.roll(drawn, 12, axis=1)):
        assert pictures.overlap(wrong, expected) < LEAST_OVERLAP


def test_the_report_outlines_the_mark(case: dict[str, Any]) -> None:
    hidden, expected = _regions(case, "contour-hidden.png")
    regions = [pictures.inside(line, hidden.shape[:2]) for line in case["report"]["lines"] if len(line) > 2]
    assert max(pictures.overlap(region, expected) for region in regions) >= LEAST_OVERLAP
    line = pictures.changed(hidden, pictures.read(case["folder"] / "contour-shown.png"))
    grown = expected | np.roll(expected, 3, 0) | np.roll(expected, -3, 0)
    grown |= np.roll(grown, 3, 1) | np.roll(grown, -3, 1)
    assert (line & grown & ~_shrunk(expected)).any(), "the outline is in the page but not in the picture"


def _shrunk(region: pictures.Region) -> pictures.Region:
    inner = region & np.roll(region, 3, 0) & np.roll(region, -3, 0)
    return inner & np.roll(inner, 3, 1) & np.roll(inner, -3, 1)


def test_the_values_are_shown_with_the_outline(case: dict[str, Any]) -> None:
    look: Look = case["look"]
    words = "\n".join(case["report"]["words"])
    assert f"Probability: {PROBABILITY:.2f}" in words
    if look.spacing is None:
        assert "mm2" not in words, "an area in mm² from an image of unknown spacing"
        assert "cm2" not in words
    else:
        millimetres = mark(look.rows, look.columns).sum() * look.spacing**2
        value, unit = area_value(Area(0, 0.0, millimetres, ""))
        assert f"{value:.2f} {unit.value}" in words


def test_the_segment_has_its_name(case: dict[str, Any]) -> None:
    (segmentation,) = case["segmentation"]
    (label,) = segmentation["segments"]
    assert "Pneumothorax" in label


def test_no_side_marker_is_invented(case: dict[str, Any]) -> None:
    """The nominal geometry of our SEG says nothing about the patient, and the viewer must not think that it does."""
    assert case["markers"] == {"image": [], "segmentation": [], "report": []}


def test_the_viewer_finds_no_fault(case: dict[str, Any]) -> None:
    assert case["faults"] == []
