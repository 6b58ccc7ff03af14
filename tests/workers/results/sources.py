"""Source images and analyses for the encoder tests: made here, so that every oddity can be had on demand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from highdicom.sr import MeasurementReport
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from models.contract import Box, Finding, Hanging, Mask, ModelInput, ModelUse, NotAnalysed, Prediction, Spacing
from models.lung_fields import LungFields
from models.model_spec import Code, Mode
from models.radiograph.geometry import Letterbox
from tests.models.samples import set_elements
from workers.results.encoder import Analysis, Equipment
from workers.results.encoders import ENCODERS
from workers.results.identity import Identity
from workers.results.study_account import ImageAccount, Reference, StudyAccount, SummaryFinding, study_identity
from workers.results.summary import encode_summary

PNEUMOTHORAX = Code("36118008", "SCT", "Pneumothorax")
LUNG_OPACITY = Code("112001", "DCM", "Opacity")
CREATED_AT = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
MODEL = ModelUse("chest-classifier", "1.2.0", "Pleura chest classifier", "ab" * 32, "2.25.1234567890123456789")
EQUIPMENT = Equipment("Pleura", "Pleura node", ("0.1.0",), "PLEURA", "node-1")

SOP_CLASSES = {
    "cr": ComputedRadiographyImageStorage,
    "dx": DigitalXRayImageStorageForPresentation,
    "sc": SecondaryCaptureImageStorage,
}


def source(style: str = "cr", shape: tuple[int, int] = (64, 48), **changes: Any) -> Dataset:
    """A source header of ``style`` (cr, dx, sc); ``changes`` set elements, None removes one."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if style == "sc" else ExplicitVRLittleEndian
    made.SpecificCharacterSet = "ISO_IR 100"
    made.SOPClassUID = SOP_CLASSES[style]
    made.SOPInstanceUID = "1.2.826.0.1.3680043.10.1561.1.1"
    made.StudyInstanceUID = "1.2.826.0.1.3680043.10.1561.2.1"
    made.SeriesInstanceUID = "1.2.826.0.1.3680043.10.1561.3.1"
    made.StudyDate, made.StudyTime = "20260301", "101500"
    made.AccessionNumber, made.StudyID, made.StudyDescription = "A4711", "17", "CHEST PA"
    made.ReferringPhysicianName = ""
    made.PatientName, made.PatientID = "Doe^Jane", "P-0815"
    made.PatientBirthDate, made.PatientSex, made.PatientAge = "19610203", "F", "065Y"
    made.Modality = "DX" if style == "dx" else "CR"
    made.Manufacturer, made.InstitutionName = "ACME", "General Hospital"
    made.BodyPartExamined, made.ViewPosition = "CHEST", "PA"
    made.PatientOrientation = ["L", "F"]
    made.Rows, made.Columns = shape
    made.PhotometricInterpretation = "MONOCHROME2"
    if style == "sc":
        made.LossyImageCompression, made.LossyImageCompressionRatio = "01", "8.0"
        made.LossyImageCompressionMethod = "ISO_10918_1"
        made.PixelSpacing = ["0.5", "0.4"]
    else:
        made.ImagerPixelSpacing = ["0.5", "0.4"]
    if style == "dx":
        made.WindowCenter, made.WindowWidth, made.PresentationLUTShape = "2048", "4096", "IDENTITY"
    set_elements(made, changes)
    return made


