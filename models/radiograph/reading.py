"""A DICOM radiograph as any model wants it: pixels as a person would see them, their spacing and their orientation."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset

from models.contract import ModelInput, Spacing
from models.radiograph.decode import decode, read_file
from models.radiograph.grayscale import numbers, to_grayscale
from models.radiograph.orientation import patient_orientation


def read_model_input(source: Dataset | Path, threads: int = 1) -> ModelInput:
    """Decode a radiograph and describe where its pixels came from.

    Raises:
        UnreadablePixels: The pixels cannot be read, or are no single grey image.
    """
    dataset = read_file(source) if isinstance(source, Path) else source
    stored = decode(dataset, threads)
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
    one, and still belongs to the detector: the factor is an estimate for one depth.
    """
    pixel, imager = _positive_pair(dataset, "PixelSpacing"), _positive_pair(dataset, "ImagerPixelSpacing")
    if pixel is not None:
        calibrated = bool(str(dataset.get("PixelSpacingCalibrationType") or "").strip())
        return Spacing(*pixel, plane="patient" if calibrated and imager != pixel else "detector")
    if imager is None:
        return None
    factor = numbers(dataset, "EstimatedRadiographicMagnificationFactor")[:1]
    if factor and factor[0] > 0:
        return Spacing(imager[0] / factor[0], imager[1] / factor[0], "detector", magnification=factor[0])
    return Spacing(*imager, plane="detector")


def _positive_pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    pair = numbers(dataset, keyword)
    return (pair[0], pair[1]) if len(pair) == 2 and min(pair) > 0 else None


def pixel_aspect_of(dataset: Dataset) -> float:
    """Height of a pixel divided by its width, from the spacing or from Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7)."""
    spacing = spacing_of(dataset)
    if spacing is not None:
        return spacing.row / spacing.column
    ratio = _positive_pair(dataset, "PixelAspectRatio")
    return ratio[0] / ratio[1] if ratio is not None else 1.0
