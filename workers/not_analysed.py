"""The coded result of a chest study of which no image was analysed, with the reason. Pure functions.

A silent PACS must always mean "nothing ran". So a child, a lone lateral view, an image For Processing and one whose
pixels cannot be read leave one report when their study is complete, *Not Attempted* or, where it was tried, *Failed*
(PS3.16 CID 6042). A lateral view beside an analysed frontal leaves none, and neither does what is no chest.
"""

from __future__ import annotations

from datetime import datetime

from pydicom.dataset import Dataset

from config.settings import Eligibility, Results
from db.not_eligible_codes import MAY_BE_CHEST, NotEligibleCode
from db.shown_records import InstanceDetail, StudyDetail
from models.contract import NotAnalysed, Prediction
from models.radiograph.body_parts import speaks_of_chest
from workers.completion import NO_CHEST, images_of, is_taken_back, jobs_of
from workers.results.encoder import Analysis, Equipment
from workers.results.identity import Identity

_TEXTS = ("BodyPartExamined", "SeriesDescription", "ProtocolName", "StudyDescription")
_CODES = ("AnatomicRegionSequence", "ProcedureCodeSequence")


def not_analysed_images(study: StudyDetail) -> tuple[tuple[InstanceDetail, NotAnalysed], ...]:
    """The images that may stand for a chest study of which nothing was analysed, the most telling first, with reasons.

    Empty where an image was analysed or its job failed (the summary tells that), and where there is no chest. The
    reason of an image that was tried comes first, that of a lateral view last.
    """
    images = [each for each in images_of(study) if not is_taken_back(each)]
    if any(job.not_analysed is None for each in images for job in jobs_of(study, each)):
        return ()
    candidates = [(each, reason) for each in images if (reason := _reason(study, each)) is not None]
    return tuple(
        sorted(
            candidates,
            key=lambda pair: (not jobs_of(study, pair[0]), pair[1].code == NotEligibleCode.NOT_FRONTAL, pair[0].id),
        )
    )


def header_shows_chest(header: Dataset, rules: Eligibility) -> bool:
    """Whether the header itself says that this is a chest: one that says nothing does not make a chest study."""
    texts = [str(header.get(keyword) or "") for keyword in _TEXTS]
    texts += [str(item.get("CodeMeaning") or "") for keyword in _CODES for item in header.get(keyword) or ()]
    return any(speaks_of_chest(text, rules.body_parts, rules.descriptions) for text in texts)


def not_analysed(
    header: Dataset, reason: NotAnalysed, identity: Identity, equipment: Equipment, created_at: datetime, rules: Results
) -> Analysis:
    """The analysis that the encoders turn into the result; no pixels are touched for it."""
    shape = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    return Analysis(
        source=header,
        model_input=None,
        prediction=Prediction(shape=shape, not_analysed=reason),
        identity=identity,
        equipment=equipment,
        created_at=created_at,
        series_number_base=rules.series_number_base,
        sr_storage=rules.sr_storage,
    )


def _reason(study: StudyDetail, instance: InstanceDetail) -> NotAnalysed | None:
    """Why this image was not analysed, None where it is no chest."""
    jobs = jobs_of(study, instance)
    if jobs:
        not_analysed = max(jobs, key=lambda job: (job.created_at, job.id)).not_analysed
        return (
            None
            if not_analysed is None or not_analysed.code in NO_CHEST
            else NotAnalysed(not_analysed.code, not_analysed.sentence)
        )
    not_eligible = instance.not_eligible
    if not_eligible is None or not_eligible.code not in MAY_BE_CHEST:
        return None
    return NotAnalysed(not_eligible.code, not_eligible.sentence)