def corner_mask(shape: tuple[int, int] = (64, 48)) -> Mask:
    """An L in the top left part: no symmetry of the rectangle leaves it unchanged."""
    mask = np.zeros(shape, dtype=bool)
    rows, columns = shape
    mask[rows // 8 : rows // 2, columns // 8 : columns // 4] = True
    mask[rows // 8 : rows // 4, columns // 8 : columns * 3 // 8] = True
    return mask


def lung_fields(shape: tuple[int, int] = (64, 48), hanging: Hanging = Hanging.USUAL, **changes: Any) -> LungFields:
    """Two lungs of unlike size and height: that on the left of the picture is the longer one."""
    rows, columns = np.mgrid[0:32, 0:32] + 0.5
    first = ((columns - 9) / 5) ** 2 + ((rows - 16) / 12) ** 2 <= 1
    second = ((columns - 22) / 6) ** 2 + ((rows - 13) / 8) ** 2 <= 1
    sure = np.where(first | second, np.float32(0.9), np.float32(0.05))
    made = LungFields((first, second), hanging, Letterbox(*shape, 64, 64), sure, MODEL.name)
    return replace(made, **changes) if changes else made


def finding(**changes: Any) -> Finding:
    """A pneumothorax with the L as its mask."""
    values: dict[str, Any] = {
        "label": "pneumothorax",
        "code": PNEUMOTHORAX,
        "model": MODEL.name,
        "probability": 0.875,
        "threshold": 0.5,
    }
    return Finding(**(values | changes))


def positive(shape: tuple[int, int] = (64, 48)) -> tuple[Finding, ...]:
    """Pneumothorax with a mask and an opacity below its threshold."""
    return (
        finding(mask=corner_mask(shape)),
        finding(label="lung_opacity", code=LUNG_OPACITY, probability=0.125, threshold=0.4),
    )


def two_masks(shape: tuple[int, int] = (64, 48)) -> tuple[Finding, ...]:
    """Two findings with masks that overlap."""
    other = np.zeros(shape, dtype=bool)
    other[shape[0] // 6 : shape[0] // 3, shape[1] // 6 : shape[1] // 2] = True
    return (
        finding(mask=corner_mask(shape)),
        finding(label="lung_opacity", code=LUNG_OPACITY, probability=0.625, threshold=0.4, mask=other),
    )


def boxed() -> tuple[Finding, ...]:
    """A detector's finding: two boxes, no mask."""
    boxes = (Box(4, 8, 10, 12.5, 0.75), Box(30, 20, 8, 30, 0.5))
    return (finding(label="lung_opacity", code=LUNG_OPACITY, probability=0.75, boxes=boxes),)


def negative() -> tuple[Finding, ...]:
    """Nothing found."""
    return (
        finding(probability=0.0625),
        finding(label="lung_opacity", code=LUNG_OPACITY, probability=0.125, threshold=0.4),
    )


def shadow() -> Finding:
    """A finding that must never leave the node."""
    return finding(label="mass", code=Code("4147007", "SCT", "Mass"), mode=Mode.SHADOW, mask=corner_mask())


def analysis(header: Dataset | None = None, findings: tuple[Finding, ...] | None = None, **changes: Any) -> Analysis:
    """An analysis of ``header``; its pixels are a ramp from dark (top left) to bright."""
    header = header if header is not None else source()
    shape = (int(header.Rows), int(header.Columns))
    not_analysed: NotAnalysed | None = changes.pop("not_analysed", None)
    found = positive(shape) if findings is None else findings
    spacing = changes.pop("spacing", Spacing(0.5, 0.4, "detector"))
    fields = None if not_analysed else lung_fields(shape)
    prediction = Prediction(shape, () if not_analysed else found, not_analysed, (MODEL,), lung_fields=fields)
    made = Analysis(
        source=header,
        model_input=model_input(header, spacing),
        prediction=prediction,
        identity=identity(header),
        equipment=EQUIPMENT,
        created_at=CREATED_AT,
    )
    return replace(made, **changes) if changes else made


def model_input(header: Dataset, spacing: Spacing | None) -> ModelInput:
    rows, columns = int(header.Rows), int(header.Columns)
    pixels = np.linspace(0, 1, rows * columns, dtype=np.float32).reshape(rows, columns)
    view = str(header.get("ViewPosition") or "")
    return ModelInput(pixels=pixels, sop_instance_uid=str(header.SOPInstanceUID), spacing=spacing, view=view)


def identity(header: Dataset, pipeline: str = "cd" * 32, revision: int = 1) -> Identity:
    return Identity("2.25", str(header.SOPInstanceUID), "ef" * 32, pipeline, revision)


def encode_all(made: Analysis) -> dict[str, Dataset]:
    """Every kind of the registry, each encoder seeing what the ones before it made."""
    objects: dict[str, Dataset] = {}
    for entry in ENCODERS:
        encoded = entry.encode(replace(made, siblings=dict(objects)))
        if encoded is not None:
            objects[entry.kind] = encoded
    return objects


def write(made: Dataset, path: Path) -> Path:
    """Write an object as the node does."""
    made.save_as(path, enforce_file_format=True)
    return path


def measurement_report(path: Path) -> MeasurementReport:
    """What highdicom reads of a report by TID 1500."""
    content = highdicom.sr.srread(path).content
    assert isinstance(content, MeasurementReport)
    return content


def study_summary(header: Dataset, revision: int = 1, previous: Reference | None = None) -> Dataset:
    """The summary of a study with an analysed, a refused and a failed image."""
    image = Reference(str(header.SOPClassUID), str(header.SOPInstanceUID), str(header.SeriesInstanceUID))
    lateral = Reference(image.sop_class_uid, "1.2.3.4.5.6", "1.2.3.4.5")
    broken = Reference(image.sop_class_uid, "1.2.3.4.5.7", "1.2.3.4.5")
    report = Reference(str(Comprehensive3DSRStorage), "2.25.77", "2.25.78")
    account = StudyAccount(
        "critical",
        "pneumothorax 0.88",
        (
            ImageAccount(image, True, findings=(SummaryFinding(PNEUMOTHORAX, 0.875),), reports=(report,)),
            ImageAccount(lateral, False, "This is a lateral view."),
            ImageAccount(broken, False, "The pixels are broken.", failed=True),
        ),
    )
    return encode_summary(
        header,
        account,
        identity=study_identity("2.25", str(header.StudyInstanceUID), account, "cd" * 32, revision),
        equipment=EQUIPMENT,
        models=(MODEL,),
        created_at=CREATED_AT,
        previous=previous,
    )
