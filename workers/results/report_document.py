"""The document of a report (PS3.3 A.35) and the root of its content (PS3.16 TID 1500), both by highdicom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import highdicom as hd
from pydicom.dataset import Dataset

from models.model_spec import Code
from workers.results import codes
from workers.results.amend import Header, amend, concept, stand_in
from workers.results.codes import read_code
from workers.results.content_items import CONTAINS, Group, image_library, observer
from workers.results.encoder import Equipment
from workers.results.header import RESEARCH_USE, is_valid
from workers.results.study_account import Reference

_DOCUMENTS = {"comprehensive-3d": hd.sr.Comprehensive3DSR, "comprehensive": hd.sr.ComprehensiveSR}
_WHOLE_IMAGE = "1501"


def document(
    header: Header,
    sr_storage: str,
    content: hd.sr.MeasurementReport,
    evidence: Iterable[Reference],
    previous: Reference | None,
    prior: tuple[str, Sequence[Reference]] | None = None,
) -> Dataset:
    """A report: complete, preliminary and unverified (PS3.3 C.17.2). ``previous`` is the one that it replaces.

    ``evidence`` are the instances that ``content`` refers to; the source is always listed. ``prior`` are images of
    another study (its Study Instance UID, and the images) that it refers to.
    """
    study = str(header.source.StudyInstanceUID)
    # highdicom copies the tree and walks it four times, which takes longer than all the rest, so it gets the bare root.
    children = content[0].pop("ContentSequence")
    content[0].ContentSequence = hd.sr.ContentSequence()
    made = _DOCUMENTS[sr_storage](
        evidence=[
            header.image(shape=(1, 1)),
            *(stand_in(item, study) for item in evidence),
            *([] if prior is None else [stand_in(image, prior[0]) for image in prior[1]]),
        ],
        content=content,
        is_complete=True,
        previous_versions=None if previous is None else [stand_in(previous, study)],
        **header.arguments(),
    )
    made.CompletionFlagDescription = RESEARCH_USE
    made[children.tag] = children
    return amend(made, header)


def measurement_report(
    sentence: str,
    groups: Sequence[Group],
    *,
    equipment: Equipment,
    uid_root: str,
    procedure: Code,
    images: Sequence[Reference],
    modality: str = "",
) -> hd.sr.MeasurementReport:
    """Root of TID 1500: language, observer, procedure, image library, measurements and qualitative evaluations.

    ``sentence`` is the summary for the reader, ``groups`` are highdicom's of TID 1410 and 1501, ``images`` the analysed
    ones.
    """
    measured, evaluations = _split(groups)
    made = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer(equipment, uid_root)),
        procedure_reported=concept(procedure),
        imaging_measurements=measured,
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(concept(codes.ENGLISH)),
    )
    content = made[0].ContentSequence
    # TID 1500 is extensible; the first item is what a reader meets first.
    content.insert(0, hd.sr.TextContentItem(concept(codes.SUMMARY), sentence, CONTAINS))
    content.insert(len(content) - 1, image_library(images, modality))
    if evaluations:
        container = hd.sr.ContainerContentItem(concept(codes.QUALITATIVE_EVALUATIONS), relationship_type=CONTAINS)
        container.ContentSequence = hd.sr.ContentSequence([item for group in evaluations for item in group])
        content.append(container)
    return made


def _split(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """Split the groups into localised ones and those about the whole image, if there are both.

    OHIF 3.13 fails on the first measurement group without an outline and then draws none, so groups about the whole
    image are qualitative evaluations. Without any outline they are measurements.
    """
    localised = [group for group in groups if group[0].template_id != _WHOLE_IMAGE]
    whole = [group for group in groups if group[0].template_id == _WHOLE_IMAGE]
    return (localised, whole) if localised else (whole, [])


def procedure_code(source: Dataset) -> Code:
    """The imaging procedure: the source's code if it has a valid one, else a plain chest radiograph."""
    for item in source.get("ProcedureCodeSequence") or ():
        code = read_code(item)
        if code.value and code.scheme and code.meaning and all(is_valid(element) for element in item):
            return code
    return codes.PLAIN_CHEST_RADIOGRAPH
