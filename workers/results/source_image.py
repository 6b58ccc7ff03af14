"""The source image of an analysis: its pixels, and the attributes of its header that are read or copied.

Everything else of a received data set is never converted. What is here is of the value representation and multiplicity
that the standard promises (:mod:`models.radiograph.attributes`), so the encoders need not ask again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID

from models.contract import ModelInput, NotAnalysed
from models.radiograph.attributes import sound_attributes
from models.radiograph.decode import MAXIMUM_PIXELS, PixelFault, UnreadablePixels, read_file
from models.radiograph.reading import read_model_input
from workers.results.header import ACQUISITION, TYPE_2, TYPE_3

OBJECT_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
"""Without these no object of ours can refer to the image."""

IDENTITY = (*OBJECT_UIDS, "PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber")
"""Read and copied to the letter, whatever rule of the standard they break."""

HEADER = (
    *IDENTITY,
    "TimezoneOffsetFromUTC",
    # Patient and study, as they are copied.
    *TYPE_2,
    *TYPE_3,
    # Series, acquisition and equipment.
    "Modality",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    "ViewPosition",
    "PatientOrientation",
    *ACQUISITION,
    # The picture.
    "Rows",
    "Columns",
    "PhotometricInterpretation",
    "PresentationLUTShape",
    "BurnedInAnnotation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "ModalityLUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "ShutterShape",
    "ShutterLeftVerticalEdge",
    "ShutterRightVerticalEdge",
    "ShutterUpperHorizontalEdge",
    "ShutterLowerHorizontalEdge",
    "CenterOfCircularShutter",
    "RadiusOfCircularShutter",
    "VerticesOfThePolygonalShutter",
    "ShutterPresentationValue",
)
"""What the encoders, the measures and the worker read of a source image's header."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """A received image: its header (:data:`HEADER`), and its pixels, or why there are none to be analysed."""

    header: Dataset
    model_input: ModelInput | None
    not_analysed: NotAnalysed | None = None


def read_source(path: Path, threads: int = 1, maximum_pixels: int = MAXIMUM_PIXELS) -> SourceImage:
    """Read a received file; ``threads`` and ``maximum_pixels`` as for :func:`models.radiograph.decode.decode`.

    Raises:
        OSError: the file cannot be read now, which says nothing about its bytes.
    """
    try:
        dataset = read_file(path)
        header = sound_header(dataset)
    except UnreadablePixels as error:
        # There is no header to make an object of.
        return SourceImage(Dataset(), None, replace(error.not_analysed, is_chest=False))
    try:
        return SourceImage(header, read_model_input(dataset, threads, maximum_pixels))
    except UnreadablePixels as error:
        return SourceImage(header, None, error.not_analysed)


def read_header(path: Path) -> Dataset:
    """The header of a received file.

    Raises:
        OSError: the file cannot be read now.
        UnreadablePixels: it is no DICOM file, or nothing can refer to it.
    """
    return sound_header(read_file(path, stop_before_pixels=True))


def sound_header(dataset: Dataset) -> Dataset:
    """The attributes of :data:`HEADER` that can be believed, with the file meta.

    Raises:
        UnreadablePixels: one of :data:`OBJECT_UIDS` is not among them.
    """
    header = sound_attributes(dataset, HEADER, to_the_letter=IDENTITY)
    for keyword in OBJECT_UIDS:
        if not isinstance(header.get(keyword), UID) or not header[keyword].value:
            raise UnreadablePixels(PixelFault.NOT_DICOM, f"The data set has no {keyword} that can be read.")
    return header
