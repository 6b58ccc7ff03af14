"""Content items of a Structured Report (PS3.3 C.17.3), one small function for each value type."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from models.contract import Code
from workers.results.codes import code_sequence
from workers.results.header import reference
from workers.results.outline import Points

CONTAINS = "CONTAINS"
HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
HAS_ACQ_CONTEXT = "HAS ACQ CONTEXT"
SELECTED_FROM = "SELECTED FROM"


def _item(value_type: str, name: Code | None, relationship: str) -> Dataset:
    item = Dataset()
    if relationship:
        item.RelationshipType = relationship
    item.ValueType = value_type
    if name is not None:
        item.ConceptNameCodeSequence = code_sequence(name)
    return item


def with_children(item: Dataset, children: Iterable[Dataset]) -> Dataset:
    """Give ``item`` its children; an item without children has no Content Sequence."""
    listed = list(children)
    if listed:
        item.ContentSequence = Sequence(listed)
    return item


def container(name: Code, children: Iterable[Dataset], *, template: str = "", relationship: str = CONTAINS) -> Dataset:
    """CONTAINER; ``template`` is the identifier of its DCMR template."""
    item = _item("CONTAINER", name, relationship)
    item.ContinuityOfContent = "SEPARATE"
    if template:
        applied = Dataset()
        applied.MappingResource = "DCMR"
        applied.TemplateIdentifier = template
        item.ContentTemplateSequence = Sequence([applied])
    return with_children(item, children)


def coded(name: Code, value: Code, relationship: str = CONTAINS, children: Iterable[Dataset] = ()) -> Dataset:
    """CODE: a name and its coded value."""
    item = _item("CODE", name, relationship)
    item.ConceptCodeSequence = code_sequence(value)
    return with_children(item, children)


def text(name: Code, value: str, relationship: str = CONTAINS) -> Dataset:
    """TEXT."""
    item = _item("TEXT", name, relationship)
    item.TextValue = value
    return item


def uid_reference(name: Code, value: str, relationship: str = HAS_OBS_CONTEXT) -> Dataset:
    """UIDREF."""
    item = _item("UIDREF", name, relationship)
    item.UID = value
    return item


def number(name: Code, value: float, unit: Code, children: Iterable[Dataset] = ()) -> Dataset:
    """NUM: a measured value with its unit (PS3.3 C.18.1), the exact value beside its decimal string."""
    measured = Dataset()
    measured.NumericValue = f"{value:.10g}"
    measured.FloatingPointValue = float(value)
    measured.MeasurementUnitsCodeSequence = code_sequence(unit)
    item = _item("NUM", name, CONTAINS)
    item.MeasuredValueSequence = Sequence([measured])
    return with_children(item, children)


def image(
    instance: Dataset,
    name: Code | None = None,
    relationship: str = CONTAINS,
    *,
    frame: int | None = None,
    children: Iterable[Dataset] = (),
) -> Dataset:
    """IMAGE: a reference to an instance, or to one frame of it (a frame of a SEG determines its segment)."""
    referenced = reference(instance)
    if frame is not None:
        referenced.ReferencedFrameNumber = frame
    item = _item("IMAGE", name, relationship)
    item.ReferencedSOPSequence = Sequence([referenced])
    return with_children(item, children)


def composite(sop_class_uid: str, sop_instance_uid: str, name: Code | None, relationship: str = CONTAINS) -> Dataset:
    """COMPOSITE: a reference to an instance that is not an image."""
    referenced = Dataset()
    referenced.ReferencedSOPClassUID = sop_class_uid
    referenced.ReferencedSOPInstanceUID = sop_instance_uid
    item = _item("COMPOSITE", name, relationship)
    item.ReferencedSOPSequence = Sequence([referenced])
    return item


def polyline(name: Code, points: Points, source: Dataset) -> Dataset:
    """SCOORD with a closed polyline on ``source`` (PS3.3 C.18.6): ``points [n, 2]`` as (column, row), last = first."""
    item = _item("SCOORD", name, CONTAINS)
    item.GraphicType = "POLYLINE"
    item.GraphicData = [float(value) for value in points.ravel()]
    return with_children(item, [image(source, relationship=SELECTED_FROM)])
