"""What the content of our reports and notes shares (PS3.16): highdicom's classes, made of our own values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import highdicom as hd
from pydicom.sr.codedict import codes as standard

from models.model_spec import Code
from workers.results import codes
from workers.results.amend import concept
from workers.results.encoder import Equipment
from workers.results.identity import derive_uid
from workers.results.study_account import Reference

CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS
Group: TypeAlias = hd.sr.MeasurementsAndQualitativeEvaluations | hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
_MODALITIES = {
    "CR": standard.cid29.ComputedRadiography,
    "DX": standard.cid29.DigitalRadiography,
    "RG": standard.cid29.RadiographicImaging,
}


def evaluation(question: Code, answer: Code) -> hd.sr.QualitativeEvaluation:
    """A coded answer to a coded question."""
    return hd.sr.QualitativeEvaluation(concept(question), concept(answer))


def measurement(name: Code, value: float, unit: Code) -> hd.sr.Measurement:
    """TID 300: a number with its unit."""
    return hd.sr.Measurement(concept(name), value, concept(unit))


def with_comment(group: Group, *remarks: str) -> Group:
    """A group of TID 1410 or 1501 with a comment. The templates are extensible; highdicom's classes take no text."""
    text = " ".join(filter(None, remarks))
    group[0].ContentSequence.append(hd.sr.TextContentItem(concept(codes.COMMENT), text, CONTAINS))
    return group


def composite(referenced: Reference, name: Code) -> hd.sr.CompositeContentItem:
    """A reference to an instance that is not an image."""
    return hd.sr.CompositeContentItem(concept(name), referenced.sop_class_uid, referenced.sop_instance_uid, CONTAINS)


def observer(equipment: Equipment, uid_root: str) -> hd.sr.ObserverContext:
    """TID 1004: a device observer. Its UID is that of the node, the same in all its reports."""
    maker = (equipment.manufacturer, equipment.manufacturer_model_name)
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=derive_uid(uid_root, "device", *maker, equipment.device_serial_number),
        name=equipment.station_name,
        manufacturer_name=equipment.manufacturer,
        model_name=equipment.manufacturer_model_name,
        serial_number=equipment.device_serial_number,
    )
    return hd.sr.ObserverContext(standard.DCM.Device, device)


def image_library(images: Iterable[Reference], modality: str) -> hd.sr.ContainerContentItem:
    """TID 1600 with the analysed images and their modality, where that is known.

    Not by highdicom's ``ImageLibrary``: it wants rows, columns, orientation and detector spacing of every image, which
    odd radiographs lack and a summary does not know, and it takes a radiograph in a Secondary Capture for none.
    """
    group = hd.sr.ContainerContentItem(standard.DCM.ImageLibraryGroup, relationship_type=CONTAINS)
    group.ContentSequence = hd.sr.ContentSequence([_library_entry(image, modality) for image in images])
    library = hd.sr.ContainerContentItem(standard.DCM.ImageLibrary, template_id="1600", relationship_type=CONTAINS)
    library.ContentSequence = hd.sr.ContentSequence([group])
    return library


def _library_entry(image: Reference, modality: str) -> hd.sr.ImageContentItem:
    uids = (image.sop_class_uid, image.sop_instance_uid)
    entry = hd.sr.ImageContentItem(concept(codes.SOURCE), *uids, relationship_type=CONTAINS)
    if modality in _MODALITIES:
        context = hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
        known = hd.sr.CodeContentItem(standard.DCM.Modality, _MODALITIES[modality], context)
        entry.ContentSequence = hd.sr.ContentSequence([known])
    return entry
