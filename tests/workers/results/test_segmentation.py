"""The SEG: the mask bit for bit, read by others; where it lies; what it refers to."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom import Dataset

from models.contract import Spacing
from tests.workers.results.sources import (
    analysis,
    boxed,
    corner_mask,
    encode_all,
    finding,
    negative,
    shadow,
    source,
    two_masks,
    write,
)
from workers.results import segmentation
from workers.results.encoder import Analysis


def encoded(work: Analysis) -> Dataset:
    made = segmentation.encode(work)
    assert made is not None
    return made


@given(st.lists(arrays(np.bool_, (5, 7)).filter(np.any), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_frames_follow_each_other_without_a_gap(masks):
    made = encoded(
        analysis(source(shape=(5, 7)), tuple(finding(label=str(i), mask=mask) for i, mask in enumerate(masks)))
    )
    data = np.frombuffer(made.PixelData, dtype=np.uint8)
    bits = np.unpackbits(data, bitorder="little")[: 35 * len(masks)].reshape(-1, 5, 7)
    assert np.array_equal(bits.astype(bool), np.stack(masks))
    assert data.size % 2 == 0


@pytest.mark.parametrize("style", ["cr", "dx", "sc"])
@pytest.mark.parametrize("shape", [(64, 48), (33, 61)])
def test_pydicom_and_highdicom_read_the_masks_bit_for_bit(tmp_path, style, shape):
    findings = two_masks(shape)
    made = encoded(analysis(source(style, shape), findings))
    path = write(made, tmp_path / "seg.dcm")
    frames = pydicom.dcmread(path).pixel_array
    expected = np.stack([item.mask for item in findings if item.mask is not None])
    assert np.array_equal(frames.astype(bool), expected)
    read = highdicom.seg.segread(path)
    uid = str(source(style).SOPInstanceUID)
    by_source = read.get_pixels_by_source_instance([uid])
    assert np.array_equal(by_source[0].astype(bool), np.moveaxis(expected, 0, -1))
    assert [read.get_segment_description(number).segmented_property_type.meaning for number in (1, 2)] == [
        "Pneumothorax",
        "Opacity",
    ]


@pytest.mark.parametrize(
    ("shape", "count", "kind"),
    [
        ((33, 61), 2, "FRACTIONAL"),
        ((33, 61), 1, "BINARY"),
        # The first frame ends with a byte, whatever the columns are.
        ((40, 61), 2, "BINARY"),
        ((33, 64), 2, "BINARY"),
    ],
)
def test_bytes_stand_for_bits_only_where_a_frame_would_begin_within_a_byte(tmp_path, shape, count, kind):
    """highdicom and dcmqi read the same masks, and the report refers to them in the same way."""
    work = replace(analysis(source("dx", shape), two_masks(shape)[:count]), seg_storage="fractional")
    made = encode_all(work)
    assert made["seg"].SegmentationType == kind
    assert (made["seg"].BitsAllocated == 8) is (kind == "FRACTIONAL")
    expected = np.stack([item.mask for item in work.prediction.findings if item.mask is not None])
    path = write(made["seg"], tmp_path / "seg.dcm")
    read = highdicom.seg.segread(path).get_pixels_by_source_instance([str(work.source.SOPInstanceUID)])
    assert np.array_equal(read[0], np.moveaxis(expected, 0, -1).astype(read.dtype)), "0 % or 100 %"
    assert np.array_equal(np.stack(read_by_dcmqi(path, count)), expected)
    binary = encode_all(replace(work, seg_storage="binary"))
    assert made["sr"].ContentSequence == binary["sr"].ContentSequence


@pytest.mark.peer("dciodvfy")
def test_dciodvfy_accepts_bytes_for_bits(tmp_path):
    work = replace(analysis(source("dx", (33, 61)), two_masks((33, 61))), seg_storage="fractional")
    for kind, made in encode_all(work).items():
        path = write(made, tmp_path / f"{kind}.dcm")
        output = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace")
        assert [line for line in (output.stderr + output.stdout).splitlines() if line.startswith("Error")] == []


def test_dcmqi_reads_the_same_mask(tmp_path):
    mask = corner_mask((40, 56))
    made = encoded(analysis(source(shape=(40, 56)), (finding(mask=mask),)))
    (read,) = read_by_dcmqi(write(made, tmp_path / "seg.dcm"), 1)
    assert np.array_equal(read, mask)


def read_by_dcmqi(path: Path, count: int) -> list[np.ndarray]:
    """The masks of so many segments, ``bool[rows, columns]``; files of dcmqi lie beside the object afterwards."""
    program = str(Path(sys.executable).with_name("segimage2itkimage"))
    where = ["--inputDICOM", str(path), "--outputDirectory", str(path.parent)]
    subprocess.run([program, *where, "--outputType", "nrrd", "--prefix", "m"], check=True, capture_output=True)
    return [read_nrrd(path.with_name(f"m-{number}.nrrd"))[0] > 0 for number in range(1, count + 1)]


def read_nrrd(path: Path) -> np.ndarray:
    """A gzip or raw NRRD of 8 or 16 bit as ``[slices, rows, columns]``."""
    import gzip

    head, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    raw = gzip.decompress(data) if fields["encoding"].startswith("gz") else data
    kind = {"short": "<i2", "unsigned char": "u1", "uint8": "u1", "unsigned short": "<u2"}[fields["type"]]
    return np.frombuffer(raw, kind).reshape([int(size) for size in fields["sizes"].split()][::-1])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("orientation", [["L", "F"], ["R", "F"], ["F", "L"], ["R", "H"], ""])
def test_left_is_left_and_top_is_top(tmp_path, photometric, orientation):
    """The stored bit of the pixel at row 1, column 2 is the second row's third, whatever the orientation says."""
    mask = np.zeros((64, 48), dtype=bool)
    mask[1, 2] = mask[1, 3] = mask[2, 2] = True
    header = source("dx", PhotometricInterpretation=photometric, PatientOrientation=orientation)
    made = encoded(analysis(header, (finding(mask=mask),)))
    frame = pydicom.dcmread(write(made, tmp_path / "seg.dcm")).pixel_array
    assert sorted(map(tuple, np.argwhere(frame).tolist())) == [(1, 2), (1, 3), (2, 2)]
    assert (made.Rows, made.Columns) == (64, 48)


