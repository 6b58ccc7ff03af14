"""A second viewer, dwv, draws our SEG where the finding is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.viewers import pictures
from tests.viewers.conftest import Viewers, pictures_of
from tests.viewers.made import results
from tests.viewers.phantoms import Look, as_bytes, mark, radiograph

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000), pytest.mark.peer("Orthanc", "chromium", "node")]

LOOKS = {
    "cr": Look("CR"),
    "dx": Look("DX", None),
    "sc-jpeg": Look("SC"),
    "dx-monochrome1": Look("DX", ("R", "F"), monochrome1=True, rows=520, columns=704),
}


def _wado(dataset: Dataset) -> str:
    return (
        f"/wado?requestType=WADO&contentType=application/dicom&studyUID={dataset.StudyInstanceUID}"
        f"&seriesUID={dataset.SeriesInstanceUID}&objectUID={dataset.SOPInstanceUID}"
    )


@pytest.fixture(scope="module")
def seen(viewers: Viewers) -> dict[str, Any]:
    """What dwv showed of each; the pictures are in artifacts/viewers/dwv-<name>."""
    cases: list[dict[str, Any]] = []
    for name, look in LOOKS.items():
        source = radiograph(look)
        source.PatientID = f"DWV-{name}"
        segmentation = results(source, look)["seg"]
        for one in (source, segmentation):
            viewers.pacs.upload(as_bytes(one))
        folder = str(pictures_of(f"dwv-{name}"))
        cases.append({"name": name, "image": _wado(source), "mask": _wado(segmentation), "folder": folder})
    answers = viewers.drive("dwv.mjs", cases)
    for case in cases:
        answers[case["name"]]["folder"] = Path(case["folder"])
    return answers


@pytest.mark.parametrize("name", sorted(LOOKS))
def test_the_segment_is_drawn_on_the_mark(name: str, seen: dict[str, Any]) -> None:
    case, look = seen[name], LOOKS[name]
    assert "failed" not in case, case
    assert case["faults"] == []
    hidden = pictures.read(case["folder"] / "dwv-hidden.png")
    drawn = pictures.changed(hidden, pictures.read(case["folder"] / "dwv-shown.png"))
    place = pictures.place_of_radiograph(hidden)
    expected = pictures.on_screen(mark(look.rows, look.columns), place, hidden.shape[:2])
    assert pictures.overlap(drawn, expected) >= 0.95
