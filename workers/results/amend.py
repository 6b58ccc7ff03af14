"""From what highdicom builds to what this node writes: the one step that follows every highdicom constructor.

An encoder does four things, in this order::

    header = header_of(analysis, KIND)                  # or Header(...) where there is no analysis
    built = hd.seg.Segmentation(
        source_images=[header.image(shape, spacing)],   # never the source itself
        pixel_array=masks,
        **header.arguments(),
    )
    built.BodyPartExamined = BODY_PART                  # what highdicom has no argument for
    return amend(built, header)                         # always last

*The stand-ins.* highdicom copies patient and study from the images that it is given and refuses what breaks a rule (a
date of ``2026-03-01``, a sex of ``X``, a missing Study ID). A broken source must not stop an encoder, so highdicom
gets data sets with the references and nothing else, and ``amend`` puts patient and study on the result. The source
stands in as a Computed Radiography image: highdicom looks the SOP class up, knows not every one, and wants functional
groups of a multi-frame one. ``amend`` puts its SOP class into the references.

*The amendments.* What highdicom does otherwise than we need:

=========================================  ===========================================================================
highdicom                                  here, and why
=========================================  ===========================================================================
copies patient and study with checks       copied as :mod:`workers.results.header` does: identity to the letter
``now()`` for all dates and times          the job's time, so that the same work gives the same bytes
random Dimension Organization UID          derived from the analysis, for the same reason
names itself as Contributing Equipment     each model that was run, and the acquisition device (TID 4019 has the same)
its own Implementation Class UID           the node's, by which we know our own objects
ReferencedSegmentNumber beside a frame     dropped: a frame of a SEG determines its segment, and dciodvfy wants one
plane groups only with a Frame of          the stand-in lends one (``spacing``) and ``amend`` takes it back: a
Reference                                  radiograph has none, but viewers draw no segment without plane groups
no Specific Character Set of a stand-in    the source's, or UTF-8 if that cannot encode our texts
=========================================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from highdicom import ContributingEquipment
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes as known
from pydicom.tag import BaseTag
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from config.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from db.records import StaleObject
from models.contract import ModelUse
from models.model_spec import Code
from workers.results.encoder import Analysis, Equipment
from workers.results.header import (
    ACQUISITION,
    RESEARCH_USE,
    copied,
    copy_patient_and_study,
    copy_valid,
    finish,
    items_of,
    long_string,
    set_times,
)
from workers.results.result_kinds import series_description, series_number
from workers.results.standard_tables import remember_answers
from workers.results.study_account import Reference, reference_to

remember_answers()

_PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
# No result of ours is in a coordinate system of the patient.
_BORROWED = ("FrameOfReferenceUID", "PositionReferenceIndicator")
_NOMINAL_FRAME_OF_REFERENCE = "2.25.1"
_REFERENCED_INSTANCE, _REFERENCED_FRAME = BaseTag(0x00081155), BaseTag(0x00081160)
_NOMINAL_POSITION = [0.0, 0.0, 0.0]
# Viewers assume this for a source without Image Orientation (Patient), and draw nothing with any other value.
_NOMINAL_ORIENTATION = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """What the header of one result object is made of.

    ``source`` is the header of an image of the study, ``created_at`` the job's time with time zone.
    ``dimension_organization_uid`` is needed only by an object with dimensions.
    """

    source: Dataset
    equipment: Equipment
    models: tuple[ModelUse, ...]
    created_at: datetime
    sop_instance_uid: str
    series_instance_uid: str
    series_number: int
    series_description: str
    instance_number: int = 1
    dimension_organization_uid: str = ""

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments that every highdicom constructor of a SOP instance takes."""
        return {
            "sop_instance_uid": self.sop_instance_uid,
            "series_instance_uid": self.series_instance_uid,
            "series_number": self.series_number,
            "series_description": self.series_description,
            "instance_number": max(self.instance_number, 1),
            "manufacturer": self.equipment.manufacturer,
            "manufacturer_model_name": self.equipment.manufacturer_model_name,
            "software_versions": list(self.equipment.software_versions),
            "device_serial_number": self.equipment.device_serial_number,
            "transfer_syntax_uid": ExplicitVRLittleEndian,
        }

    def image(self, shape: tuple[int, int], spacing: tuple[float, float] | None = None) -> Dataset:
        """The stand-in of the source, an image of ``shape`` (rows, columns).

        With ``spacing`` (of rows and of columns, in mm) it lies in a nominal Frame of Reference, without which
        highdicom writes no plane groups.
        """
        made = stand_in(reference_to(self.source), str(self.source.StudyInstanceUID), shape)
        made.SOPClassUID = ComputedRadiographyImageStorage
        if spacing is not None:
            made.FrameOfReferenceUID = _NOMINAL_FRAME_OF_REFERENCE
            made.ImagePositionPatient, made.ImageOrientationPatient = _NOMINAL_POSITION, _NOMINAL_ORIENTATION
            made.PixelSpacing = [decimal(value) for value in spacing]
            made.SliceThickness = made.SpacingBetweenSlices = "1"
        return made


