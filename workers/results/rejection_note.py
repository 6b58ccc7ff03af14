"""Encoder of rejection notes (IHE RAD IOCM): Key Object Selections that reject results of this node.

PS3.3 A.35.4 and C.17.6, PS3.16 TID 2010. The title is the reason, from CID 7031; a note for quality reasons has a
modifier from CID 7011. The evidence lists each object, so that an archive knows which objects to hide or remove.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import KeyObjectSelectionDocumentStorage

from db.records import FOR_QUALITY, NOTE, StaleObject
from models.contract import Code
from workers.results import codes
from workers.results.content_items import CONTAINS, HAS_CONCEPT_MOD, coded, composite, container, image, text
from workers.results.encoder import Equipment
from workers.results.header import SERIES_DESCRIPTIONS, SERIES_OFFSETS, finish, start_object
from workers.results.identity import derive_uid
from workers.results.structured_report import hierarchy, observer, set_root
from workers.results.summary import is_image

TITLES = {
    "113001": Code("113001", "DCM", "Rejected for Quality Reasons"),
    "113037": Code("113037", "DCM", "Rejected for Patient Safety Reasons"),
    "113038": Code("113038", "DCM", "Incorrect Modality Worklist Entry"),
    "113039": Code("113039", "DCM", "Data Retention Policy Expired"),
}
"""Document titles of a rejection note, by code value (PS3.16 CID 7031)."""


def encode_note(
    source: Dataset,
    stale: Sequence[StaleObject],
    *,
    equipment: Equipment,
    uid_root: str,
    created_at: datetime,
    series_number_base: int = 9000,
) -> Dataset:
    """Make the note about ``stale``: objects of one destination with one title. ``source`` is an image of their study.

    Its UIDs are derived from the rejected objects and the destination, so that the same note has the same UID.
    """
    first = stale[0]
    uids = sorted(one.sop_instance_uid for one in stale)
    parts = (NOTE, str(source.StudyInstanceUID), first.destination, first.code, *uids)
    made = start_object(
        source,
        equipment,
        (),
        created_at=created_at,
        sop_class_uid=KeyObjectSelectionDocumentStorage,
        sop_instance_uid=derive_uid(uid_root, *parts),
        series_instance_uid=derive_uid(uid_root, "series", *parts),
        series_number=series_number_base + SERIES_OFFSETS[NOTE],
        series_description=SERIES_DESCRIPTIONS[NOTE],
        modality="KO",
    )
    made.ReferencedPerformedProcedureStepSequence = Items()
    references = [_instance(one) for one in stale]
    made.CurrentRequestedProcedureEvidenceSequence = hierarchy(str(source.StudyInstanceUID), references)
    set_root(made, _root(stale, references, equipment, uid_root))
    return finish(made, source)


def _root(stale: Sequence[StaleObject], references: Sequence[Dataset], equipment: Equipment, uid_root: str) -> Dataset:
    code = stale[0].code
    modifier = [coded(codes.DOCUMENT_TITLE_MODIFIER, codes.OTHER_FAILURE, HAS_CONCEPT_MOD)]
    return container(
        TITLES[code],
        [
            *(modifier if code == FOR_QUALITY else ()),
            coded(codes.LANGUAGE, codes.ENGLISH, HAS_CONCEPT_MOD),
            *observer(equipment, uid_root),
            text(codes.KEY_OBJECT_DESCRIPTION, " ".join(dict.fromkeys(one.reason for one in stale)), CONTAINS),
            *(_referenced(item) for item in references),
        ],
        template="2010",
    )


def _referenced(item: Dataset) -> Dataset:
    """A reference of TID 2010, which has no concept name."""
    if is_image(item.SOPClassUID):
        return image(item)
    return composite(item.SOPClassUID, item.SOPInstanceUID, None)


def _instance(one: StaleObject) -> Dataset:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    made.SeriesInstanceUID = one.series_instance_uid
    return made
