"""Walking a Structured Report's content tree in tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset


def name(item: Dataset) -> str:
    """Code value of an item's concept name, or an empty string."""
    return str(item.ConceptNameCodeSequence[0].CodeValue) if item.get("ConceptNameCodeSequence") else ""


def children(item: Dataset, code: str) -> list[Dataset]:
    """The children of ``item`` with this concept name."""
    return [child for child in item.get("ContentSequence", ()) if name(child) == code]


def walk(item: Dataset) -> Iterator[Dataset]:
    """``item`` and everything below it."""
    yield item
    for child in item.get("ContentSequence", ()):
        yield from walk(child)


def groups(report: Dataset) -> list[Dataset]:
    """The measurement groups of a report, those about the whole image that stand beside an outline among them."""
    (measurements,) = children(report, "126010")
    evaluations = children(report, "C0034375")
    return [group for section in (measurements, *evaluations) for group in children(section, "125007")]


def value(item: Dataset) -> Any:
    """The value of a CODE, TEXT, NUM, DATE or UIDREF item."""
    if item.ValueType == "DATE":
        return str(item.Date)
    if item.ValueType == "CODE":
        return str(item.ConceptCodeSequence[0].CodeValue)
    if item.ValueType == "NUM":
        return float(item.MeasuredValueSequence[0].NumericValue)
    return str(item.TextValue if item.ValueType == "TEXT" else item.UID)


def values(item: Dataset, code: str) -> list[Any]:
    """Values of the children with this concept name."""
    return [value(child) for child in children(item, code)]
