"""The SEG of both lungs: which is which, on the source's grid, and that nothing takes it for a finding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from models.contract import Hanging, Mask, ModelUse
from models.radiograph.geometry import Letterbox
from tests.workers.results.sources import MODEL, analysis, encode_all, lung_fields, negative, source, write
from tests.workers.results.test_objects import complaints
from tests.workers.results.test_segmentation import read_by_dcmqi
from workers.results import codes, lung_segmentation
from workers.results.codes import read_code
from workers.results.encoder import Analysis
from workers.results.result_reader import as_lines, problems, read_masks, read_result

NETWORK = ModelUse("chest-lungs", "1.0.0", "Pleura lung fields", "cd" * 32, "2.25.77")


def work(orientation: object = ("L", "F"), hanging: Hanging = Hanging.USUAL, **changes: Any) -> Analysis:
    """A negative image whose lungs another network has found than its findings."""
    header = source(PatientOrientation=list(orientation) if isinstance(orientation, tuple) else orientation, **changes)
    made = analysis(header, negative())
    fields = lung_fields((int(header.Rows), int(header.Columns)), hanging, model=NETWORK.name)
    return replace(made, prediction=replace(made.prediction, models=(MODEL, NETWORK), lung_fields=fields))


def encoded(made: Analysis) -> Dataset:
    found = lung_segmentation.encode(made)
    assert found is not None
    return found


def sides(made: Dataset) -> list[tuple[str, str, str]]:
    """Label, and the side by the modifiers of type and region, of each segment."""
    found = []
    for segment in made.SegmentSequence:
        (kind,), (region,) = segment.SegmentedPropertyTypeCodeSequence, segment.AnatomicRegionSequence
        assert read_code(kind) == read_code(region) == codes.LUNG
        both = (
            kind.get("SegmentedPropertyTypeModifierCodeSequence"),
            region.get("AnatomicRegionModifierSequence"),
        )
        of_type, of_region = (read_code(each[0]).meaning if each else "" for each in both)
        found.append((str(segment.SegmentLabel), of_type, of_region))
    return found


RIGHT, LEFT = ("Right lung", "Right", "Right"), ("Left lung", "Left", "Left")
UNKNOWN = [(f"Lung {number} of 2, side unknown", "", "") for number in (1, 2)]


@pytest.mark.parametrize(
    ("orientation", "hanging", "expected", "first"),
    [
        (("L", "F"), Hanging.USUAL, [RIGHT, LEFT], 0),
        (("L", "F"), Hanging.UNSURE, [RIGHT, LEFT], 0),
        (("R", "F"), Hanging.MIRRORED, [RIGHT, LEFT], 1),
        (("R", "F"), Hanging.UNSURE, [RIGHT, LEFT], 1),
        (("L", "F"), Hanging.MIRRORED, UNKNOWN, 0),
        (("R", "F"), Hanging.USUAL, UNKNOWN, 0),
        (("F", "L"), Hanging.USUAL, UNKNOWN, 0),
        (("A", "F"), Hanging.USUAL, UNKNOWN, 0),
        ("", Hanging.USUAL, UNKNOWN, 0),
        (None, Hanging.MIRRORED, UNKNOWN, 0),
    ],
)
def test_the_right_lung_is_the_patients_right_one(orientation, hanging, expected, first) -> None:
    """The lung on the left of the picture is the longer one."""
    fields = work(orientation, hanging)
    made = encoded(fields)
    assert sides(made) == expected
    assert fields.prediction.lung_fields is not None
    drawn = fields.prediction.lung_fields.drawn()
    for mask, lung in zip(read_masks(made), (drawn[first], drawn[1 - first]), strict=True):
        assert np.array_equal(mask, lung)


def test_it_is_anatomy_and_names_the_network_that_drew_it() -> None:
    made = encoded(work())
    for segment in made.SegmentSequence:
        assert read_code(segment.SegmentedPropertyCategoryCodeSequence[0]) == codes.ANATOMICAL_STRUCTURE
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (NETWORK.title, NETWORK.version)
        assert "not a medical device" in segment.SegmentDescription.lower()
    equipment, *acquisition = made.ContributingEquipmentSequence
    assert NETWORK.digest in equipment.ContributionDescription
    assert equipment.DeviceUID == NETWORK.device_uid
    assert [item.Manufacturer for item in acquisition] == ["ACME"]
    assert MODEL.name not in str(made), "no other network has part in it"
    assert (made.SeriesNumber, made.SeriesDescription) == (9007, "Pleura AI lung fields (research use)")
    assert (made.ContentLabel, made.SegmentsOverlap) == ("PLEURA_LUNGS", "NO")


def test_no_other_object_knows_of_it() -> None:
    """Reports and the findings' SEG are the same bytes with lungs and without."""
    made = work()
    objects = encode_all(made)
    without = encode_all(replace(made, prediction=replace(made.prediction, lung_fields=None)))
    assert set(objects) == {"sr", "sc", "lungs"}
    assert {kind: str(item) for kind, item in objects.items() if kind != "lungs"} == {
        kind: str(item) for kind, item in without.items()
    }
    assert not {str(item.SeriesInstanceUID) for kind, item in objects.items() if kind != "lungs"} & {
        str(objects["lungs"].SeriesInstanceUID)
    }