def header_of(analysis: Analysis, kind: str) -> Header:
    """The header of the object of ``kind`` of an analysis; all its UIDs are derived from the analysis."""
    identity = analysis.identity
    return Header(
        source=analysis.source,
        equipment=analysis.equipment,
        models=analysis.prediction.models,
        created_at=analysis.created_at,
        sop_instance_uid=identity.uid(kind),
        series_instance_uid=identity.uid(kind, "series"),
        series_number=series_number(kind, analysis.series_number_base),
        series_description=series_description(kind, identity.revision),
        instance_number=identity.revision,
        dimension_organization_uid=identity.uid(kind, "dimension-organization"),
    )


def stand_in(item: Reference | StaleObject, study_instance_uid: str, shape: tuple[int, int] | None = None) -> Dataset:
    """What highdicom gets instead of an instance to which an object refers: its UIDs, and an empty patient.

    With ``shape`` (rows, columns) highdicom takes it for an image.
    """
    made = Dataset()
    for keyword in _PATIENT_AND_STUDY:
        setattr(made, keyword, None)
    made.SOPClassUID, made.SOPInstanceUID = item.sop_class_uid, item.sop_instance_uid
    made.SeriesInstanceUID, made.StudyInstanceUID = item.series_instance_uid, study_instance_uid
    if shape is not None:
        made.Rows, made.Columns = shape
        made.SamplesPerPixel = 1
    return made


def concept(code: Code) -> CodedConcept:
    """A code as an item of a code sequence, of highdicom's type."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def amend(built: Dataset, header: Header) -> Dataset:
    """The object that this node writes, made of what highdicom has ``built``; the module's docstring lists the changes.

    The result is a plain data set with file meta. It shares the sequences of ``built``, which is used up. Texts that
    are set afterwards may not fit its character set.
    """
    made = Dataset({element.tag: element for element in built if element.keyword not in _BORROWED})
    made.preamble, made.file_meta = built.preamble, built.file_meta
    made.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    made.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    copy_patient_and_study(header.source, made)
    set_times(header.source, made, header.created_at)
    _set_site(made, header)
    made.ContributingEquipmentSequence = Sequence(_contributing_equipment(header))
    _set_dimension_organization(made, header.dimension_organization_uid)
    _correct_references(made, header.source)
    return finish(made, header.source)


def _set_site(made: Dataset, header: Header) -> None:
    """Station and institution (PS3.3 C.7.5.1): the site's, or that of the source."""
    made.StationName = header.equipment.station_name
    own = copied(header.source, "InstitutionName")
    institution = header.equipment.institution_name or ("" if own is None else str(own.value or ""))
    if institution:
        made.InstitutionName = long_string(institution)


def _contributing_equipment(header: Header) -> Iterator[Dataset]:
    """PS3.3 C.12.1.1.5: each model that was run, or the node if there was none, and the acquisition device."""
    equipment, processing = header.equipment, known.DCM.ProcessingEquipment
    for model in header.models:
        item = ContributingEquipment(
            equipment.manufacturer,
            processing,
            manufacturer_model_name=long_string(model.title),
            software_versions=long_string(model.version),
            device_serial_number=model.digest[:64],
            contribution_description=f"{model.name} {model.version}, SHA-256 {model.digest}. {RESEARCH_USE}",
        )
        if model.device_uid:
            item.DeviceUID = UID(model.device_uid)
        yield item
    if not header.models:
        yield ContributingEquipment(
            equipment.manufacturer,
            processing,
            manufacturer_model_name=equipment.manufacturer_model_name,
            software_versions=equipment.software_versions,
            device_serial_number=equipment.device_serial_number,
            contribution_description=RESEARCH_USE,
        )
    if header.source.get("Manufacturer"):
        acquisition = Dataset()  # highdicom takes no values that break a rule
        acquisition.PurposeOfReferenceCodeSequence = [CodedConcept(*known.DCM.AcquisitionEquipment)]
        copy_valid(header.source, acquisition, ACQUISITION)
        yield acquisition


def _set_dimension_organization(made: Dataset, uid: str) -> None:
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(keyword) or ():
            item.DimensionOrganizationUID = UID(uid)


def _correct_references(made: Dataset, source: Dataset) -> None:
    """Name the SOP class of the source, for which the stand-in has another one, and of a frame no segment."""
    uid, class_uid = source.SOPInstanceUID, source.SOPClassUID
    for item in items_of(made):
        referenced = item.get(_REFERENCED_INSTANCE)
        if referenced is not None and referenced.value == uid:
            item.ReferencedSOPClassUID = class_uid
        if _REFERENCED_FRAME in item:
            item.pop("ReferencedSegmentNumber", None)


def decimal(value: float) -> str:
    """A DS value (PS3.5 6.2: at most 16 characters)."""
    return f"{value:.10g}"
