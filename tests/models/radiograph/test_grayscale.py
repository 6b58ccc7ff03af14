"""The grayscale pipeline: LUTs, windows, polarity, padding, and what happens when a header talks nonsense."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.tag import BaseTag
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit
from pydicom.valuerep import format_number_as_ds

from models.contract import Pixels
from models.radiograph.decode import decode
from models.radiograph.grayscale import is_inverted, to_grayscale, window
from tests.models.samples import radiograph, ramp, reread

SPREAD = "The grey values were spread over the range that holds 99 % of them."


def shown(dataset: Dataset) -> Pixels:
    return to_grayscale(decode(dataset), dataset)[0]


def notes(dataset: Dataset) -> tuple[str, ...]:
    return to_grayscale(decode(dataset), dataset)[1]


def lut(values: NDArray[np.integer], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values) % 65536, first % 65536, bits])
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return item


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (15, False), (12, True)])
def test_windows_as_pydicom_does(function: str, bits: int, signed: bool) -> None:
    values = ramp(40, 50, bits) - (1 << (bits - 1) if signed else 0)
    dataset = radiograph(
        values, bits=bits, signed=signed, RescaleSlope=2.5, RescaleIntercept=-300, VOILUTFunction=function
    )
    middle = float(np.median(values)) * 2.5 - 300
    dataset.WindowCenter, dataset.WindowWidth = [middle, 1], [float(1 << bits), 2]
    modality = apply_modality_lut(values, dataset)
    expected = apply_voi_lut(modality, dataset, index=0)
    low = 2.5 * (-(1 << (bits - 1)) if signed else 0) - 300
    span = 2.5 * ((1 << bits) - 1)
    np.testing.assert_allclose(shown(dataset), (expected - low) / span, atol=2e-4 if function == "LINEAR" else 1e-3)
    assert notes(dataset) == ()


def test_window_by_the_book() -> None:
    values = np.array([0.0, 99.5, 100.0, 100.5, 149.0, 150.0, 199.0, 200.0, 300.0])
    linear = window(values, 150, 100)
    assert linear is not None
    assert linear[0] == 0
    assert linear[-1] == 1
    np.testing.assert_allclose(linear[5], (150 - 149.5) / 99 + 0.5)
    exact = window(values, 150, 100, "LINEAR_EXACT")
    assert exact is not None
    np.testing.assert_allclose(exact, [0, 0, 0, 0.005, 0.49, 0.5, 0.99, 1, 1])
    step = window(values, 150, 1)
    assert step is not None
    np.testing.assert_array_equal(step, [0, 0, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [0, -1, -1e9])
def test_a_window_without_width_is_none(function: str, width: float) -> None:
    assert window(np.arange(5.0), 2, width, function) is None


@pytest.mark.parametrize(
    "nonsense",
    [
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": 100, "WindowWidth": -5},
        {"WindowCenter": 60000, "WindowWidth": 10},
        {"WindowCenter": -60000, "WindowWidth": 10},
        {"WindowCenter": 2000, "WindowWidth": 10_000_000},
    ],
)
def test_an_absurd_window_falls_back_and_says_so(nonsense: dict[str, Any]) -> None:
    values = ramp(60, 70, 12)
    dataset = radiograph(values, **nonsense)
    pixels, found = to_grayscale(decode(dataset), dataset)
    assert pixels.std() > 0.2
    assert "was not used" in found[0]
    assert found[-1] == SPREAD
    np.testing.assert_array_equal(pixels, shown(radiograph(values)))


def test_a_window_that_is_no_number_counts_as_none() -> None:
    dataset = radiograph(ramp(60, 70, 12))
    dataset.WindowCenter, dataset.WindowWidth = None, ""
    assert notes(dataset) == (SPREAD,)


def test_eight_bits_without_a_window_are_shown_as_they_are() -> None:
    values = ramp(40, 50, 8)
    np.testing.assert_allclose(shown(radiograph(values, bits=8)), values / 255, atol=1e-7)


def test_the_first_window_counts() -> None:
    values = ramp(40, 50, 12)
    several = radiograph(values, WindowCenter=[2000, 500], WindowWidth=[3000, 100])
    one = radiograph(values, WindowCenter=2000, WindowWidth=3000)
    np.testing.assert_array_equal(shown(several), shown(one))


@pytest.mark.parametrize("written", [False, True])
def test_a_voi_lut_goes_before_a_window(written: bool) -> None:
    values = ramp(40, 50, 12)
    table = (np.arange(4096) ** 2 // 4096).astype(np.uint16)
    dataset = radiograph(values, WindowCenter=2000, WindowWidth=3000, VOILUTSequence=[lut(table, 0, 12)])
    dataset = reread(dataset) if written else dataset
    np.testing.assert_allclose(shown(dataset), table[values] / 4095, atol=1e-6)


def test_a_lut_maps_what_lies_outside_to_its_ends() -> None:
    values = ramp(40, 50, 12)
    table = np.arange(0, 4000, 4)
    dataset = radiograph(values, VOILUTSequence=[lut(table, 1000, 12)])
    expected = table[np.clip(values - 1000, 0, 999)] / 4095
    np.testing.assert_allclose(shown(dataset), expected, atol=1e-6)


def test_a_modality_lut_goes_first() -> None:
    values = ramp(40, 50, 10)
    table = np.arange(1023, -1, -1)
    dataset = radiograph(values, bits=10, ModalityLUTSequence=[lut(table, 0, 10)], WindowCenter=512, WindowWidth=1024)
    np.testing.assert_allclose(shown(dataset), (1023 - values) / 1023, atol=1e-3)


@pytest.mark.parametrize("broken", ["short", "descriptor", "data"])
def test_a_broken_voi_lut_is_left_out(broken: str) -> None:
    item = lut(np.arange(4096), 0, 12)
    if broken == "short":
        item.LUTData = item.LUTData[:100]
    elif broken == "descriptor":
        item.LUTDescriptor = [4096, 0, 3]
    else:
        del item.LUTData
    values = ramp(40, 50, 12)
    dataset = radiograph(values, VOILUTSequence=[item], WindowCenter=2048, WindowWidth=4096)
    assert notes(dataset) == ("The VOI LUT leaves no contrast and was not used.",)
    np.testing.assert_allclose(shown(dataset), values / 4095, atol=1e-4)


def test_monochrome1_and_inverse_are_one_inversion() -> None:
    values = ramp(40, 50, 12)
    window_of: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}
    plain = shown(radiograph(values, **window_of))
    for photometric, shape in [("MONOCHROME1", "INVERSE"), ("MONOCHROME1", ""), ("MONOCHROME2", "INVERSE")]:
        dataset = radiograph(values, PhotometricInterpretation=photometric, **window_of)
        if shape:
            dataset.PresentationLUTShape = shape
        assert is_inverted(dataset)
        np.testing.assert_allclose(shown(dataset), 1 - plain, atol=1e-6)
    assert not is_inverted(radiograph(values, PresentationLUTShape="IDENTITY"))


@given(
    bits=st.sampled_from([8, 10, 12, 15, 16]),
    signed=st.booleans(),
    seed=st.integers(0, 1000),
    windowed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_an_inverted_monochrome1_image_is_the_monochrome2_image(
    bits: int, signed: bool, seed: int, windowed: bool
) -> None:
    random = np.random.default_rng(seed)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = np.clip(random.normal((low + high) / 2, (high - low) / 8, (50, 60)).astype(np.int64), low, high)
    plain = radiograph(values, bits=bits, signed=signed)
    inverse = radiograph(low + high - values, bits=bits, signed=signed, PhotometricInterpretation="MONOCHROME1")
    if windowed:
        width, centre = (high - low) * 0.7, (low + high) / 2 + 5
        plain.WindowCenter, plain.WindowWidth = round(centre, 1), round(width, 1)
        inverse.WindowCenter, inverse.WindowWidth = round(low + high - plain.WindowCenter + 1, 1), plain.WindowWidth
    np.testing.assert_allclose(shown(plain), shown(inverse), atol=1e-5)


@given(seed=st.integers(0, 1000), offset=st.integers(0, 2000), shift=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_without_a_window_neither_offset_nor_depth_matters(seed: int, offset: int, shift: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2000, (50, 60))
    plain, moved = shown(radiograph(values)), shown(radiograph((values + offset) << shift, bits=16))
    np.testing.assert_allclose(plain, moved, atol=2e-3)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("signed", "value", "limit"), [(False, 4095, None), (False, 4000, 4095), (True, -2000, -1900)])
def test_padding_is_air_and_counts_in_no_statistics(
    photometric: str, signed: bool, value: int, limit: int | None
) -> None:
    values = ramp(60, 80, 10)
    framed = values.copy()
    framed[:, :30] = value
    frame = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    dataset = radiograph(framed, signed=signed, PhotometricInterpretation=photometric)
    for keyword, number in frame.items():
        dataset.add_new(keyword, "SS" if signed else "US", number)
    pixels = shown(dataset)
    assert (pixels[:, :30] == 0).all()
    inside = radiograph(values[:, 30:], signed=signed, PhotometricInterpretation=photometric)
    np.testing.assert_allclose(pixels[:, 30:], shown(inside), atol=1e-6)


def test_padding_that_is_the_whole_image_is_no_padding() -> None:
    values = np.full((40, 40), 7)
    assert np.isfinite(shown(radiograph(values, PixelPaddingValue=7))).all()


def test_a_signed_padding_value_may_be_written_unsigned() -> None:
    values = ramp(60, 80, 10)
    values[:, :30] = -2000
    dataset = radiograph(values, bits=16, signed=True)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert (shown(dataset)[:, :30] == 0).all()


def test_noise_is_not_stretched_into_an_image() -> None:
    noise = np.random.default_rng(3).integers(100, 103, (80, 80))
    assert np.ptp(shown(radiograph(noise))) < 0.1


def test_a_slope_of_nought_is_left_out() -> None:
    dataset = radiograph(ramp(40, 50, 12), RescaleSlope=0, RescaleIntercept=5)
    assert "slope" in notes(dataset)[0]
    assert shown(dataset).std() > 0.2


@given(
    bits=st.integers(2, 16),
    slope=st.floats(-100, 100, allow_nan=False),
    intercept=st.floats(-1e5, 1e5, allow_nan=False),
    centre=st.floats(-1e6, 1e6, allow_nan=False),
    width=st.floats(-1e3, 1e6, allow_nan=False),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "WHATEVER", ""]),
)
@settings(max_examples=120, deadline=None)
def test_whatever_the_header_says_the_result_is_an_image(
    bits: int, slope: float, intercept: float, centre: float, width: float, function: str
) -> None:
    dataset = radiograph(ramp(20, 30, bits), bits=bits, VOILUTFunction=function)
    for keyword, value in (
        ("RescaleSlope", slope),
        ("RescaleIntercept", intercept),
        ("WindowCenter", centre),
        ("WindowWidth", width),
    ):
        setattr(dataset, keyword, f"{value:.8g}"[:16])
    pixels = shown(dataset)
    assert pixels.dtype == np.float32
    assert np.isfinite(pixels).all()
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 12, 13, 16])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_voi_lut_that_lies_about_its_depth_shows_what_an_honest_one_does(bits: int, implicit: bool) -> None:
    values = ramp(60, 70, 12)
    table = np.linspace(0, 8191, 4096).astype(np.uint16)
    honest = shown(radiograph(values, VOILUTSequence=[lut(table, 0, 13)]))
    dataset = radiograph(values, VOILUTSequence=[lut(table, 0, bits)])
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    np.testing.assert_allclose(shown(reread(dataset)), honest, atol=1e-3)


def test_a_window_of_another_depth_is_not_used() -> None:
    values = ramp(60, 70, 8)
    frame = imagecodecs.jpeg8_encode(values.astype(np.uint8), level=98)
    dataset = radiograph(values, bits=10, WindowCenter=512, WindowWidth=1024, PixelPaddingValue=200)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.add_new("PixelData", "OB", encapsulate([bytes(frame)]))
    pixels, found = to_grayscale(decode(dataset), dataset)
    assert found == ()
    np.testing.assert_allclose(pixels, imagecodecs.jpeg8_decode(frame) / 255, atol=1e-6)


@pytest.mark.parametrize(("slope", "intercept"), [("1e300", "0"), ("1e-300", "0"), ("1", "1e30"), ("nan", "inf")])
def test_an_absurd_rescale_changes_nothing(slope: str, intercept: str) -> None:
    values = ramp(60, 70, 12)
    dataset = reread(radiograph(values))
    for tag, text in ((0x00281053, slope), (0x00281052, intercept)):
        dataset[tag] = RawDataElement(BaseTag(tag), "DS", len(text), text.encode(), 0, False, True)
    np.testing.assert_array_equal(shown(dataset), shown(radiograph(values)))


@settings(deadline=None, max_examples=60)
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_no_header_takes_the_pixels_out_of_their_range(
    slope: float, intercept: float, centre: float, width: float, function: str
) -> None:
    dataset = radiograph(ramp(16, 20, 12))
    for keyword, value in (
        ("RescaleSlope", slope),
        ("RescaleIntercept", intercept),
        ("WindowCenter", centre),
        ("WindowWidth", width),
    ):
        dataset[keyword] = DataElement(keyword, "DS", format_number_as_ds(value))
    dataset.VOILUTFunction = function
    pixels = shown(dataset)
    assert np.isfinite(pixels).all()
    assert 0 <= pixels.min() <= pixels.max() <= 1
