"""What the content of our reports and notes shares (PS3.16): highdicom's classes, made of our own values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from highdicom.sr import (
    CodeContentItem,
    CompositeContentItem,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.sr.codedict import codes as standard

from models.contract import Code
from workers.results import codes
from workers.results.amend import concept
from workers.results.encoder import Equipment
from workers.results.identity import derive_uid
from workers.results.study_account import Reference

CONTAINS = RelationshipTypeValues.CONTAINS
Group: TypeAlias = MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations
_MODALITIES = {
    "CR": standard.cid29.ComputedRadiography,
    "DX": standard.cid29.DigitalRadiography,
    "RG": standard.cid29.RadiographicImaging,
}


def evaluation(question: Code, answer: Code) -> QualitativeEvaluation:
    """A coded answer to a coded question."""
    return QualitativeEvaluation(concept(question), concept(answer))


def measurement(name: Code, value: float, unit: Code) -> Measurement:
    """TID 300: a number with its unit."""
    return Measurement(concept(name), value, concept(unit))


def with_comment(group: Group, *remarks: str) -> Group:
    """A group of TID 1410 or 1501 with a comment. The templates are extensible; highdicom's classes take no text."""
    text = " ".join(filter(None, remarks))
    group[0].ContentSequence.append(TextContentItem(concept(codes.COMMENT), text, CONTAINS))
    return group


def composite(referenced: Reference, name: Code) -> CompositeContentItem:
    """A reference to an instance that is not an image."""
    return CompositeContentItem(concept(name), referenced.sop_class_uid, referenced.sop_instance_uid, CONTAINS)


def observer(equipment: Equipment, uid_root: str) -> ObserverContext:
    """TID 1004: a device observer. Its UID is that of the node, the same in all its reports."""
    maker = (equipment.manufacturer, equipment.manufacturer_model_name)
    device = DeviceObserverIdentifyingAttributes(
        uid=derive_uid(uid_root, "device", *maker, equipment.device_serial_number),
        name=equipment.station_name,
        manufacturer_name=equipment.manufacturer,
        model_name=equipment.manufacturer_model_name,
        serial_number=equipment.device_serial_number,
    )
    return ObserverContext(standard.DCM.Device, device)


def image_library(images: Iterable[Reference], modality: str) -> ContainerContentItem:
    """TID 1600 with the analysed images and their modality, where that is known.

    Not by highdicom's ``ImageLibrary``: it wants rows, columns, orientation and detector spacing of every image, which
    odd radiographs lack and a summary does not know, and it takes a radiograph in a Secondary Capture for none.
    """
    group = ContainerContentItem(standard.DCM.ImageLibraryGroup, relationship_type=CONTAINS)
    group.ContentSequence = ContentSequence([_library_entry(image, modality) for image in images])
    library = ContainerContentItem(standard.DCM.ImageLibrary, template_id="1600", relationship_type=CONTAINS)
    library.ContentSequence = ContentSequence([group])
    return library


def _library_entry(image: Reference, modality: str) -> ImageContentItem:
    uids = (image.sop_class_uid, image.sop_instance_uid)
    entry = ImageContentItem(concept(codes.SOURCE), *uids, relationship_type=CONTAINS)
    if modality in _MODALITIES:
        context = RelationshipTypeValues.HAS_ACQ_CONTEXT
        known = CodeContentItem(standard.DCM.Modality, _MODALITIES[modality], context)
        entry.ContentSequence = ContentSequence([known])
    return entry
