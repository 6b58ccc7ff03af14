"""OHIF draws the lung fields where the lungs are, beside the findings' own segmentation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from sqlalchemy import text

from db.user_tables import Role
from models.contract import Hanging, Mask
from models.lung_fields import LungFields
from models.radiograph.geometry import Letterbox
from tests.node.dicomweb.conftest import VIEWERS, running_dicomweb, with_results
from tests.viewers import pictures, test_ohif
from tests.viewers.conftest import Viewers, pictures_of
from tests.viewers.made import analysis, results
from tests.viewers.origin import OwnServer
from tests.viewers.phantoms import Look, as_bytes, radiograph
from workers.results.lung_segmentation import encode

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1000), pytest.mark.peer("Orthanc", "chromium", "node")]

LOOK = Look("DX", ("R", "F"), monochrome1=True, rows=520, columns=704)
# Neither rows nor columns in whole bytes: Orthanc gives OHIF no frame of one bit a pixel.
ODD = Look("DX", ("R", "F"), monochrome1=True, rows=521, columns=707)
CELL = 8
# Rows and columns of the network's map: the lung on the left of the picture, and the smaller one on its right.
LUNGS = ((slice(14, 50), slice(14, 36)), (slice(18, 42), slice(54, 72)))


def drawn(number: int, cell: int = 1) -> Mask:
    """A lung on a grid that is so many times finer than the map, which is of :data:`LOOK`."""
    mask = np.zeros((LOOK.rows // CELL * cell, LOOK.columns // CELL * cell), np.bool_)
    rows, columns = LUNGS[number]
    mask[rows.start * cell : rows.stop * cell, columns.start * cell : columns.stop * cell] = True
    return mask


def fields(look: Look) -> LungFields:
    lungs = drawn(0), drawn(1)
    sure = np.where(lungs[0] | lungs[1], np.float32(0.95), np.float32(0.05))
    letterbox = Letterbox(look.rows, look.columns, *lungs[0].shape)
    return LungFields(lungs, Hanging.MIRRORED, letterbox, sure, "chest")


# How the segmentation is stored, and who gives OHIF its frames.
CASES = {
    "binary": (LOOK, "binary", "archive"),
    "fractional": (ODD, "fractional", "archive"),
    "odd": (ODD, "binary", "node"),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, viewers: Viewers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What OHIF showed of the study; the pictures are in artifacts/viewers/ohif-lungs-<case>."""
    look, storage, server = CASES[request.param]
    source = radiograph(look)
    source.PatientID = f"PHANTOM-lungs-{request.param}"
    work = replace(analysis(source, look), seg_storage=storage)
    lungs = encode(replace(work, prediction=replace(work.prediction, lung_fields=fields(look))))
    assert lungs is not None
    assert lungs.SegmentationType == storage.upper()
    for one in (source, results(source, look)["seg"], lungs):
        viewers.pacs.upload(as_bytes(one))
    folder = pictures_of(f"ohif-lungs-{request.param}")
    asked = {"study": str(source.StudyInstanceUID), "seg": int(lungs.SeriesNumber), "folder": str(folder)}
    with _given_by(server, lungs, viewers, tmp_path_factory.mktemp("node")):
        answer = viewers.drive("ohif.mjs", [{"name": "lungs", **asked}], size={"width": 1400, "height": 1000})["lungs"]
    assert "failed" not in answer, answer
    return {**answer, "folder": folder}


@contextmanager
def _given_by(server: str, lungs: Dataset, viewers: Viewers, folder: Path) -> Iterator[None]:
    """Let a node's own DICOMweb server give the segmentation, where it is not Orthanc that does."""
    if server == "archive":
        yield
        return
    own = next(one for one in with_results(folder) if one.kind == "lungs")
    (folder / own.path).write_bytes(as_bytes(lungs))
    with running_dicomweb(folder, destinations=[VIEWERS]) as node:
        with node.engine.begin() as connection:
            result = {"id": own.id, "sop": str(lungs.SOPInstanceUID), "series": str(lungs.SeriesInstanceUID)}
            named = "update results set sop_instance_uid = :sop, series_instance_uid = :series where id = :id"
            connection.execute(text(named), result)
            study = {"id": own.study_id, "uid": str(lungs.StudyInstanceUID)}
            connection.execute(text("update studies set study_instance_uid = :uid where id = :id"), study)
        token = node.tokens[Role.RADIOLOGIST]
        viewers.origin.ask(OwnServer(node.port, token, frozenset({str(lungs.SeriesInstanceUID)})))
        try:
            yield
            with node.engine.connect() as connection:
                seen = connection.scalars(text("select detail from audit where action = 'view study'")).all()
            assert "1 object pixels read by WADO-RS" in seen, "OHIF did not ask the node for frames"
        finally:
            viewers.origin.ask(None)


def test_both_lungs_are_drawn_and_named(case: dict[str, Any]) -> None:
    hidden, shown = (pictures.read(case["folder"] / f"{name}.png") for name in ("hidden", "shown"))
    place = pictures.place_of_radiograph(hidden)
    expected = pictures.on_screen(drawn(0, CELL) | drawn(1, CELL), place, hidden.shape[:2])
    assert pictures.overlap(pictures.changed(hidden, shown), expected) >= test_ohif.LEAST_OVERLAP
    (segmentation,) = case["segmentation"]
    assert segmentation["segments"] == ["Right lung", "Left lung"]
    assert case["faults"] == []
    assert case["markers"] == {"image": [], "segmentation": []}
