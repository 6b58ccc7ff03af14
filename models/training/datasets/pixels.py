"""A sample's pixels, masks and boxes in a network's grid: read, letterboxed and equalised by the code that serves.

A PNG or JPEG file is read as the Secondary Capture image that it would be in a PACS, so that a network is taught and
measured on exactly what the node would show it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from models.contract import Mask, ModelInput, Pixels
from models.localise import region_masks
from models.model_spec import InputSpec
from models.radiograph.codestream import jpeg_header
from models.radiograph.contrast import prepare
from models.radiograph.decode import UnreadablePixels, read_file
from models.radiograph.geometry import Letterbox
from models.radiograph.reading import pixel_aspect_of, read_model_input
from models.training.datasets import rle
from models.training.datasets.layout import PICTURES
from models.training.datasets.sample import DrawnMask, Sample

Equalisation = Literal["none", "histogram", "clahe"]
BoxShape = Literal["filled", "ellipse"]
"""What of a box counts as the finding: all of it, or the ellipse inside, since hardly any finding has corners."""
NetworkBox = tuple[str, float, float, float, float]
_JPEG = (".jpg", ".jpeg")
_WIDE = ("I;16", "I;16B", "I;16L", "I", "I;16N")


class UnreadableImage(ValueError):  # noqa: N818 - says what the image is
    """An image file cannot be decoded, or holds no grey radiograph; the message says why."""


def read(image: Path) -> ModelInput:
    """A DICOM, PNG (8 or 16 bits) or JPEG file as the node would read it.

    Raises:
        UnreadableImage: with the reason.
    """
    try:
        return read_model_input(_capture(image) if image.suffix.lower() in PICTURES else image)
    except UnreadablePixels as error:
        raise UnreadableImage(f"cannot be decoded: {error.sentence}") from error
    except OSError as error:
        raise UnreadableImage(f"cannot be decoded: {error}") from error


def load(sample: Sample, size: int, equalise: Equalisation = "none") -> Pixels:
    """A sample's pixels ``float32[size, size]`` in ``[0, 1]``, air dark, padded with air.

    Raises:
        UnreadableImage: the image cannot be decoded.
    """
    spec = InputSpec(size, size, equalise=equalise)
    image = read(sample.image)
    return prepare(image, Letterbox(*image.shape, size, size, image.pixel_aspect), spec)[..., 0]


def letterbox(sample: Sample, size: int) -> Letterbox:
    """Where the image of a sample lies in a square network input; decodes no pixels.

    Raises:
        UnreadableImage: the file says no size.
    """
    rows, columns, aspect = _shape(sample.image)
    return Letterbox(rows, columns, size, size, aspect)


def knows_mask(sample: Sample, label: str) -> bool:
    """Whether every pixel of a finding is known: from a mask or run-length rows, or at least from boxes."""
    return label in sample.runs or label in sample.boxed or label in sample.masks


def mask(sample: Sample, label: str, size: int, boxes_as: BoxShape = "filled") -> Mask:
    """The pixels of a finding ``bool[size, size]`` in the letterbox: those that it covers by half or more.

    A drawn mask comes first, then run-length rows; where there are only boxes, they are filled, wholly or as ellipses.

    Raises:
        KeyError: nothing of that is known of this finding.
        UnreadableImage: the file says no size, or the mask cannot be read.
        RleError: a row is no run-length code of the mask's grid.
    """
    if not knows_mask(sample, label):
        raise KeyError(f"nothing says where {label} is in {sample.name}")
    place = letterbox(sample, size)
    if label in sample.masks:
        return _resampled(_drawn(sample.masks[label]), place)
    if label in sample.runs:
        return _resampled(rle.decode_all(sample.runs[label]), place)
    drawn = np.zeros((size, size), dtype=np.bool_)
    for name, *edges in _boxes(sample, place):
        if name == label:
            left, top, right, bottom = (round(edge) for edge in edges)
            drawn[top:bottom, left:right] |= _within(bottom - top, right - left, boxes_as)
    return drawn


def lesions(sample: Sample, label: str, size: int) -> tuple[Mask, ...]:
    """As :func:`source_lesions`, in the letterbox ``bool[size, size]``."""
    if label in sample.runs or label in sample.masks:
        return region_masks(mask(sample, label, size))
    own = tuple(box for box in sample.boxes if box.label == label)
    return tuple(mask(replace(sample, boxes=(box,), boxed=frozenset({label})), label, size) for box in own)


def _within(rows: int, columns: int, shape: BoxShape) -> Mask:
    """Which pixels of a box ``bool[rows, columns]`` count: those whose middle lies in the shape."""
    if shape == "filled":
        return np.ones((rows, columns), np.bool_)
    down, across = ((2 * np.arange(count) + 1) / count - 1 for count in (rows, columns))
    inside: Mask = down[:, np.newaxis] ** 2 + across[np.newaxis, :] ** 2 <= 1
    return inside


def source_mask(sample: Sample, label: str, rows: int, columns: int) -> Mask:
    """The pixels of a finding in the image's own grid ``bool[rows, columns]``; see :func:`mask`.

    Raises:
        KeyError: nothing is known of where this finding is.
        RleError: a row is no run-length code of the mask's grid.
    """
    if not knows_mask(sample, label):
        raise KeyError(f"nothing says where {label} is in {sample.name}")
    if label in sample.runs or label in sample.masks:
        whole = _drawn(sample.masks[label]) if label in sample.masks else rle.decode_all(sample.runs[label])
        if whole.shape == (rows, columns):
            return whole
        return np.asarray(Image.fromarray(whole).resize((columns, rows), Image.Resampling.NEAREST))
    drawn = np.zeros((rows, columns), dtype=np.bool_)
    for lesion in source_lesions(sample, label, rows, columns):
        drawn |= lesion
    return drawn


def source_lesions(sample: Sample, label: str, rows: int, columns: int) -> tuple[Mask, ...]:
    """Each lesion of a finding in the image's own grid: each box, or each connected region of what was drawn.

    Raises:
        RleError: a row is no run-length code of the mask's grid.
    """
    if label in sample.runs or label in sample.masks:
        return region_masks(source_mask(sample, label, rows, columns))
    lesions = []
    for box in sample.boxes:
        if box.label == label:
            drawn = np.zeros((rows, columns), dtype=np.bool_)
            across = slice(round(box.x * columns), round((box.x + box.width) * columns))
            drawn[round(box.y * rows) : round((box.y + box.height) * rows), across] = True
            lesions.append(drawn)
    return tuple(lesions)


def boxes(sample: Sample, size: int) -> list[NetworkBox]:
    """Each box as label, left, top, right and bottom in network pixels (edges, not centres).

    Raises:
        UnreadableImage: the file says no size.
    """
    return _boxes(sample, letterbox(sample, size)) if sample.boxes else []


def _boxes(sample: Sample, place: Letterbox) -> list[NetworkBox]:
    found = []
    for box in sample.boxes:
        left, top = place.to_network(box.x * place.columns, box.y * place.rows)
        right, bottom = place.to_network((box.x + box.width) * place.columns, (box.y + box.height) * place.rows)
        found.append((box.label, left, top, right, bottom))
    return found


def _drawn(mask: DrawnMask) -> Mask:
    """A mask file's white pixels, or one region of them.

    Raises:
        UnreadableImage: it is no picture, or has no such region.
    """
    try:
        with Image.open(mask.file) as opened:
            whole: Mask = np.asarray(opened.convert("L")) >= 128
    except (OSError, UnidentifiedImageError) as error:
        raise UnreadableImage(f"its mask {mask.file.name} cannot be read: {error}") from error
    if mask.region is None:
        return whole
    regions = sorted(region_masks(whole), key=lambda region: float(np.nonzero(region)[1].mean()))
    if mask.region >= len(regions):
        raise UnreadableImage(f"its mask {mask.file.name} has {len(regions)} regions, too few")
    return regions[mask.region]


def _resampled(whole: Mask, place: Letterbox) -> Mask:
    """A mask on its data set's grid, laid where the letterbox has the image."""
    rows, columns = whole.shape
    own = Letterbox(
        rows, columns, place.image_height, place.image_width, place.image_height * columns / (place.image_width * rows)
    )
    drawn = np.zeros((place.height, place.width), dtype=np.bool_)
    filled = own.forward(whole.astype(np.float32)) >= 0.5
    drawn[place.top : place.top + place.image_height, place.left : place.left + place.image_width] = filled
    return drawn


