"""Which pixels may be exported, and in which form.

Pixels are not searched for text: what may hold burned-in text is not exported. Pixels are decoded and written
anew, without compression, so that nothing travels along in comments of a code stream, behind the last pixel, or in the
unused bits of each (where overlays used to be).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
)

from models.radiograph.attributes import sound_attributes
from models.radiograph.decode import StoredPixels, UnreadablePixels, decode, read_file
from workers.deidentification.profile import Changes, Done, known_keywords, name_of
from workers.results.source_image import OBJECT_UIDS

RADIOGRAPHS = frozenset(
    {
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForPresentation,
        DigitalXRayImageStorageForProcessing,
    }
)
_OF_PIXELS = ("PlanarConfiguration", "NumberOfFrames", "SmallestImagePixelValue", "LargestImagePixelValue")


class NotExportable(Exception):  # noqa: N818 - says what the image is
    """An image stays here; the message is for a person, and quotes nothing of it."""


def read_image(path: Path, unknown_burned_in: Literal["radiographs", "refuse"]) -> tuple[Dataset, Changes]:
    """A received image as far as its header can be believed, with its pixels written anew, and what was left out.

    Raises:
        NotExportable: it may hold burned-in text, or its pixels cannot be read.
        OSError: the file cannot be read now.
    """
    path.open("rb").close()
    try:
        dataset = read_file(path)
        image = sound_attributes(dataset, known_keywords(dataset))
        reason = why_not(image, unknown_burned_in)
        if reason:
            raise NotExportable(reason)
        if not all(image.get(keyword) for keyword in OBJECT_UIDS):
            raise NotExportable("one of its UIDs is missing")
        left_out = Changes((name_of(tag), Done.REMOVED) for tag in dataset.keys() - image.keys())
        _write_anew(image, decode(dataset))
    except UnreadablePixels as error:
        raise NotExportable(f"the pixels cannot be read ({error.code})") from error
    return image, left_out


def why_not(image: Dataset, unknown_burned_in: Literal["radiographs", "refuse"]) -> str:
    """Why an image may not leave; empty if it may."""
    if image.get("SOPClassUID") not in RADIOGRAPHS:
        return "not a radiograph (CR or DX): captures and scanned pages often have text burned in"
    burned_in = _words(image, "BurnedInAnnotation")
    if burned_in not in ([], ["NO"]):
        return "Burned In Annotation does not say NO"
    if "ConversionType" in image:
        return "scanned or captured (it has a Conversion Type)"
    kind = _words(image, "ImageType")
    if kind[1:2] == ["SECONDARY"]:
        return "derived from another image (Image Type)"
    if image.get("SamplesPerPixel", 1) != 1:
        return "in colour"
    if burned_in or (unknown_burned_in == "radiographs" and kind[1:2] == ["PRIMARY"]):
        return ""
    return "it does not say whether text is burned in"


def _words(image: Dataset, keyword: str) -> list[str]:
    value = image.get(keyword) or []
    return [str(word).strip().upper() for word in ([value] if isinstance(value, str) else value)]


def _write_anew(image: Dataset, pixels: StoredPixels) -> None:
    """Replace Pixel Data by the stored values alone, and say so in the Image Pixel module (PS3.3 C.7.6.3)."""
    if pixels.scaled:
        raise NotExportable("its pixels have another depth than its header says")
    if image.file_meta.TransferSyntaxUID == ExplicitVRBigEndian and "LUTData" in (
        each.keyword for each in image.iterall()
    ):
        raise NotExportable("a lookup table in big endian")
    for keyword in _OF_PIXELS:
        image.pop(keyword, None)
    allocated = 8 if pixels.bits <= 8 else 16
    image.SamplesPerPixel = 1
    image.BitsAllocated, image.BitsStored, image.HighBit = allocated, pixels.bits, pixels.bits - 1
    image.PixelRepresentation = int(pixels.signed)
    samples = pixels.values().astype(f"<{'i' if pixels.signed else 'u'}{allocated // 8}")
    data = np.ascontiguousarray(samples).tobytes()
    image.add_new("PixelData", "OB" if allocated == 8 else "OW", data + b"\0" * (len(data) % 2))
