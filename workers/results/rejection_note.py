"""Encoder of rejection notes (IHE RAD IOCM): Key Object Selections that reject results of this node.

PS3.3 A.35.4 and C.17.6, PS3.16 TID 2010. The title is the reason, from CID 7031; a note for quality reasons has a
modifier from CID 7011. The evidence lists each object, so that an archive knows which objects to hide or remove.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as known

from db.records import FOR_QUALITY, NOTE, StaleObject
from models.model_spec import Code
from workers.results import codes
from workers.results.amend import Header, amend, concept, stand_in
from workers.results.content_items import observer
from workers.results.encoder import Equipment
from workers.results.identity import derive_uid
from workers.results.result_kinds import series_description, series_number
from workers.results.study_account import is_image

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
    header = Header(
        source=source,
        equipment=equipment,
        models=(),
        created_at=created_at,
        sop_instance_uid=derive_uid(uid_root, *parts),
        series_instance_uid=derive_uid(uid_root, "series", *parts),
        series_number=series_number(NOTE, series_number_base),
        series_description=series_description(NOTE),
    )
    study = str(source.StudyInstanceUID)
    # highdicom refers to what has a size as an image, and to the rest as a composite.
    rejected = [stand_in(one, study, shape=(1, 1) if is_image(one.sop_class_uid) else None) for one in stale]
    content = _content(stale, rejected, equipment, uid_root)
    return amend(hd.ko.KeyObjectSelectionDocument(rejected, content, **header.arguments()), header)


def _content(
    stale: Sequence[StaleObject], rejected: Sequence[Dataset], equipment: Equipment, uid_root: str
) -> hd.ko.KeyObjectSelection:
    """TID 2010 with the modifier of a title and the language, for which highdicom's class has no arguments."""
    title = stale[0].code
    content = hd.ko.KeyObjectSelection(
        document_title=concept(TITLES[title]),
        referenced_objects=rejected,
        observer_device_context=observer(equipment, uid_root),
        description=" ".join(dict.fromkeys(one.reason for one in stale)),
    )
    modifier = hd.sr.CodeContentItem(known.DCM.DocumentTitleModifier, known.DCM.OtherFailure, "HAS CONCEPT MOD")
    content[0].ContentSequence = [
        *([modifier] if title == FOR_QUALITY else ()),
        *hd.sr.LanguageOfContentItemAndDescendants(concept(codes.ENGLISH)),
        *content[0].ContentSequence,
    ]
    return content