def _shape(image: Path) -> tuple[int, int, float]:
    """Rows, columns and pixel aspect of a file."""
    if image.suffix.lower() in PICTURES:
        try:
            with Image.open(image) as opened:
                return opened.height, opened.width, 1.0
        except (OSError, UnidentifiedImageError) as error:
            raise UnreadableImage(f"cannot be decoded: {error}") from error
    try:
        header = read_file(image, stop_before_pixels=True)
        return int(header.Rows), int(header.Columns), pixel_aspect_of(header)
    except UnreadablePixels as error:
        raise UnreadableImage(f"cannot be decoded: {error.sentence}") from error
    except OSError as error:
        raise UnreadableImage(f"cannot be decoded: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UnreadableImage(f"says no size: {error}") from error


def _capture(image: Path) -> Dataset:
    """A picture file as a Secondary Capture data set with native pixels (PS3.3 A.8), nothing said but its pixels."""
    samples = _samples(image)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = samples.shape[:2]
    dataset.SamplesPerPixel = 3 if samples.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if samples.ndim == 3 else "MONOCHROME2"
    if samples.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * samples.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    content = samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.PixelData = content + b"\x00" * (len(content) % 2)
    return dataset


def _samples(image: Path) -> NDArray[np.unsignedinteger]:
    try:
        if image.suffix.lower() in _JPEG:
            content = image.read_bytes()
            jpeg_header(content)
            return np.ascontiguousarray(imagecodecs.jpeg8_decode(content))
        with Image.open(image) as opened:
            if opened.mode in _WIDE:
                return _wide(opened)
            return np.asarray(opened.convert("L" if opened.mode in ("L", "1", "LA") else "RGB"))
    except (OSError, UnidentifiedImageError, ValueError, RuntimeError, SyntaxError) as error:
        raise UnreadableImage(f"cannot be decoded: {error}") from error


def _wide(opened: Image.Image) -> NDArray[np.unsignedinteger]:
    """16-bit grey values; Pillow may hold them in 32 bits."""
    values = np.asarray(opened)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("it has more than 16 bits a pixel")
    return values.astype(np.uint16)
