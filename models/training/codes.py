"""DICOM codes of what the bundled networks report.

*Lung opacity* is (112001, DCM, "Opacity"), a member of the chest CAD context groups CID 6102 and CID 6104 (PS3.16): it
says what a reader of a radiograph sees and does not name a disease. *Infiltrate*, *Mass*, *Nodule* and *Pneumothorax*
are from the same groups. Where they have nothing, a SNOMED CT disorder is named; a private code only where no code
could be verified.
"""

from __future__ import annotations

from dataclasses import replace

from models.lung_fields import LUNG
from models.model_spec import Code, LabelSpec

PRIVATE_SCHEME = "99PLEURA"
DELIVERABLE = ("lung_opacity", "pneumothorax")
"""Findings that may leave the node at all. The others are learnt from noisy report labels and stay in shadow, and so
does *abnormal*: on images that did not come with those of the training it does not hold (``benchmarks.further``)."""
CODES: dict[str, Code] = {
    "lung_opacity": Code("112001", "DCM", "Opacity"),
    "pneumothorax": Code("36118008", "SCT", "Pneumothorax"),
    "abnormal": Code("263654008", "SCT", "Abnormal"),
    "atelectasis": Code("46621007", "SCT", "Atelectasis"),
    "cardiomegaly": Code("8186001", "SCT", "Cardiomegaly"),
    "effusion": Code("60046008", "SCT", "Pleural effusion"),
    "infiltration": Code("112121", "DCM", "Infiltrate"),
    "mass": Code("4147007", "SCT", "Mass"),
    "nodule": Code("27925004", "SCT", "Nodule"),
    "pneumonia": Code("233604007", "SCT", "Pneumonia"),
    "consolidation": Code("95436008", "SCT", "Lung consolidation"),
    "edema": Code("19242006", "SCT", "Pulmonary edema"),
    "emphysema": Code("87433001", "SCT", "Pulmonary emphysema"),
    "fibrosis": Code("51615001", "SCT", "Pulmonary fibrosis"),
    "pleural_thickening": Code("PLEURALTHICK", PRIVATE_SCHEME, "Pleural thickening"),
    "hernia": Code("39839004", "SCT", "Diaphragmatic hernia"),
}

ABNORMAL = "abnormal"
SITES = dict.fromkeys(
    (
        *("lung_opacity", "atelectasis", "infiltration", "mass", "nodule", "pneumonia", "consolidation", "edema"),
        *("emphysema", "fibrosis"),
    ),
    LUNG,
)
"""Where a finding lies, of those that lie in one organ by their very name."""


LUNG_CODES = {
    "left_lung": Code("44029006", "SCT", "Left lung"),
    "right_lung": Code("3341006", "SCT", "Right lung"),
}
"""The labels of lung fields."""


def in_hierarchy(labels: tuple[LabelSpec, ...]) -> tuple[LabelSpec, ...]:
    """``labels`` with *abnormal*, where a network knows it, as the parent of every finding in :data:`CODES`."""
    if ABNORMAL not in {label.name for label in labels}:
        return labels
    parts = set(CODES) - {ABNORMAL}
    return tuple(replace(label, parent=ABNORMAL) if label.name in parts else label for label in labels)


def code_of(label: str) -> Code:
    """The code of a label; a private one for labels of a user's own."""
    known = CODES.get(label)
    return known or Code(label.upper().replace("_", "")[:16], PRIVATE_SCHEME, label.replace("_", " ")[:64])
