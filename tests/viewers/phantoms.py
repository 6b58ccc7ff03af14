"""Drawn radiographs whose every landmark is known: nothing here knows how Pleura encodes a result.

The picture is never darker than a quarter of the range, so that a viewer's black surround shows where it ends. It
carries one bright, solid, asymmetric mark (a fat letter F off the centre): mirrored, rotated or drifted it fits itself
nowhere. The same letter is the finding's mask, so a screenshot alone says whether an overlay lies where it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)

Style = Literal["CR", "DX", "SC"]
ROWS, COLUMNS = 640, 520
_CLASSES = {
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "SC": SecondaryCaptureImageStorage,
}


def mark(rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.bool_]:
    """The letter F: ``bool[rows, columns]``, in the upper left part of the picture."""
    mask = np.zeros((rows, columns), bool)
    top, left = int(rows * 0.19), int(columns * 0.17)
    height, width, pen = int(rows * 0.44), int(columns * 0.40), int(columns * 0.11)
    mask[top : top + height, left : left + pen] = True
    mask[top : top + pen, left : left + width] = True
    middle = top + int(height * 0.42)
    mask[middle : middle + pen, left : left + int(width * 0.72)] = True
    return mask


def picture(rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.float32]:
    """The drawn radiograph in [0, 1], dark is air: a grey ramp from 0.3 to 0.5 with the mark at 0.9."""
    ramp = np.linspace(0.3, 0.5, columns, dtype=np.float32)[np.newaxis, :].repeat(rows, axis=0)
    return np.where(mark(rows, columns), np.float32(0.9), ramp).astype(np.float32)


@dataclass(frozen=True)
class Look:
    """How a drawn radiograph is wrapped."""

    style: Style = "DX"
    orientation: tuple[str, str] | None = ("L", "F")
    monochrome1: bool = False
    spacing: float | None = 0.4
    rows: int = ROWS
    columns: int = COLUMNS


def radiograph(look: Look) -> FileDataset:
    """Wrap the drawn radiograph as a DICOM file of the wanted class, as a modality would write it."""
    syntax: UID = JPEGBaseline8Bit if look.style == "SC" else ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=_meta(syntax, look.style), preamble=b"\0" * 128)
    _identify(dataset, look)
    _describe(dataset, look)
    _pixels(dataset, look)
    return dataset


def as_bytes(dataset: Dataset) -> bytes:
    """A DICOM file as it lies on disk."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _meta(syntax: UID, style: Style) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _CLASSES[style]
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    return meta


def _identify(dataset: FileDataset, look: Look) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.PatientName = "Phantom^Drawn"
    dataset.PatientID = "PHANTOM-1"
    dataset.PatientBirthDate = "19600229"
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.StudyID = "1"
    dataset.AccessionNumber = "A0001"
    dataset.StudyDescription = "Chest PA"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = "20260301"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = dataset.AcquisitionTime = "101500"
    dataset.ReferringPhysicianName = ""
    dataset.Manufacturer = "Drawn in a test"
    dataset.Modality = "CR" if look.style == "SC" else look.style
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = "Chest PA"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _describe(dataset: FileDataset, look: Look) -> None:
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    if look.style == "SC":
        dataset.ConversionType = "WSD"
    if look.style == "DX":
        dataset.ImageType = ["ORIGINAL", "PRIMARY"]
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.PixelIntensityRelationship = "LOG"
        dataset.PixelIntensityRelationshipSign = -1 if look.monochrome1 else 1
        dataset.ImageLaterality = "U"
        dataset.AnatomicRegionSequence = [_code("51185008", "SCT", "Thorax")]
        dataset.AcquisitionContextSequence = []
        dataset.DetectorType = dataset.PositionerType = ""
        dataset.BurnedInAnnotation = "NO"
        dataset.LossyImageCompression = "00"
    if look.orientation is not None:
        dataset.PatientOrientation = list(look.orientation)
    elif look.style == "DX":
        dataset.PatientOrientation = None
    if look.spacing is not None:
        setattr(dataset, "PixelSpacing" if look.style == "SC" else "ImagerPixelSpacing", [look.spacing, look.spacing])


def _pixels(dataset: FileDataset, look: Look) -> None:
    bits = 8 if look.style == "SC" else 12
    values = np.round(picture(look.rows, look.columns) * (2**bits - 1))
    if look.monochrome1:
        values = (2**bits - 1) - values
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if look.monochrome1 else "MONOCHROME2"
    dataset.Rows, dataset.Columns = look.rows, look.columns
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2**bits
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    if look.style == "DX":
        dataset.PresentationLUTShape = "INVERSE" if look.monochrome1 else "IDENTITY"
    if bits == 8:
        buffer = BytesIO()
        Image.fromarray(values.astype(np.uint8)).save(buffer, "JPEG", quality=95)
        dataset.PixelData = encapsulate([buffer.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
        dataset.LossyImageCompressionRatio = round(values.size / len(buffer.getvalue()), 2)
    else:
        dataset.PixelData = values.astype("<u2").tobytes()
