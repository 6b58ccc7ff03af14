"""Every transfer syntax against DCMTK's own decoders, and every way in which pixels can be broken."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, get_frame
from pydicom.tag import BaseTag
from pydicom.uid import UID

from models.radiograph.decode import PixelFault, UnreadablePixels, decode, read_file
from models.radiograph.transfer_syntaxes import DECODERS, PixelDecoder
from tests.models.samples import radiograph, ramp, reread, written

HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
J2K_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"

ENCODERS = {
    "little": ("dcmconv", ["+te"], "dcmconv"),
    "implicit": ("dcmconv", ["+ti"], "dcmconv"),
    "big": ("dcmconv", ["+tb"], "dcmconv"),
    "deflated": ("dcmconv", ["+td"], "dcmconv"),
    "rle": ("dcmcrle", [], "dcmdrle"),
    "baseline": ("dcmcjpeg", ["+eb"], "dcmdjpeg"),
    "extended": ("dcmcjpeg", ["+ee", "+bt"], "dcmdjpeg"),
    "extended 8 bit": ("dcmcjpeg", ["+ee", "+be"], "dcmdjpeg"),
    **{f"lossless {n}": ("dcmcjpeg", ["+el", "+sv", str(n)], "dcmdjpeg") for n in range(1, 8)},
    "lossless sv1": ("dcmcjpeg", ["+e1"], "dcmdjpeg"),
    "jpeg-ls": ("dcmcjpls", ["+el"], "dcmdjpls"),
    "jpeg-ls near": ("dcmcjpls", ["+en", "+md", "3"], "dcmdjpls"),
}

LOSSY = ("baseline", "extended", "extended 8 bit", "jpeg-ls near")  # DCMTK writes no signed images in these
DEPTHS = [(8, False), (10, False), (12, False), (16, False), (12, True), (16, True)]
CASES = [(name, *depth) for name in ENCODERS for depth in DEPTHS if not (depth[1] and name in LOSSY)]


def compressed(dataset: Dataset, frame: bytes | bytearray, syntax: str) -> Dataset:
    """The data set with this frame instead of its pixels."""
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset["PixelData"].VR = "OB"
    dataset.PixelData = encapsulate([bytes(frame)])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def fault(dataset: Dataset | Path) -> PixelFault:
    """The code with which the pixels are refused."""
    with pytest.raises(UnreadablePixels) as caught:
        decode(dataset)
    assert caught.value.sentence.endswith(".")
    assert caught.value.not_analysed.code == caught.value.code
    return caught.value.code


@pytest.mark.peer("dcmcjpeg", "dcmcjpls", "dcmcrle", "dcmconv")
@pytest.mark.parametrize(("name", "bits", "signed"), CASES)
def test_reads_what_dcmtk_reads(name: str, bits: int, signed: bool, tmp_path: Path) -> None:
    encoder, options, decoder = ENCODERS[name]
    values = ramp(61, 53, bits) - (1 << (bits - 1) if signed else 0)
    source = written(radiograph(values, bits=bits, signed=signed), tmp_path / "source.dcm")
    subprocess.run([encoder, *options, source, tmp_path / "coded.dcm"], check=True, capture_output=True)
    back = ["+te"] if decoder == "dcmconv" else []
    subprocess.run([decoder, *back, tmp_path / "coded.dcm", tmp_path / "plain.dcm"], check=True, capture_output=True)
    expected = dcmread(tmp_path / "plain.dcm")
    np.testing.assert_array_equal(decode(tmp_path / "coded.dcm").values(), expected.pixel_array)
    if name not in LOSSY:
        np.testing.assert_array_equal(expected.pixel_array, values)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (J2K_LOSSLESS, lambda a, bits: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k", bitspersample=bits)),
        (J2K_LOSSLESS, lambda a, bits: imagecodecs.jpeg2k_encode(a, level=0, codecformat="jp2", bitspersample=bits)),
        (HTJ2K_LOSSLESS, lambda a, bits: imagecodecs.htj2k_encode(a)),
    ],
)
def test_reads_jpeg_2000(syntax: str, encode: object, bits: int) -> None:
    values = ramp(64, 80, bits)
    frame = encode(values.astype(np.uint8 if bits == 8 else np.uint16), bits)  # type: ignore[operator]
    stored = decode(reread(compressed(radiograph(values, bits=bits), frame, syntax)))
    np.testing.assert_array_equal(stored.values(), values)
    assert stored.decoder is PixelDecoder.JPEG_2000


@pytest.mark.parametrize("bits", [12, 16])
def test_reads_signed_jpeg_2000(bits: int) -> None:
    values = ramp(64, 80, bits) - (1 << (bits - 1))
    frame = imagecodecs.jpeg2k_encode(values.astype(np.int16), level=0, codecformat="j2k", bitspersample=bits)
    stored = decode(compressed(radiograph(values, bits=bits, signed=True), frame, J2K_LOSSLESS))
    np.testing.assert_array_equal(stored.values(), values)


def test_reads_two_s_complement_in_an_unsigned_codestream_of_lower_precision() -> None:
    values = ramp(64, 80, 12) - 2048
    frame = imagecodecs.jpeg2k_encode((values & 0xFFF).astype(np.uint16), level=0, codecformat="j2k", bitspersample=12)
    stored = decode(compressed(radiograph(values, bits=16, signed=True), frame, J2K_LOSSLESS))
    np.testing.assert_array_equal(stored.values(), values)


@pytest.mark.peer("dcmcjpeg")
def test_reads_12_bit_jpeg_extended_with_a_zero_spectral_end(tmp_path: Path) -> None:
    source = written(radiograph(ramp(64, 80, 12), bits=12), tmp_path / "source.dcm")
    subprocess.run(["dcmcjpeg", "+ee", "+bt", source, tmp_path / "coded.dcm"], check=True, capture_output=True)
    dataset = dcmread(tmp_path / "coded.dcm")
    expected = decode(dataset).values()
    frame = bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))
    scan = frame.find(b"\xff\xda")
    spectral_end = scan + 2 + int.from_bytes(frame[scan + 2 : scan + 4], "big") - 2
    assert frame[spectral_end] == 63
    frame[spectral_end] = 0
    np.testing.assert_array_equal(decode(compressed(dataset, bytes(frame), JPEG_EXTENDED)).values(), expected)


@pytest.mark.peer("shared-data", "dcmdjpls", "dcmdrle", "dcmdjpeg")
def test_reads_real_radiographs_as_dcmtk_does(shared_data: Path, tmp_path: Path) -> None:
    files = [*(shared_data / "wg04").glob("*.dcm"), *(shared_data / "dicom").glob("*.dcm")]
    tools = {PixelDecoder.JPEG: "dcmdjpeg", PixelDecoder.JPEG_LS: "dcmdjpls", PixelDecoder.RLE: "dcmdrle"}
    assert len(files) >= 20
    for number, path in enumerate(files):
        stored = decode(path)
        plain = path
        if stored.decoder in tools:
            plain = tmp_path / f"{number}.dcm"
            subprocess.run([tools[stored.decoder], path, plain], check=True, capture_output=True)
        np.testing.assert_array_equal(stored.values(), dcmread(plain).pixel_array)


def test_has_a_decoder_for_each_transfer_syntax_of_the_table() -> None:
    assert len(DECODERS) == 16
    assert all(not UID(syntax).name.startswith("1.") for syntax in DECODERS)


@pytest.mark.parametrize("bits", [1, 7, 10, 12, 15])
def test_masks_what_lies_beyond_the_stored_bits(bits: int) -> None:
    values = ramp(20, 30, bits)
    overlay = values | (1 << bits)
    dataset = radiograph(overlay, bits=16)
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    stored = decode(dataset)
    np.testing.assert_array_equal(stored.values(), values)
    assert "beyond the stored bits" in stored.notes[0]


def test_shifts_down_to_a_high_bit_that_is_not_the_lowest() -> None:
    values = ramp(20, 30, 12)
    dataset = radiograph(values << 4, bits=16, BitsStored=12, HighBit=15)
    stored = decode(dataset)
    np.testing.assert_array_equal(stored.values(), values)
    assert stored.notes == ()


def test_takes_sign_extension_for_what_it_is() -> None:
    values = ramp(20, 30, 12) - 2048
    extended = radiograph(values, bits=16, signed=True, BitsStored=12, HighBit=11)
    bare = radiograph(values & 0xFFF, bits=16, BitsStored=12, HighBit=11, PixelRepresentation=1)
    for dataset in (extended, bare):
        np.testing.assert_array_equal(decode(dataset).values(), values)
    assert decode(extended).notes == ()


def test_limits_lossy_values_that_overshoot() -> None:
    values = np.full((32, 32), 4090)
    values[::2] = 4095
    frame = imagecodecs.jpegls_encode((values + 3).astype(np.uint16))
    stored = decode(compressed(radiograph(values, bits=12), frame, JPEG_LS_NEAR))
    assert set(np.unique(stored.values())) == {4093, 4095}
    assert "limited" in stored.notes[0]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_accepts_colour_that_is_grey(photometric: str) -> None:
    grey = ramp(40, 50, 8)
    colour = np.repeat(grey[..., np.newaxis], 3, axis=2)
    if photometric == "YBR_FULL":
        colour[..., 1:] = 128
    stored = decode(radiograph(colour, bits=8, PhotometricInterpretation=photometric))
    np.testing.assert_array_equal(stored.values(), grey)


@pytest.mark.peer("dcmcjpeg")
@pytest.mark.parametrize("option", ["+cy", "+cr"])
def test_accepts_a_grey_jpeg_in_colour(option: str, tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(64) * 3, (48, 64))
    source = written(radiograph(np.repeat(smooth[..., np.newaxis], 3, axis=2), bits=8), tmp_path / "source.dcm")
    subprocess.run(["dcmcjpeg", "+eb", option, source, tmp_path / "coded.dcm"], check=True, capture_output=True)
    np.testing.assert_allclose(decode(tmp_path / "coded.dcm").values(), smooth, atol=3)


def test_accepts_a_grey_palette() -> None:
    index = ramp(30, 40, 8)
    dataset = radiograph(index, bits=8, PhotometricInterpretation="PALETTE COLOR")
    inverse = (255 - np.arange(256)).astype("<u2") << 8
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", inverse.tobytes())
    stored = decode(dataset)
    np.testing.assert_array_equal(stored.values() >> 8, 255 - index)


def test_refuses_colour() -> None:
    colour = np.zeros((30, 40, 3), np.uint8)
    colour[:10, :, 0] = 200
    assert fault(radiograph(colour, bits=8)) is PixelFault.COLOUR


def _short(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:-8]


def _as_large_as_a_header_can_say(dataset: Dataset) -> None:
    dataset.Rows = dataset.Columns = 65535


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_short, PixelFault.WRONG_LENGTH),
        (lambda dataset: delattr(dataset, "PixelData"), PixelFault.NO_PIXELS),
        (lambda dataset: delattr(dataset, "Rows"), PixelFault.PIXEL_HEADER),
        (lambda dataset: setattr(dataset, "Rows", 0), PixelFault.PIXEL_HEADER),
        (lambda dataset: setattr(dataset, "BitsStored", 17), PixelFault.PIXEL_HEADER),
        (lambda dataset: setattr(dataset, "BitsAllocated", 32), PixelFault.PIXEL_HEADER),
        (lambda dataset: setattr(dataset, "HighBit", 16), PixelFault.PIXEL_HEADER),
        (lambda dataset: setattr(dataset, "HighBit", 65535), PixelFault.PIXEL_HEADER),
        (lambda dataset: setattr(dataset, "SamplesPerPixel", 4), PixelFault.PIXEL_HEADER),
        (lambda dataset: setattr(dataset, "NumberOfFrames", 2), PixelFault.MULTI_FRAME),
        (_as_large_as_a_header_can_say, PixelFault.TOO_LARGE),
        (lambda dataset: delattr(dataset, "file_meta"), PixelFault.TRANSFER_SYNTAX),
        (
            lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", UID("1.2.840.10008.1.2.4.100")),
            PixelFault.TRANSFER_SYNTAX,
        ),
    ],
)
def test_says_what_is_wrong(change: object, code: PixelFault) -> None:
    dataset = radiograph(ramp(20, 30, 12))
    change(dataset)  # type: ignore[operator]
    assert fault(dataset) is code


def test_a_number_that_is_none_counts_as_absent() -> None:
    values = ramp(8, 8, 12)
    dataset = radiograph(values)
    dataset[0x00280008] = RawDataElement(BaseTag(0x00280008), "IS", 4, b"two ", 0, False, True)
    np.testing.assert_array_equal(decode(dataset).values(), values)


def test_one_frame_is_as_good_as_none_said() -> None:
    values = ramp(20, 30, 12)
    np.testing.assert_array_equal(decode(radiograph(values, NumberOfFrames=1)).values(), values)


def _frames(values: NDArray[np.int64]) -> dict[str, bytes | bytearray]:
    grey = values.astype(np.uint8)
    return {
        JPEG_BASELINE: imagecodecs.jpeg8_encode(grey),
        JPEG_LOSSLESS: imagecodecs.jpeg8_encode(grey, lossless=True),
        JPEG_LS_NEAR: imagecodecs.jpegls_encode(grey),
        J2K_LOSSLESS: imagecodecs.jpeg2k_encode(grey, level=0, codecformat="j2k"),
        HTJ2K_LOSSLESS: imagecodecs.htj2k_encode(grey),
    }


@pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG_LOSSLESS, JPEG_LS_NEAR, J2K_LOSSLESS, HTJ2K_LOSSLESS])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.99])
def test_refuses_a_truncated_frame(syntax: str, share: float) -> None:
    values = ramp(64, 80, 8)
    frame = _frames(values)[syntax]
    assert decode(compressed(radiograph(values, bits=8), frame, syntax)).codes.shape == (64, 80)
    broken = compressed(radiograph(values, bits=8), frame[: int(len(frame) * share)] or b"\x00\x00", syntax)
    assert fault(broken) is PixelFault.CORRUPT


@pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG_LS_NEAR, J2K_LOSSLESS])
def test_refuses_a_frame_of_another_size(syntax: str) -> None:
    frame = _frames(ramp(64, 80, 8))[syntax]
    assert fault(compressed(radiograph(ramp(80, 64, 8), bits=8), frame, syntax)) is PixelFault.SIZE_MISMATCH


def test_refuses_a_truncated_run_length_segment() -> None:
    dataset = radiograph(ramp(64, 80, 8), bits=8)
    dataset.compress("1.2.840.10008.1.2.5")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    assert fault(compressed(dataset, frame[: len(frame) // 2], "1.2.840.10008.1.2.5")) is PixelFault.CORRUPT


def test_refuses_a_file_that_is_not_dicom(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear colleague")
    assert fault(tmp_path / "letter.txt") is PixelFault.NOT_DICOM


def test_a_file_that_the_disk_does_not_give_is_not_called_unreadable(tmp_path: Path) -> None:
    """Its image would never be analysed, and the reason would be wrong."""
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing.dcm")
    with Path("/proc/self/mem").open("rb"), pytest.raises(OSError, match="Input/output error"):
        read_file(Path("/proc/self/mem"))  # it opens, and reading gives EIO


def test_a_seeded_storm_of_broken_frames_ends_in_pixels_or_a_refusal() -> None:
    random = np.random.default_rng(7)
    values = ramp(64, 80, 8)
    for syntax, frame in _frames(values).items():
        for _ in range(40):
            broken = np.frombuffer(frame, np.uint8).copy()
            broken[random.integers(2, len(broken), 5)] = random.integers(0, 256, 5)
            try:
                stored = decode(compressed(radiograph(values, bits=8), broken.tobytes(), syntax))
            except UnreadablePixels:
                continue
            assert stored.codes.shape == (64, 80)


def test_refuses_dark_colour() -> None:
    colour = np.zeros((30, 40, 3), np.uint16)
    colour[:10, :, 0] = 250
    assert fault(radiograph(colour, bits=16)) is PixelFault.COLOUR


def boxed_by(box: bytes, jp2: bytes | bytearray) -> bytes:
    """A JP2 file with one more box in front of its codestream."""
    at = jp2.index(b"jp2c") - 4
    return bytes(jp2[:at]) + (len(box) + 8).to_bytes(4, "big") + b"uuid" + box + jp2[at:]


def size_segment(rows: int, columns: int) -> bytes:
    """The beginning of a JPEG 2000 codestream that claims a size (ISO/IEC 15444-1 A.5.1)."""
    sizes = (columns, rows, 0, 0, columns, rows, 0, 0)
    numbers = b"".join(size.to_bytes(4, "big") for size in sizes)
    return b"\xff\x4f\xff\x51\x00\x29\x00\x00" + numbers + b"\x00\x01\x07\x01\x01"


def test_a_decoy_in_a_jpeg_2000_file_is_not_the_codestream() -> None:
    values = ramp(64, 80, 8)
    frame = imagecodecs.jpeg2k_encode(values.astype(np.uint8), level=0, codecformat="jp2")
    whole = compressed(radiograph(values, bits=8), boxed_by(size_segment(128, 160), frame), J2K_LOSSLESS)
    np.testing.assert_array_equal(decode(whole).values(), values)
    larger = ramp(128, 160, 8)
    assert fault(compressed(radiograph(larger, bits=8), boxed_by(size_segment(128, 160), frame), J2K_LOSSLESS)) is (
        PixelFault.SIZE_MISMATCH
    )


@pytest.mark.parametrize("samples", [np.zeros((32, 40)), np.zeros((64, 80, 3)), np.full((64, 80), 256)])
def test_what_a_decoder_gives_is_compared_with_what_was_claimed(
    samples: NDArray[np.generic], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ramp(64, 80, 8)
    frame = imagecodecs.jpegls_encode(values.astype(np.uint8))
    dataset = compressed(radiograph(values, bits=8), frame, "1.2.840.10008.1.2.4.80")
    monkeypatch.setattr(imagecodecs, "jpegls_decode", lambda _frame: samples.astype(np.uint16))
    assert fault(dataset) is PixelFault.SIZE_MISMATCH


def test_negatives_that_the_data_set_does_not_promise_are_refused() -> None:
    values = ramp(64, 80, 12) - 2048
    frame = imagecodecs.jpeg2k_encode(values.astype(np.int16), level=0, codecformat="j2k", bitspersample=12)
    assert fault(compressed(radiograph(values + 2048, bits=12), frame, J2K_LOSSLESS)) is PixelFault.SIZE_MISMATCH


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_lossy_codestream_has_its_own_depth(bits: int) -> None:
    values = ramp(64, 80, 8) // 4 * 3
    frame = imagecodecs.jpeg8_encode(values.astype(np.uint8), level=95)
    stored = decode(compressed(radiograph(values, bits=bits), frame, JPEG_BASELINE))
    assert (stored.bits, stored.scaled) == (8, True)
    assert stored.notes == (f"The pixel data has 8 bits a sample, not {bits}: windows of the header were not used.",)
    np.testing.assert_array_equal(stored.values(), imagecodecs.jpeg8_decode(frame))


def in_items(dataset: Dataset, *items: bytes) -> Dataset:
    """The data set with its native syntax and these items as its pixels."""
    dataset.add_new("PixelData", "OB", b"".join(_item(item) for item in items))
    dataset["PixelData"].is_undefined_length = True
    return dataset


def _item(content: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content


def test_a_native_frame_in_an_item_is_that_frame() -> None:
    values = ramp(64, 80, 12)
    plain = radiograph(values).PixelData
    np.testing.assert_array_equal(decode(in_items(radiograph(values), b"", plain)).values(), values)
    defined = radiograph(values)
    defined.PixelData = _item(b"") + _item(plain) + b"\xfe\xff\xdd\xe0" + bytes(4)
    np.testing.assert_array_equal(decode(defined).values(), values)


def test_items_that_are_no_whole_native_frame_are_refused() -> None:
    values = ramp(64, 80, 12)
    plain = radiograph(values).PixelData
    for items in ((plain,), (b"", plain[:-16]), (b"", plain + plain), (b"", plain[:80], plain[80:])):
        with pytest.raises(UnreadablePixels, match="the transfer syntax is not") as caught:
            decode(in_items(radiograph(values), *items))
        assert caught.value.code is PixelFault.WRONG_LENGTH


def test_a_native_frame_may_begin_like_an_item() -> None:
    values = ramp(64, 80, 16)
    values[0, :2] = (0xFFFE, 0xE000)
    np.testing.assert_array_equal(decode(radiograph(values, bits=16)).values(), values)


@pytest.mark.parametrize("more", [2, 15])
def test_native_pixels_may_be_padded(more: int) -> None:
    values = ramp(64, 80, 12)
    dataset = radiograph(values)
    dataset.PixelData += bytes(more)
    np.testing.assert_array_equal(decode(dataset).values(), values)


def test_native_pixels_of_another_size_are_refused() -> None:
    assert fault(radiograph(ramp(64, 80, 12), Columns=79)) is PixelFault.WRONG_LENGTH
    assert fault(radiograph(ramp(64, 80, 12), Rows=63)) is PixelFault.WRONG_LENGTH


def test_a_size_beyond_the_limit_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = size_segment(20_000, 20_000) + bytes(1000)
    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", lambda *_, **__: pytest.fail("it was decoded"))
    header = radiograph(ramp(64, 80, 8), bits=8)
    assert fault(compressed(header, frame, J2K_LOSSLESS)) is PixelFault.SIZE_MISMATCH
    header.Rows = header.Columns = 20_000
    assert fault(header) is PixelFault.TOO_LARGE
    with pytest.raises(UnreadablePixels, match="more than the 1000 that are decoded here"):
        decode(radiograph(ramp(64, 80, 8), bits=8), maximum_pixels=1000)


def test_attributes_that_nobody_needs_do_no_harm() -> None:
    values = ramp(20, 30, 12)
    dataset = reread(radiograph(values))
    for tag, vr, octets in (
        (0x01F11026, "FD", b"0.264 "),
        (0x00400275, "DS", b"x\\y"),
        (0x00081140, "SQ", b"nonsense"),
    ):
        dataset[tag] = RawDataElement(BaseTag(tag), vr, len(octets), octets, 0, False, True)
    np.testing.assert_array_equal(decode(dataset).values(), values)
    dataset[0x00280010] = RawDataElement(BaseTag(0x00280010), "LO", 2, b"20", 0, False, True)
    assert fault(dataset) is PixelFault.PIXEL_HEADER


def test_no_value_of_the_header_is_in_the_reason() -> None:
    """pydicom quotes what it does not know, and a peer may have put a patient's name there."""
    with pytest.raises(UnreadablePixels) as caught:
        decode(radiograph(ramp(40, 50, 8), bits=8, PhotometricInterpretation="DOE^JANE"))
    assert "DOE" not in str(caught.value)