def test_it_is_read_back_as_lungs_and_never_as_a_finding() -> None:
    made = work()
    read = read_result(encoded(made))
    assert (read.kind, problems([read], [made.source])) == ("lungs", [])
    assert [(item.label, item.side, item.answers) for item in read.statements] == [
        ("Right lung", "Right", ()),
        ("Left lung", "Left", ()),
    ]
    words = "\n".join(as_lines(read))
    assert "present" not in words
    assert "Pleura lung fields 1.0.0" in words


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("style", ["cr", "dx", "sc"])
@pytest.mark.parametrize("orientation", [("L", "F"), ("R", "F"), None])
def test_dciodvfy_accepts_it(tmp_path: Path, style: str, orientation: object) -> None:
    for shape in ((64, 48), (33, 61)):
        header = source(style, shape, PatientOrientation=list(orientation) if isinstance(orientation, tuple) else None)
        hanging = Hanging.MIRRORED if orientation == ("R", "F") else Hanging.USUAL
        made = analysis(header)
        made = replace(made, prediction=replace(made.prediction, lung_fields=lung_fields(shape, hanging)))
        assert complaints(write(encoded(made), tmp_path / "lungs.dcm")) == ([], [])


def test_others_read_the_same_masks(tmp_path: Path) -> None:
    """Highdicom, pydicom and dcmqi."""
    made = work(shape=(40, 56))
    assert made.prediction.lung_fields is not None
    drawn = made.prediction.lung_fields.drawn()
    path = write(encoded(made), tmp_path / "lungs.dcm")
    assert np.array_equal(dcmread(path).pixel_array.astype(bool), np.stack(drawn))
    read = highdicom.seg.segread(path)
    pixels = read.get_pixels_by_source_instance([str(made.source.SOPInstanceUID)])
    assert np.array_equal(pixels[0].astype(bool), np.moveaxis(np.stack(drawn), 0, -1))
    for mask, lung in zip(read_by_dcmqi(path, 2), drawn, strict=True):
        assert np.array_equal(mask, lung)


def middle(mask: Mask) -> tuple[float, float]:
    """The centre of a mask as shares of the image's height and width."""
    rows, columns = np.nonzero(mask)
    return float(rows.mean() + 0.5) / mask.shape[0], float(columns.mean() + 0.5) / mask.shape[1]


@pytest.mark.parametrize(
    ("shape", "aspect"), [((400, 400), 1.0), ((500, 300), 1.0), ((300, 500), 1.0), ((200, 400), 2.0), ((7, 11), 1.0)]
)
def test_it_lies_where_the_lungs_are_on_any_grid(shape: tuple[int, int], aspect: float) -> None:
    """Letterboxed, with pixels that are not square, and smaller than the network's own map."""
    whole = Letterbox(*shape, 128, 128, pixel_aspect=aspect)
    lungs = [np.zeros((128, 128), np.bool_) for _ in range(2)]
    height, width = whole.image_height, whole.image_width
    window = [lung[whole.top : whole.top + height, whole.left : whole.left + width] for lung in lungs]
    window[0][height // 4 : height * 3 // 4, width // 8 : width * 3 // 8] = True
    window[1][height // 2 : height * 3 // 4, width * 5 // 8 : width * 7 // 8] = True
    fields = lung_fields(lungs=tuple(lungs), letterbox=whole, lung=(lungs[0] | lungs[1]).astype(np.float32))
    made = analysis(source(shape=shape))
    made = replace(made, prediction=replace(made.prediction, lung_fields=fields))
    first, second = read_masks(encoded(made))
    assert first.shape == shape
    assert middle(first) == pytest.approx((0.5, 0.25), abs=0.05)
    assert middle(second) == pytest.approx((0.625, 0.75), abs=0.05)


def test_without_two_lungs_there_is_no_object() -> None:
    made = work()
    none = replace(made, prediction=replace(made.prediction, lung_fields=None))
    assert lung_segmentation.encode(none) is None
    thin = lung_fields(letterbox=Letterbox(1, 1, 64, 64))
    assert lung_segmentation.encode(replace(made, prediction=replace(made.prediction, lung_fields=thin))) is None
