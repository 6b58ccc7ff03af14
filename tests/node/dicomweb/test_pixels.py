"""Frames of segmentations, asked for with dicomweb-client, are those that highdicom and pydicom read in the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import highdicom
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread

from db.queries.own_results import OwnResult
from db.user_tables import Role
from node.dicomweb.pixels import frames_of
from tests.node.dicomweb.conftest import DicomWeb
from tests.node.dicomweb.test_search import get, of_kind, path_of
from tests.workers.results.sources import analysis, finding, source, write
from workers.results import segmentation

SHAPES = [(33, 61), (5, 7), (511, 509), (64, 48)]


def unpacked(frame: bytes, rows: int, columns: int) -> NDArray[np.bool_]:
    """As OHIF does it: the first pixel of a frame is the lowest bit of its first byte."""
    bits = np.unpackbits(np.frombuffer(frame, np.uint8), count=rows * columns, bitorder="little")
    return bits.reshape(rows, columns).astype(bool)


def of_masks(masks: list[NDArray[np.bool_]], storage: str = "binary") -> Dataset:
    findings = tuple(finding(label=str(number), mask=mask) for number, mask in enumerate(masks))
    work = replace(analysis(source(shape=masks[0].shape), findings), seg_storage=storage)
    made = segmentation.encode(work)
    assert made is not None
    return made


@given(st.lists(arrays(np.bool_, (5, 7)).filter(np.any), min_size=1, max_size=9))
def test_each_frame_begins_with_a_byte(masks: list[NDArray[np.bool_]]) -> None:
    frames = frames_of(of_masks(masks), range(1, len(masks) + 1))
    assert frames is not None
    assert {len(each) for each in frames} == {5}, "35 bits in 5 bytes"
    assert all(np.array_equal(unpacked(each, 5, 7), mask) for each, mask in zip(frames, masks, strict=True))


@pytest.fixture(params=[(shape, storage) for shape in SHAPES for storage in ("binary", "fractional")], ids=str)
def served(request: pytest.FixtureRequest, dicomweb: DicomWeb) -> Iterator[OwnResult]:
    """A result of the server whose file is, meanwhile, a segmentation of three random segments."""
    (rows, columns), storage = request.param
    random = np.random.default_rng(rows)
    seg = of_kind(dicomweb, "seg")
    path = dicomweb.settings.store.folder / seg.path
    kept = path.read_bytes()
    try:
        write(of_masks(list(random.random((3, rows, columns)) > 0.5), storage), path)
        yield seg
    finally:
        path.write_bytes(kept)


def test_frames_of_a_segmentation_are_those_of_the_file(dicomweb: DicomWeb, served: OwnResult) -> None:
    path = dicomweb.settings.store.folder / served.path
    file, read = dcmread(path), highdicom.seg.segread(path)
    uids = (served.study_instance_uid, served.series_instance_uid, served.sop_instance_uid)
    frames = dicomweb.client(Role.RADIOLOGIST).retrieve_instance_frames(*uids, [3, 1, 2])
    rows, columns = file.Rows, file.Columns
    if file.BitsAllocated == 1:
        got = [unpacked(each, rows, columns) for each in frames]
    else:
        got = [np.frombuffer(each, np.uint8).reshape(rows, columns) > 0 for each in frames]
    by_segment = read.get_pixels_by_source_instance(read.get_source_image_uids()[0][2:], rescale_fractional=False)[0]
    for each, number in zip(got, (3, 1, 2), strict=True):
        assert np.array_equal(each, file.pixel_array[number - 1] > 0)
        assert np.array_equal(each, by_segment[..., number - 1] > 0)
    assert get(dicomweb, f"{path_of(served)}/frames/4")[0] == 404
    assert get(dicomweb, f"{path_of(served)}/frames/0")[0] == 404


def test_a_segmentation_is_rendered_white_on_black(dicomweb: DicomWeb, served: OwnResult) -> None:
    masks = dcmread(dicomweb.settings.store.folder / served.path).pixel_array > 0
    for path, expected in (("", masks.any(axis=0)), ("/frames/2", masks[1])):
        status, headers, body = get(dicomweb, f"{path_of(served)}{path}/rendered", Accept="image/png")
        assert (status, headers["Content-Type"]) == (200, "image/png")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(body))), np.where(expected, 255, 0))
    assert get(dicomweb, f"{path_of(served)}/frames/4/rendered")[0] == 404
    assert get(dicomweb, f"{path_of(served)}/frames/1,2/rendered")[0] == 406
