"""Whose outline is drawn over which finding: matched by tracking UID, never by label or by place in a list."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmwrite

from db.feedback import IdentifiedFinding
from db.records import FindingRecord
from db.shown_records import JobDetail
from db.states import JobState
from models.contract import Lesion
from models.radiograph.reading import read_model_input
from node.web.explanation import _prediction
from node.web.pages.study import _segments_of
from node.web.rendering import Radiographs
from tests.workers.results.sources import CREATED_AT, analysis, corner_mask, finding
from workers.job_outcome import finding_records
from workers.results import segmentation
from workers.results.encoder import Analysis
from workers.results.result_reader import segment_masks, tracked_masks


def _two_models() -> Analysis:
    """Two models that both know a pneumothorax and see it on different sides."""
    left = corner_mask()
    return analysis(findings=(finding(model="one", mask=left), finding(model="other", mask=left[:, ::-1].copy())))


def _identified(made: Analysis, model: str, tracking_uid: str | None = None) -> IdentifiedFinding:
    uid = made.identity.tracking(model, "pneumothorax") if tracking_uid is None else tracking_uid
    record = FindingRecord("pneumothorax", model, "1", 0.9, 0.5, present=True, shadow=False, tracking_uid=uid)
    return IdentifiedFinding(1, 1, record)


def test_each_finding_has_the_segment_of_its_own_model(tmp_path: Path) -> None:
    made = _two_models()
    seg = segmentation.encode(made)
    assert seg is not None
    dcmwrite(tmp_path / "seg.dcm", seg, enforce_file_format=True)
    segments = Radiographs(tmp_path, read_model_input).segments("seg.dcm")

    found = {model: _segments_of(_identified(made, model), segments) for model in ("one", "other", "third")}

    assert found["third"] == ()
    assert _segments_of(_identified(made, "one", ""), segments) == ()
    masks = segment_masks(seg)
    for model, expected in (("one", corner_mask()), ("other", corner_mask()[:, ::-1])):
        (segment,) = found[model]
        assert np.array_equal(masks[segment], expected)


def test_a_finding_of_several_lesions_is_drawn_with_all_of_them(tmp_path: Path) -> None:
    """Each lesion is a segment with a tracking UID of its own; the page knows them by the database's record."""
    whole = corner_mask() | corner_mask()[::-1, ::-1]
    lesions = (Lesion(corner_mask(), 0.9), Lesion(corner_mask()[::-1, ::-1], 0.6))
    alone = finding(model="one", label="nodule", mask=corner_mask())
    made = analysis(findings=(alone, finding(model="two", mask=whole, lesions=lesions)))
    seg = segmentation.encode(made)
    assert seg is not None
    dcmwrite(tmp_path / "seg.dcm", seg, enforce_file_format=True)
    (record,) = finding_records(replace(made.prediction, findings=made.prediction.findings[1:]), None, made.identity)
    assert [lesion.probability for lesion in record.lesions] == [0.9, 0.6]

    radiographs = Radiographs(tmp_path, read_model_input)
    numbers = _segments_of(IdentifiedFinding(1, 1, record), radiographs.segments("seg.dcm"))

    assert numbers == (2, 3)
    drawn = np.asarray(Image.open(io.BytesIO(radiographs.overlay("seg.dcm", numbers, (255, 0, 0)))))
    assert np.array_equal(drawn[..., 3] > 0, whole)
    with pytest.raises(LookupError, match="no segment 9"):
        radiographs.overlay("seg.dcm", (2, 9), (255, 0, 0))
    job = JobDetail(
        1, 1, "", 1, JobState.DONE, 1, False, "", "", None, {}, CREATED_AT, None, None, None, findings=(record,)
    )
    (predicted,) = _prediction(job, (64, 48), tracked_masks(seg), []).findings
    assert predicted.mask is not None
    assert np.array_equal(predicted.mask, whole)


def test_a_segmentation_of_an_earlier_revision_is_not_drawn() -> None:
    before = _two_models()
    seg = segmentation.encode(before)
    assert seg is not None

    assert replace(before.identity, revision=2).tracking("one", "pneumothorax") not in tracked_masks(seg)


def test_the_page_for_a_person_draws_them_so_too(tmp_path: Path) -> None:
    """Findings in another order than the segments, and one of them without a place."""
    made = _two_models()
    seg = segmentation.encode(made)
    assert seg is not None
    records = tuple(_identified(made, model).record for model in ("placeless", "other", "one"))
    job = JobDetail(
        1, 1, "", 1, JobState.DONE, 1, False, "", "", None, {}, CREATED_AT, None, None, None, findings=records
    )

    predicted = _prediction(job, (64, 48), tracked_masks(seg), [])

    placeless, other, one = predicted.findings
    assert placeless.mask is None
    assert other.mask is not None
    assert one.mask is not None
    assert np.array_equal(other.mask, corner_mask()[:, ::-1])
    assert np.array_equal(one.mask, corner_mask())
