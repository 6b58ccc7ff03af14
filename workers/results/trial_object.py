"""A test object for a destination: a Secondary Capture that says in every way what it is, so that it can be deleted.

Patient, study and picture name it as a test, Quality Control Image (0028,0300) is YES, and its UIDs are derived from
node, destination and day: trying ten times a day leaves one object.
"""

from __future__ import annotations

from datetime import datetime

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from workers.results.amend import Header, amend
from workers.results.encoder import Equipment
from workers.results.identity import derive_uid
from workers.results.overlay import text_sheet

PATIENT_NAME, PATIENT_ID = "PLEURA^TEST OBJECT", "PLEURA-TEST"
STUDY_DESCRIPTION = "TEST OBJECT, NOT FOR CLINICAL USE: DELETE"
_LINES = (
    "TEST OBJECT - NOT FOR CLINICAL USE",
    "Sent by an admin of a Pleura node to see whether this destination takes its results. It shows no patient. "
    "Delete it.",
)


def trial_object(equipment: Equipment, uid_root: str, sender: str, destination: str, now: datetime) -> Dataset:
    """The test object that the node ``sender`` (AE title) sends to ``destination`` on the day of ``now``."""

    def uid(part: str) -> str:
        return derive_uid(uid_root, "test object", sender, destination, f"{now:%Y%m%d}", part)

    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)  # the same content all day
    header = Header(
        source=_patient_and_study(uid("study"), midnight),
        equipment=equipment,
        models=(),
        created_at=midnight,
        sop_instance_uid=uid("instance"),
        series_instance_uid=uid("series"),
        series_number=1,
        series_description=STUDY_DESCRIPTION,
    )
    built = hd.sc.SCImage(
        pixel_array=np.asarray(text_sheet(_LINES)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=uid("study"),
        **header.arguments(),
    )
    built.ConversionType = "SYN"
    built.ImageType = ["DERIVED", "SECONDARY"]
    built.QualityControlImage = "YES"
    built.BurnedInAnnotation = "NO"  # the picture names no patient
    built.PatientOrientation = []
    built.Laterality = ""  # of no body part
    return amend(built, header)


def _patient_and_study(study_instance_uid: str, at: datetime) -> Dataset:
    """What stands for the image of which a result is made: nobody's, and none."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, f"{study_instance_uid}.1"[:64]
    made.SeriesInstanceUID, made.StudyInstanceUID = study_instance_uid, study_instance_uid
    made.PatientName, made.PatientID = PATIENT_NAME, PATIENT_ID
    made.PatientBirthDate, made.PatientSex = "", ""
    made.AccessionNumber, made.StudyID, made.ReferringPhysicianName = "", "TEST", ""
    made.StudyDate, made.StudyTime = f"{at:%Y%m%d}", f"{at:%H%M%S}"
    made.StudyDescription = STUDY_DESCRIPTION
    return made
