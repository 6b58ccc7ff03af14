"""From a data set to a model's input: spacing, orientation, notes, and the tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from models.contract import Spacing
from models.model_spec import InputSpec
from models.radiograph.contrast import equalise, letterbox_for, prepare
from models.radiograph.reading import read_model_input, spacing_of
from tests.models.radiograph.test_grayscale import lut
from tests.models.samples import chestlike, model_input, radiograph, ramp, written


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": ["0.000", "0.000"]}, None),
        ({"PixelSpacing": [0.2]}, None),
        ({"PixelSpacing": [0.2, 0.3]}, Spacing(0.2, 0.3, "detector")),
        ({"PixelSpacing": [0.2, 0.3], "PixelSpacingCalibrationType": "FIDUCIAL"}, Spacing(0.2, 0.3, "patient")),
        (
            {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "GEOMETRY"},
            Spacing(0.2, 0.2, "detector"),
        ),
        (
            {"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "GEOMETRY"},
            Spacing(0.1, 0.1, "patient"),
        ),
        ({"PixelSpacing": ["0.000", "0.000"], "ImagerPixelSpacing": [0.2, 0.2]}, Spacing(0.2, 0.2, "detector")),
        (
            {"ImagerPixelSpacing": [0.2, 0.4], "EstimatedRadiographicMagnificationFactor": 1.25},
            Spacing(0.2 / 1.25, 0.4 / 1.25, "detector", magnification=1.25),
        ),
        (
            {"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 0},
            Spacing(0.2, 0.2, "detector"),
        ),
    ],
)
def test_spacing(attributes: dict[str, object], expected: Spacing | None) -> None:
    assert spacing_of(header(**attributes)) == expected


def test_reads_what_results_need(tmp_path: Path) -> None:
    dataset = radiograph(ramp(60, 40, 12), ViewPosition="PA ", PatientOrientation=["L", "F"], PixelSpacing=[0.4, 0.2])
    read = read_model_input(written(dataset, tmp_path / "image.dcm"))
    assert read.shape == (60, 40)
    assert read.sop_instance_uid == dataset.SOPInstanceUID
    assert read.view == "PA"
    assert read.patient_orientation == ("L", "F")
    assert read.pixel_aspect == 2.0
    assert read.notes


@pytest.mark.parametrize("orientation", [None, "", ["L"], ["L", ""]])
def test_an_unusable_orientation_is_none(orientation: object) -> None:
    assert read_model_input(radiograph(ramp(60, 40, 12), PatientOrientation=orientation)).patient_orientation is None


def test_pixel_aspect_comes_from_the_ratio_where_there_is_no_spacing() -> None:
    assert read_model_input(radiograph(ramp(60, 40, 12), PixelAspectRatio=[3, 2])).pixel_aspect == 1.5
    assert read_model_input(radiograph(ramp(60, 40, 12), PixelAspectRatio=[0, 2])).pixel_aspect == 1.0


@pytest.mark.peer("shared-data")
def test_the_same_radiograph_in_four_styles_is_read_alike(shared_data: Path) -> None:
    from PIL import Image

    read = 0
    for path in sorted((shared_data / "dicom").glob("*.dcm")):
        original = shared_data / "cxr" / "images" / f"{path.name.split('.')[0]}.jpg"
        if not original.exists():
            continue
        found = read_model_input(path)
        small = letterbox_for(found, InputSpec(128, 128)).forward(found.pixels)
        expected = np.asarray(Image.open(original).convert("L").resize((128, 128), Image.Resampling.BILINEAR)) / 255
        assert np.corrcoef(small.ravel(), expected.ravel())[0, 1] > 0.995, path.name
        assert np.abs(small - expected).mean() < 0.04, path.name
        read += 1
    assert read >= 18


@pytest.mark.peer("shared-data")
def test_rg1_reads_alike_in_every_transfer_syntax(shared_data: Path) -> None:
    data_store = pytest.importorskip("data_store", reason="pydicom-data is missing: pip install pydicom-data")
    folder = Path(data_store.__file__).parent / "data"
    lossless = read_model_input(folder / "RG1_UNCR.dcm")
    for path in [folder / "RG1_J2KR.dcm", folder / "RG1_J2KI.dcm", shared_data / "wg04" / "RG1_JLSN.dcm"]:
        assert np.abs(read_model_input(path).pixels - lossless.pixels).max() < 0.02
    assert dcmread(folder / "RG1_UNCR.dcm").PhotometricInterpretation == "MONOCHROME1"
    assert lossless.pixels[:, :20].mean() < lossless.pixels[900:1000, 900:1000].mean()


def test_a_tensor_has_the_range_channels_and_order_that_were_asked_for() -> None:
    image = model_input()
    plain = InputSpec(64, 48)
    base = prepare(image, letterbox_for(image, plain), plain)
    assert base.shape == (64, 48, 1)
    fancy = InputSpec(64, 48, 3, (-1.0, 1.0), (0.1, 0.2, 0.3), (0.5, 1.0, 2.0), layout="NCHW")
    tensor = prepare(image, letterbox_for(image, fancy), fancy)
    assert tensor.shape == (3, 64, 48)
    assert tensor.dtype == np.float32
    for channel, (mean, std) in enumerate(zip(fancy.mean, fancy.std, strict=True)):
        np.testing.assert_allclose(tensor[channel], (base[..., 0] * 2 - 1 - mean) / std, atol=1e-6)


def test_padding_is_filled_as_asked() -> None:
    image = model_input(chestlike(100, 200))
    spec = InputSpec(64, 64, padding=0.5)
    assert (prepare(image, letterbox_for(image, spec), spec)[:16] == 0.5).all()


@pytest.mark.parametrize("method", ["histogram", "clahe"])
def test_equalising_flattens_the_histogram(method: str) -> None:
    dark = (chestlike(128, 96) ** 4).astype(np.float32)
    flat = equalise(dark, method)
    assert flat.shape == dark.shape
    assert flat.dtype == np.float32
    assert flat.min() >= 0
    assert flat.max() <= 1
    assert flat.std() > dark.std() or flat.mean() > dark.mean()
    if method == "histogram":
        counts, _ = np.histogram(flat, 4, (0, 1))
        assert counts.min() > dark.size / 4 * 0.6


def test_histogram_equalisation_keeps_the_order_of_greys() -> None:
    levels = np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20) ** 3
    assert (np.diff(equalise(levels, "histogram").ravel()) >= 0).all()


def test_an_unknown_equalisation_is_an_error() -> None:
    with pytest.raises(ValueError, match="magic"):
        equalise(chestlike(), "magic")


@pytest.mark.parametrize(
    "absurd",
    [
        {"ImagerPixelSpacing": [1e-9, 1e-9]},
        {"ImagerPixelSpacing": [143, 143]},
        {"ImagerPixelSpacing": [0.143, 14.3]},
        {"ImagerPixelSpacing": [0.0, 0.143]},
        {"ImagerPixelSpacing": [0.143]},
        {"PixelSpacing": [1e300, 1e300]},
    ],
)
def test_a_spacing_that_no_radiograph_has_is_unknown(absurd: dict[str, Any]) -> None:
    dataset = radiograph(ramp(60, 40, 12), **absurd)
    assert spacing_of(dataset) is None
    assert read_model_input(dataset).pixel_aspect == 1.0


@pytest.mark.parametrize("factor", [0, -1, 0.1, 1e6])
def test_an_absurd_magnification_says_nothing(factor: float) -> None:
    dataset = radiograph(
        ramp(60, 40, 12), ImagerPixelSpacing=[0.2, 0.2], EstimatedRadiographicMagnificationFactor=factor
    )
    assert spacing_of(dataset) == Spacing(0.2, 0.2, "detector")


def test_an_absurd_pixel_aspect_ratio_says_nothing() -> None:
    assert read_model_input(radiograph(ramp(60, 40, 12), PixelAspectRatio=[1, 2_000_000])).pixel_aspect == 1.0


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_lookup_table_is_read_from_a_file_of_any_encoding(syntax: str, tmp_path: Path) -> None:
    values = ramp(60, 40, 12)
    table = ((4095 - np.arange(4096)) * 2).astype(np.uint16)
    big = syntax == ExplicitVRBigEndian
    dataset = radiograph(values, VOILUTSequence=[lut(table.byteswap() if big else table, 0, 12)], PixelPaddingValue=0)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = values.astype(">u2" if big else "<u2").tobytes()
    image = read_model_input(written(dataset, tmp_path / "a.dcm"))
    assert image.notes == ()
    np.testing.assert_allclose(image.pixels[values > 0], (table[values] / 8190)[values > 0], atol=1e-6)
    assert not image.pixels[values == 0].any()