@pytest.mark.parametrize("findings", [negative(), boxed(), (shadow(),), (finding(mask=np.zeros((64, 48), bool)),)])
def test_no_mask_to_show_no_segmentation(findings):
    assert segmentation.encode(analysis(findings=findings)) is None


def test_a_shadow_finding_leaves_no_trace():
    made = encode_all(analysis(findings=(finding(mask=corner_mask()), shadow())))
    for item in made.values():
        assert "mass" not in str(item).lower()


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [(Spacing(0.5, 0.4, "detector"), [0.5, 0.4]), (None, [1, 1]), (Spacing(0, 0, "detector"), [1, 1])],
)
def test_pixel_spacing_is_the_sources_or_nominal(spacing, expected):
    made = encoded(analysis(spacing=spacing))
    assert list(made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing) == expected


def test_there_is_no_synthetic_frame_of_reference():
    assert "FrameOfReferenceUID" not in encoded(analysis())


def test_the_source_is_referenced_from_every_frame():
    header = source()
    made = encoded(analysis(header, two_masks()))
    for index, groups in enumerate(made.PerFrameFunctionalGroupsSequence, start=1):
        derived = groups.DerivationImageSequence[0]
        assert derived.DerivationCodeSequence[0].CodeValue == "113076"
        (image,) = derived.SourceImageSequence
        assert image.ReferencedSOPInstanceUID == header.SOPInstanceUID
        assert image.SpatialLocationsPreserved == "YES"
        assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert list(groups.FrameContentSequence[0].DimensionIndexValues) == [index, 1]
    assert made.SegmentsOverlap == "YES"


@pytest.mark.parametrize("part", [None, "", "CHEST", "THORAX", "TORAX", "CHEST PA", "RX-1"])
def test_body_part_is_chest_whatever_the_source_calls_it(part):
    """A word of the device's own would make a validator ask for a laterality."""
    made = encoded(analysis(source(BodyPartExamined=part)))
    assert made.BodyPartExamined == "CHEST"
