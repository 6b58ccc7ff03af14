"""A DICOM object of pixels alone, for programs that read nothing else."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from models.contract import ModelInput

_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "SeriesNumber",
    "Laterality",
    "BodyPartExamined",
    "Manufacturer",
    "InstanceNumber",
)
"""Attributes that a CR image must have and whose value may be empty (type 2)."""


def pixel_object(values: NDArray[np.uint16], image: ModelInput) -> bytes:
    """A CR image (PS3.3 A.2) of ``values [rows, columns]`` as a file, with new UIDs and without identity."""
    dataset = Dataset()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, generate_uid(prefix=None))
    for keyword in _EMPTY:
        setattr(dataset, keyword, None)
    dataset.Modality = "CR"
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "New object of pixels alone"
    dataset.ViewPosition = image.view
    dataset.PatientOrientation = list(image.patient_orientation or ())
    if image.spacing is not None:
        name = "PixelSpacing" if image.spacing.plane == "patient" else "ImagerPixelSpacing"
        setattr(dataset, name, [round(image.spacing.row, 8), round(image.spacing.column, 8)])
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.add_new("PixelData", "OW", values.astype("<u2").tobytes())
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
