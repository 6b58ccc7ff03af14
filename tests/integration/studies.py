"""Studies as a PACS forwards them: images that we want, images that we do not want, and things that are no images."""

from __future__ import annotations

from io import BytesIO

import highdicom
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from tests.viewers.phantoms import Look, radiograph

STUDY_KEYWORDS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "AccessionNumber",
    "StudyDescription",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "SpecificCharacterSet",
)
_BASIC_TEXT_SR = UID("1.2.840.10008.5.1.4.1.1.88.11")
_ENCAPSULATED_PDF = UID("1.2.840.10008.5.1.4.1.1.104.1")
_SECONDARY_CAPTURE = UID("1.2.840.10008.5.1.4.1.1.7")


def frontal(number: int = 1) -> FileDataset:
    """A chest PA in a study of its own."""
    image = radiograph(Look("CR"))
    image.PatientID = f"P{number:04d}"
    image.AccessionNumber = f"A{number:04d}"
    assert image.SOPClassUID == ComputedRadiographyImageStorage
    return image


def whole_study() -> dict[str, Dataset]:
    """A chest PA and lateral, a key object, a scanned page, a report and a PDF, all of one study."""
    posterior = frontal()
    lateral = radiograph(Look("CR", ("A", "F")))
    _join(lateral, posterior)
    lateral.SeriesInstanceUID = posterior.SeriesInstanceUID
    lateral.ViewPosition, lateral.InstanceNumber = "LL", 2
    return {
        "pa": posterior,
        "lateral": lateral,
        "key object": _key_object(posterior),
        "scanned page": _scanned_page(posterior),
        "report": _report(posterior),
        "pdf": _pdf(posterior),
    }


def _join(one: Dataset, study: Dataset) -> None:
    for keyword in STUDY_KEYWORDS:
        setattr(one, keyword, study[keyword].value)


def _new(study: Dataset, sop_class: UID, modality: str, series_number: int) -> FileDataset:
    made = FileDataset("", {}, file_meta=_meta(sop_class), preamble=b"\0" * 128)
    _join(made, study)
    made.SOPClassUID, made.SOPInstanceUID = sop_class, made.file_meta.MediaStorageSOPInstanceUID
    made.SeriesInstanceUID = generate_uid()
    made.Modality, made.SeriesNumber, made.InstanceNumber = modality, series_number, 1
    made.ContentDate, made.ContentTime = study.StudyDate, study.StudyTime
    made.Manufacturer = "Scanner of a test"
    return made


def _meta(sop_class: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _key_object(study: FileDataset) -> Dataset:
    content = highdicom.ko.KeyObjectSelection(codes.DCM.OfInterest, [study])
    series, instance = generate_uid(), generate_uid()
    selected: Dataset = highdicom.ko.KeyObjectSelectionDocument([study], content, series, 5, instance, 1, "A test")
    return selected


def _scanned_page(study: Dataset) -> Dataset:
    page = _new(study, _SECONDARY_CAPTURE, "OT", 6)
    page.SeriesDescription, page.ConversionType = "Request form", "SD"
    page.SamplesPerPixel, page.PhotometricInterpretation = 1, "MONOCHROME2"
    page.Rows, page.Columns = 800, 600
    page.BitsAllocated, page.BitsStored, page.HighBit, page.PixelRepresentation = 8, 8, 7, 0
    page.PixelData = np.full((800, 600), 250, np.uint8).tobytes()
    return page


def _report(study: Dataset) -> Dataset:
    report = _new(study, _BASIC_TEXT_SR, "SR", 7)
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "SEPARATE"
    report.CompletionFlag, report.VerificationFlag = "COMPLETE", "UNVERIFIED"
    report.ReferencedPerformedProcedureStepSequence = []
    report.PerformedProcedureCodeSequence = []
    report.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    text = Dataset()
    text.RelationshipType, text.ValueType = "CONTAINS", "TEXT"
    text.ConceptNameCodeSequence = [_code("121071", "DCM", "Finding")]
    text.TextValue = "A report that somebody else wrote."
    report.ContentSequence = [text]
    return report


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _pdf(study: Dataset) -> Dataset:
    buffer = BytesIO()
    Image.new("L", (200, 280), 255).save(buffer, "PDF")
    data = buffer.getvalue()
    document = _new(study, _ENCAPSULATED_PDF, "DOC", 8)
    document.BurnedInAnnotation, document.DocumentTitle = "YES", "Letter"
    document.ConversionType = "SD"
    document.ConceptNameCodeSequence = []
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocument = data + b"\0" * (len(data) % 2)
    document.EncapsulatedDocumentLength = len(data)
    return document
