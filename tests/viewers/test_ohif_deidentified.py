"""OHIF draws a de-identified segmentation and report on their de-identified radiograph, where the finding is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.viewers import test_ohif
from tests.viewers.conftest import Viewers, pictures_of
from tests.viewers.made import results
from tests.viewers.phantoms import Look, radiograph
from tests.workers.deidentification.samples import SUBJECT, deidentifier, written
from workers.deidentification.study import IMAGE, Original, deidentify_object, words_of

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1000), pytest.mark.peer("Orthanc", "chromium", "node")]

LOOK = Look("DX", ("R", "F"), monochrome1=True, rows=520, columns=704)


@pytest.fixture(scope="module")
def case(viewers: Viewers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What OHIF showed of the study; the pictures are in artifacts/viewers/ohif-deidentified."""
    folder, profile = tmp_path_factory.mktemp("originals"), deidentifier()
    source = radiograph(LOOK)
    source.ImageType, source.BurnedInAnnotation = ["ORIGINAL", "PRIMARY"], "NO"
    made = results(source, LOOK)
    objects = {IMAGE: source, "seg": made["seg"], "sr": made["sr"]}
    originals = [Original(kind, "", written(each, folder / f"{kind}.dcm")) for kind, each in objects.items()]
    forbidden = frozenset[str]().union(*(words_of(each, profile) for each in originals))
    outcomes = {each.kind: deidentify_object(each, SUBJECT, profile, forbidden) for each in originals}
    for outcome in outcomes.values():
        viewers.pacs.upload(outcome.content)
    name = "deidentified"
    pictures = pictures_of(f"ohif-{name}")
    asked = {
        "name": name,
        "study": outcomes[IMAGE].path.split("/")[1],
        "seg": int(made["seg"].SeriesNumber),
        "sr": int(made["sr"].SeriesNumber),
        "folder": str(pictures),
    }
    answer = viewers.drive("ohif.mjs", [asked], size={"width": 1400, "height": 1000})[name]
    assert "failed" not in answer, answer
    return {"look": LOOK, **answer, "folder": pictures}


@pytest.mark.parametrize(
    "check",
    [
        test_ohif.test_the_segment_is_drawn_on_the_mark,
        test_ohif.test_the_report_outlines_the_mark,
        test_ohif.test_the_values_are_shown_with_the_outline,
        test_ohif.test_the_segment_has_its_name,
        test_ohif.test_the_viewer_finds_no_fault,
    ],
    ids=lambda check: check.__name__,
)
def test_it_looks_as_before(case: dict[str, Any], check: Any) -> None:
    check(case)
