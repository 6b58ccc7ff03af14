"""Pixels, masks and boxes for learning and analysing: exactly what the node would show a network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.model_spec import InputSpec
from models.radiograph.contrast import letterbox_for, prepare
from models.radiograph.reading import read_model_input
from models.training.datasets import pixels, rle
from models.training.datasets.pixels import UnreadableImage
from models.training.datasets.sample import MarkedBox, Sample
from tests.models.training.datasets import made


def sample(image: Path, **more: object) -> Sample:
    return replace(Sample("s", "p", image), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("equalise", ["none", "histogram", "clahe"])
def test_a_dicom_file_is_prepared_as_in_serving(tmp_path: Path, equalise: pixels.Equalisation) -> None:
    file = made.write_dicom(tmp_path / "a.dcm", made.gradient(40, 60), PixelSpacing=[0.2, 0.1])
    served = read_model_input(file)
    spec = InputSpec(64, 64, equalise=equalise)
    expected = prepare(served, letterbox_for(served, spec), spec)[..., 0]
    assert np.array_equal(pixels.load(sample(file), 64, equalise), expected)
    place = letterbox_for(served, spec)
    assert (place.image_height, place.image_width) == (64, 48)  # pixels are twice as high as wide
    assert pixels.letterbox(sample(file), 64) == place


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_png_is_what_it_would_be_as_dicom(tmp_path: Path, kind: type) -> None:
    grey = made.gradient(30, 50).astype(kind) * (1 if kind is np.uint8 else 16)
    picture = made.write_png(tmp_path / "a.png", grey)
    captured = made.write_dicom(tmp_path / "a.dcm", grey)
    assert np.array_equal(pixels.read(picture).pixels, read_model_input(captured).pixels)
    assert pixels.letterbox(sample(picture), 64) == pixels.letterbox(sample(captured), 64)


def test_sixteen_bits_are_not_cut_to_eight(tmp_path: Path) -> None:
    fine = np.linspace(1000, 3000, 64 * 64).reshape(64, 64).astype(np.uint16)
    found = pixels.read(made.write_png(tmp_path / "a.png", fine)).pixels
    assert len(np.unique(found)) > 1500


def test_a_jpeg_is_decoded_by_the_decoder_that_serves(tmp_path: Path) -> None:
    Image.fromarray(made.gradient(48, 48)).save(tmp_path / "a.jpg", quality=80)
    found = pixels.read(tmp_path / "a.jpg").pixels
    near = np.asarray(Image.open(tmp_path / "a.jpg"), np.float32) / 255
    assert np.abs(found - near).max() <= 1.01 / 255


def test_a_grey_picture_stored_in_colours_is_grey(tmp_path: Path) -> None:
    grey = made.gradient()
    plain = pixels.read(made.write_png(tmp_path / "a.png", grey)).pixels
    stacked = pixels.read(made.write_png(tmp_path / "b.png", np.stack([grey] * 3, axis=2))).pixels
    assert np.array_equal(plain, stacked)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.dcm"])
def test_what_cannot_be_decoded_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        pixels.load(sample(tmp_path / name), 32)
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        pixels.letterbox(sample(tmp_path / name), 32)
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        pixels.load(sample(tmp_path / ("gone" + name)), 32)


def test_a_photograph_is_refused(tmp_path: Path) -> None:
    colours = np.zeros((32, 32, 3), np.uint8)
    colours[:16, :, 0] = 200
    with pytest.raises(UnreadableImage, match="colour"):
        pixels.read(made.write_png(tmp_path / "a.png", colours))


def test_a_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    Image.fromarray(made.gradient(64, 64)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImage):
        pixels.read(tmp_path / "a.jpg")


def test_a_mask_lies_where_the_letterbox_has_the_image(tmp_path: Path) -> None:
    # A bright square in the image and the same square as a mask must fall on the same network pixels.
    bright = np.zeros((256, 128), np.uint8)
    bright[64:128, 32:96] = 250
    drawn = np.zeros((rle.SIDE, rle.SIDE), bool)
    drawn[256:512, 256:768] = True  # the same place, on the mask's own square grid
    item = sample(made.write_png(tmp_path / "a.png", bright), runs={"pneumothorax": (rle.encode(drawn),)})
    network, mask = pixels.load(item, 64), pixels.mask(item, "pneumothorax", 64)
    assert mask.sum() == 16 * 16
    assert np.array_equal(network > 0.5, mask)


def test_boxes_and_their_filled_mask_lie_on_the_bright_square(tmp_path: Path) -> None:
    bright = np.zeros((128, 256), np.uint8)
    bright[32:64, 64:192] = 250
    box = MarkedBox("mass", 64 / 256, 32 / 128, 128 / 256, 32 / 128)
    item = sample(made.write_png(tmp_path / "a.png", bright), boxes=(box,), boxed=frozenset({"mass"}))
    assert pixels.boxes(item, 64) == [("mass", 16.0, 24.0, 48.0, 32.0)]
    assert np.array_equal(pixels.mask(item, "mass", 64), pixels.load(item, 64) > 0.5)


def test_nothing_there_is_an_empty_mask_and_unknown_is_an_error(tmp_path: Path) -> None:
    item = sample(made.write_png(tmp_path / "a.png", made.gradient()), runs={"pneumothorax": ()})
    item = replace(item, boxed=frozenset({"mass"}))
    assert not pixels.mask(item, "pneumothorax", 32).any()
    assert not pixels.mask(item, "mass", 32).any()
    assert pixels.boxes(item, 32) == []
    assert not pixels.knows_mask(item, "hernia")
    with pytest.raises(KeyError, match="hernia"):
        pixels.mask(item, "hernia", 32)
