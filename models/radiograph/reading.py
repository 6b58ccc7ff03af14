"""A DICOM radiograph as any model wants it: pixels as a person would see them, their spacing and their orientation."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset

from models.contract import ModelInput, Spacing
from models.radiograph.attributes import sound_attributes
from models.radiograph.decode import MAXIMUM_PIXELS, PIXEL_ATTRIBUTES, decode, read_file
from models.radiograph.grayscale import GREY_ATTRIBUTES, numbers, to_grayscale
from models.radiograph.orientation import patient_orientation

# Millimetres: a spacing beyond these is a mistake, and so is a pixel that is so many times as long as it is wide.
_SMALLEST_PIXEL, _LARGEST_PIXEL, _LONGEST_PIXEL = 0.01, 10.0, 10.0
# The detector is never nearer to the focus than the patient, and never ten times as far away.
_LARGEST_MAGNIFICATION = 10.0

IMAGE_ATTRIBUTES = (
    *PIXEL_ATTRIBUTES,
    *GREY_ATTRIBUTES,
    "SOPInstanceUID",
    "ViewPosition",
    "PatientOrientation",
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "ImagerPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
    "PixelAspectRatio",
)
"""All that is read of a data set on the way to a model."""


def read_model_input(source: Dataset | Path, threads: int = 1, maximum_pixels: int = MAXIMUM_PIXELS) -> ModelInput:
    """Decode a radiograph and describe where its pixels came from; ``threads`` and ``maximum_pixels`` as for decoding.

    Raises:
        UnreadablePixels: The pixels cannot be read, or are no single grey image.
    """
    dataset = sound_attributes(read_file(source) if isinstance(source, Path) else source, IMAGE_ATTRIBUTES)
    stored = decode(dataset, threads, maximum_pixels)
    pixels, notes = to_grayscale(stored, dataset)
    return ModelInput(
        pixels=pixels,
        sop_instance_uid=str(dataset.get("SOPInstanceUID") or ""),
        spacing=spacing_of(dataset),
        view=str(dataset.get("ViewPosition") or "").strip().upper(),
        patient_orientation=patient_orientation(dataset),
        pixel_aspect=pixel_aspect_of(dataset),
        notes=(*stored.notes, *notes),
    )


def spacing_of(dataset: Dataset) -> Spacing | None:
    """Spacing of the pixels and the plane where it holds (PS3.3 10.7.1.1, 10.7.1.3), or None where nothing says it.

    A Pixel Spacing counts as calibrated to the patient only if it says how it was calibrated and does not merely
    repeat the Imager Pixel Spacing. An Imager Pixel Spacing is divided by the estimated magnification where there is
    one, and still belongs to the detector: the factor is an estimate for one depth. What no radiograph can have says
    nothing.
    """
    pixel, imager = _spacing(dataset, "PixelSpacing"), _spacing(dataset, "ImagerPixelSpacing")
    if pixel is not None:
        calibrated = bool(str(dataset.get("PixelSpacingCalibrationType") or "").strip())
        return Spacing(*pixel, plane="patient" if calibrated and imager != pixel else "detector")
    if imager is None:
        return None
    factor = numbers(dataset, "EstimatedRadiographicMagnificationFactor")[:1]
    if factor and 1 <= factor[0] <= _LARGEST_MAGNIFICATION:
        return Spacing(imager[0] / factor[0], imager[1] / factor[0], "detector", magnification=factor[0])
    return Spacing(*imager, plane="detector")


def _spacing(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    pair = _proportion(dataset, keyword)
    return pair if pair is not None and min(pair) >= _SMALLEST_PIXEL and max(pair) <= _LARGEST_PIXEL else None


def _proportion(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    pair = numbers(dataset, keyword)
    if len(pair) != 2 or min(pair) <= 0 or max(pair) > _LONGEST_PIXEL * min(pair):
        return None
    return pair[0], pair[1]


def pixel_aspect_of(dataset: Dataset) -> float:
    """Height of a pixel divided by its width, from the spacing or from Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7)."""
    spacing = spacing_of(dataset)
    if spacing is not None:
        return spacing.row / spacing.column
    ratio = _proportion(dataset, "PixelAspectRatio")
    return ratio[0] / ratio[1] if ratio is not None else 1.0
