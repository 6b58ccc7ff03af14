"""A mark drawn into the stored pixels comes back at its place: pixels, letterbox, mask, SEG, outline and capture.

The "model" answers with the brightness of its own input, so the mask can only lie on the mark if every step between the
stored pixels and the result keeps left left and top top.
"""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw

from models.radiograph.geometry import Letterbox
from models.radiograph.reading import read_model_input
from tests.workers.results.sources import analysis, encode_all, finding, source
from tests.workers.results.trees import children, groups
from workers.results import codes
from workers.results.finding_text import side_code
from workers.results.result_reader import read_masks

NETWORK = (96, 96)


def mark(shape: tuple[int, int]) -> np.ndarray:
    """An L in the upper left of the image, unlike any of its own reflections and turns."""
    rows, columns = shape
    drawn = np.zeros(shape, dtype=bool)
    drawn[rows // 10 : rows * 2 // 5, columns // 10 : columns // 5] = True
    drawn[rows // 10 : rows // 5, columns // 10 : columns * 2 // 5] = True
    return drawn


def stored(shape: tuple[int, int], photometric: str, orientation) -> pydicom.Dataset:
    """A DX whose shown pixels are dark, with the mark bright."""
    header = source("dx", shape, PhotometricInterpretation=photometric, PatientOrientation=orientation)
    inverse = photometric == "MONOCHROME1"
    header.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    header.SamplesPerPixel, header.BitsAllocated, header.BitsStored, header.HighBit = 1, 16, 12, 11
    header.PixelRepresentation = 0
    shown = np.where(mark(shape), 3800, 200)
    header.PixelData = (4095 - shown if inverse else shown).astype("<u2").tobytes()
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return pydicom.dcmread(io.BytesIO(buffer.getvalue()))


def results(shape: tuple[int, int], photometric, orientation):
    image = stored(shape, photometric, orientation)
    model_input = read_model_input(image)
    letterbox = Letterbox(*shape, *NETWORK, model_input.pixel_aspect)
    mask = letterbox.mask_to_source(letterbox.forward(model_input.pixels), 0.5)
    work = analysis(image, (finding(mask=mask),), model_input=model_input)
    return work, encode_all(work)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("orientation", [["L", "F"], ["R", "F"], ["F", "L"], ""])
@pytest.mark.parametrize("shape", [(400, 400), (500, 300), (300, 500)])
def test_the_mark_comes_back_at_its_place(shape, photometric, orientation):
    work, made = results(shape, photometric, orientation)
    drawn = mark(shape)
    (mask,) = read_masks(made["seg"])
    assert overlap(mask, drawn) > 0.93
    for other in (drawn[::-1], drawn[:, ::-1], drawn[::-1, ::-1]):
        assert overlap(mask, other) < 0.3
    outline = next(group for group in groups(made["sr"]) if children(group, "111030"))
    points = np.reshape(children(outline, "111030")[0].GraphicData, (-1, 2))
    assert overlap(filled(points, shape), drawn) > 0.9
    graphic = made["gsps"].GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    assert np.array_equal(np.reshape(graphic.GraphicData, (-1, 2)), points)
    expected = {"LF": codes.RIGHT, "RF": codes.LEFT, "FL": codes.RIGHT, "": None}["".join(orientation)]
    assert side_code(work, work.prediction.findings[0]) == expected


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_capture_shows_the_mark_bright_and_at_its_place(photometric):
    shape = (500, 300)
    _, made = results(shape, photometric, ["L", "F"])
    grey = made["sc"].pixel_array.astype(float).min(axis=2)
    picture = grey[grey.shape[0] - round(grey.shape[1] * 500 * 0.5 / (300 * 0.4)) :]
    small = np.asarray(Image.fromarray(picture.astype(np.uint8)).resize((300, 500), Image.Resampling.BOX))
    inner = mark(shape)
    assert small[inner].mean() > small[~inner].mean() + 100


def filled(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    picture = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in points - 0.5], fill=1)
    return np.asarray(picture)
