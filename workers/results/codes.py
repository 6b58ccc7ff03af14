"""Coded concepts of result objects (PS3.16), and the reading of a code sequence item (PS3.3 8.8).

Only those that highdicom does not write by itself and that not only an encoder needs. They are spelled out, since the
listener and the pages read them too and pydicom's dictionary of all codes takes 15 MB; a test compares them with it.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from models.model_spec import Code

# Purpose of reference of equipment (PS3.16 CID 7005).
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")

# Segments: category, anatomy and laterality (CID 7150, 4, 244).
MORPHOLOGICALLY_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
PNEUMOTHORAX = Code("36118008", "SCT", "Pneumothorax")
CHEST = Code("816094009", "SCT", "Chest")
LUNG = Code("39607008", "SCT", "Lung")
# Zones of a lung on a radiograph (CID 6124).
ZONES = {
    "upper": Code("281392002", "SCT", "Upper zone of lung"),
    "middle": Code("281393007", "SCT", "Middle zone of lung"),
    "lower": Code("281394001", "SCT", "Lower zone of lung"),
}
RIGHT = Code("24028007", "SCT", "Right")
LEFT = Code("7771000", "SCT", "Left")

# The measurement report (TID 1500) and its content.
ENGLISH = Code("en", "RFC5646", "English")
PLAIN_CHEST_RADIOGRAPH = Code("399208008", "SCT", "Plain chest X-ray")
SUMMARY = Code("121111", "DCM", "Summary")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UNIQUE_IDENTIFIER = Code("112040", "DCM", "Tracking Unique Identifier")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
LATERALITY = Code("272741003", "SCT", "Laterality")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
COMMENT = Code("121106", "DCM", "Comment")
SOURCE = Code("260753009", "SCT", "Source")
IMAGE_REGION = Code("111030", "DCM", "Image Region")
PROBABILITY = Code("122157", "DCM", "Probability")
AREA = Code("42798000", "SCT", "Area")

# Answers: CID 240 for a finding, CID 6042 for an analysis. A negative of a model does not prove absence, so it is coded
# as *not detected*; *absent* is only read, in reports of earlier versions.
PRESENT = Code("52101004", "SCT", "Present")
NOT_DETECTED = Code("260415000", "SCT", "Not detected")
ABSENT = Code("272519000", "SCT", "Absent")
UNDETERMINED = Code("373068000", "SCT", "Undetermined")
SUMMARY_OF_ANALYSES = Code("111065", "DCM", "Summary of Analyses")
SUCCEEDED = Code("111222", "DCM", "Succeeded")
PARTIALLY_SUCCEEDED = Code("111223", "DCM", "Partially Succeeded")
FAILED = Code("111224", "DCM", "Failed")
NOT_ATTEMPTED = Code("111225", "DCM", "Not Attempted")

# The study summary.
CURRENT_PROCEDURE_EVIDENCE = Code("122073", "DCM", "Current procedure evidence")
PRIORITY = Code("260870009", "SCT", "Priority")
EMERGENCY = Code("25876001", "SCT", "Emergency")
HIGH_PRIORITY = Code("394849002", "SCT", "High priority")
NORMAL_PRIORITY = Code("394848005", "SCT", "Normal priority")

# Comparison with a prior (CID 6002, CID 6134, CID 7201).
DESCRIPTION_OF_CHANGE = Code("111021", "DCM", "Description of Change")
NEW_FINDING = Code("129721008", "SCT", "New finding")
PREVIOUS_FINDING = Code("121069", "DCM", "Previous Finding")
INCREASE_IN_SIZE = Code("15454001", "SCT", "Increase in size")
DECREASE_IN_SIZE = Code("19776001", "SCT", "Decrease in size")
TEMPORAL_PREDECESSOR = Code("121348", "DCM", "Temporal Predecessor")
STUDY_DATE = Code("111060", "DCM", "Study Date")
STUDY_INSTANCE_UID = Code("110180", "DCM", "Study Instance UID")

# Units (UCUM).
SQUARE_MILLIMETRE = Code("mm2", "UCUM", "square millimeter")
SQUARE_CENTIMETRE = Code("cm2", "UCUM", "square centimeter")
PIXELS = Code("{pixels}", "UCUM", "Pixels")
UNITY = Code("1", "UCUM", "no units")


def read_code(item: Dataset) -> Code:
    """Read a code sequence item."""
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or ""
    return Code(str(value), str(item.get("CodingSchemeDesignator", "")), str(item.get("CodeMeaning", "")))
