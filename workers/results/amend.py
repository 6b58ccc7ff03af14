"""From what highdicom builds to what this node writes: the one step that follows every highdicom constructor.

An encoder does four things, in this order::

    header = header_of(analysis, KIND)                       # or Header(...) where there is no analysis
    image = stand_in(analysis.source)                        # never the source itself
    built = hd.sr.Comprehensive3DSR(evidence=[image], content=content, **header.arguments())
    built.SegmentDescription = ...                           # what highdicom has no argument for
    return amend(built, header)                              # always last

*The stand-in.* highdicom copies patient and study from the images that it is given and refuses what breaks a rule (a
date of ``2026-03-01``, a sex of ``X``, a missing Study ID). A broken source must not stop an encoder, so highdicom
gets a data set with the references and nothing else, and ``amend`` puts patient and study on the result.

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
plane groups only with a Frame of          the stand-in lends one (``nominal=True``) and ``amend`` takes it back: a
Reference                                  radiograph has none, but viewers draw no segment without plane groups
no Specific Character Set of a stand-in    the source's, or UTF-8 if that cannot encode our texts
=========================================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

from models.contract import ModelUse
from workers.results.encoder import Analysis, Equipment
from workers.results.header import (
    SERIES_OFFSETS,
    contributing_equipment,
    copy_patient_and_study,
    file_meta,
    finish,
    series_description,
    set_equipment,
    set_times,
)

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
NOMINAL_POSITION = (0.0, 0.0, 0.0)
NOMINAL_ORIENTATION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Viewers assume this for a source without Image Orientation (Patient), and draw nothing with any other value."""


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
            "software_versions": self.equipment.software_versions,
            "device_serial_number": self.equipment.device_serial_number,
        }


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
        series_number=analysis.series_number_base + SERIES_OFFSETS[kind],
        series_description=series_description(kind, identity.revision),
        instance_number=identity.revision,
        dimension_organization_uid=identity.uid(kind, "dimension-organization"),
    )


def stand_in(
    instance: Dataset,
    study_instance_uid: str = "",
    *,
    shape: tuple[int, int] | None = None,
    nominal: bool = False,
) -> Dataset:
    """What highdicom gets instead of ``instance``: its UIDs, its modality and its size, and an empty patient.

    ``instance`` needs SOPClassUID, SOPInstanceUID and SeriesInstanceUID, and StudyInstanceUID unless
    ``study_instance_uid`` is given. ``shape`` (rows, columns) is that of an image; by default Rows and Columns of
    ``instance``, if it has them. ``nominal`` adds a Frame of Reference with a position and an orientation, without
    which highdicom writes no plane groups.
    """
    made = Dataset()
    for keyword in _PATIENT_AND_STUDY:
        setattr(made, keyword, None)
    made.SOPClassUID, made.SOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
    made.SeriesInstanceUID = instance.SeriesInstanceUID
    made.StudyInstanceUID = study_instance_uid or instance.StudyInstanceUID
    made.Modality = str(instance.get("Modality") or "OT")
    if shape is None and "Rows" in instance and "Columns" in instance:
        shape = int(instance.Rows), int(instance.Columns)
    if shape is not None:
        made.Rows, made.Columns = shape
        made.SamplesPerPixel = 1
    if nominal:
        made.FrameOfReferenceUID = _NOMINAL_FRAME_OF_REFERENCE
        made.ImagePositionPatient = list(NOMINAL_POSITION)
        made.ImageOrientationPatient = list(NOMINAL_ORIENTATION)
    return made


def amend(built: Dataset, header: Header) -> Dataset:
    """The object that this node writes, made of what highdicom has ``built``; the module's docstring lists the changes.

    The result is a plain data set with file meta. It shares the sequences of ``built``, which is used up. Texts that
    are set afterwards may not fit its character set.
    """
    made = Dataset({element.tag: element for element in built if element.keyword not in _BORROWED})
    made.preamble = b"\0" * 128
    made.file_meta = file_meta(str(built.SOPClassUID), header.sop_instance_uid)
    copy_patient_and_study(header.source, made)
    made.SOPInstanceUID = UID(header.sop_instance_uid)
    made.SeriesInstanceUID = UID(header.series_instance_uid)
    set_times(header.source, made, header.created_at)
    set_equipment(header.source, made, header.equipment)
    made.ContributingEquipmentSequence = contributing_equipment(header.source, header.equipment, header.models)
    _set_dimension_organization(made, header.dimension_organization_uid)
    _drop_segment_numbers(made)
    return finish(made, header.source)


def _set_dimension_organization(made: Dataset, uid: str) -> None:
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(keyword) or ():
            item.DimensionOrganizationUID = UID(uid)


def _drop_segment_numbers(made: Iterable[Any]) -> None:
    """Drop Referenced Segment Number of each reference that has Referenced Frame Number (PS3.3 table 10-3: one)."""
    for element in made:
        if element.VR == "SQ":
            for item in element.value:
                if "ReferencedFrameNumber" in item:
                    item.pop("ReferencedSegmentNumber", None)
                _drop_segment_numbers(item)
