"""The attributes of a header that are used, each read and validated on its own.

One odd private element, a sequence that was written as text or a value that no
parser can read says nothing about the others: an attribute that cannot be converted, or does not have the value
representation and multiplicity of PS3.6, counts as absent. So nothing behind this module meets a value of another kind
than the data dictionary promises.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import Any

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, python_encoding
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

CHARACTER_SET = "SpecificCharacterSet"
"""Always read along: without it no text can be."""

CHARACTER_SET_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Value representations whose text is in the Specific Character Set (PS3.5 6.1.2.2)."""

# Several values of a name or a description that has but one are a text with a backslash in it.
_BACKSLASHED = frozenset({"LO", "SH"})
_DEEPEST = 8
_UNREADABLE = "\ufffd"
_TEXT_VRS = CHARACTER_SET_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UN", "UR"}


class UnreadableText(str):
    """Text that its character set cannot read: U+FFFD stands for what is lost, and ``octets`` are the value itself."""

    octets: bytes

    def __new__(cls, text: str, octets: bytes) -> UnreadableText:
        """Make a text that stands for ``octets``."""
        made = super().__new__(cls, text)
        made.octets = octets
        return made

    def __getnewargs__(self) -> tuple[str, bytes]:  # type: ignore[override]  # for copies
        return str(self), self.octets


def sound_attributes(dataset: Dataset, keywords: Iterable[str], to_the_letter: Collection[str] = ()) -> Dataset:
    """The attributes ``keywords`` of a data set as far as they can be believed, with its file meta.

    Those ``to_the_letter`` identify a patient or an object: their text is taken whatever multiplicity it has and
    whichever text's value representation it was written with. A sequence keeps the public attributes of its items that
    are sound in turn. Never raises for what a data set holds.
    """
    made = Dataset()
    if hasattr(dataset, "file_meta"):
        made.file_meta = dataset.file_meta
    _encode_alike(made, dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's words quote values
        for keyword in (CHARACTER_SET, *keywords):
            element = _sound(dataset, _tag(keyword), keyword in to_the_letter)
            if element is not None:
                made.add(element)
    return made


def character_set_terms(dataset: Dataset) -> tuple[str, ...]:
    """Specific Character Set (PS3.3 C.12.1.1.2) where all of its terms exist; else nothing, as if it were absent."""
    value = dataset.get(CHARACTER_SET) or ""
    terms = (value,) if isinstance(value, str) else tuple(str(term or "") for term in value)
    return terms if any(terms) and all(term in python_encoding for term in terms) else ()


def is_readable(value: object) -> bool:
    """False for text, or one of several, whose bytes its character set cannot read."""
    if isinstance(value, str | PersonName):
        return _UNREADABLE not in str(value)
    return (not isinstance(value, list | tuple) and not hasattr(value, "__iter__")) or all(map(is_readable, value))


def is_as_promised(element: DataElement) -> bool:
    """True when an attribute has the value representation and multiplicity of the data dictionary (PS3.6)."""
    return _is_known(element.tag) and _has_its_vr(element) and _has_its_multiplicity(element)


def _sound(dataset: Dataset, tag: BaseTag, to_the_letter: bool = False, depth: int = 0) -> DataElement | None:
    held = dataset.get_item(tag) if tag in dataset else None
    if held is None or (held.value is None and isinstance(held, RawDataElement)):
        return None
    octets = held.value if isinstance(held, RawDataElement) else None
    if to_the_letter and isinstance(held, RawDataElement) and held.VR in _TEXT_VRS:
        dataset[tag] = held._replace(VR=dictionary_VR(tag))
    element = _converted(lambda: dataset[tag])
    if element is None or not _has_its_vr(element) or not _is_number_where_promised(element):
        return None
    if element.VR == "SQ":
        return _sound_sequence(element, depth)
    if not to_the_letter and element.VR not in _BACKSLASHED and not _has_its_multiplicity(element):
        return None
    return _with_octets(dataset, element, octets, depth)


def _converted(convert: Callable[[], DataElement]) -> DataElement | None:
    try:
        return convert()
    except MemoryError:
        raise
    except Exception:
        # A parser that meets hostile bytes fails in every way there is; for us they all mean the same.
        return None


def _sound_sequence(element: DataElement, depth: int) -> DataElement | None:
    if depth >= _DEEPEST or not isinstance(element.value, Sequence):
        return None
    items = []
    for item in element.value:
        made = Dataset()
        for tag in list(item.keys()):
            inner = None if tag.is_private or not _is_known(tag) else _sound(item, tag, depth=depth + 1)
            if inner is not None:
                made.add(inner)
        _encode_alike(made, item)
        items.append(made)
    return DataElement(element.tag, "SQ", Sequence(items))


def _encode_alike(made: Dataset, source: Dataset) -> None:
    """Note how the source was encoded: the words of a lookup table may be big endian."""
    implicit, little = source.original_encoding
    made.set_original_encoding(implicit, little, source.original_character_set)


def _with_octets(dataset: Dataset, element: DataElement, octets: bytes | None, depth: int) -> DataElement | None:
    """Give a text that its character set cannot read its bytes; one within a sequence is left out.

    Where the character set is none that exists, the bytes are read as what nearly everybody means by that, Latin-1.
    """
    if element.VR not in CHARACTER_SET_VRS or is_readable(element.value):
        return element
    if depth or octets is None:
        return None
    if dataset.get(CHARACTER_SET) and not character_set_terms(dataset):
        text = decode_bytes(octets, [default_encoding], set()).rstrip(" \0")
        return _converted(lambda: DataElement(element.tag, element.VR, text))
    if element.VR == "PN":
        encodings = convert_encodings(list(character_set_terms(dataset)))
        return DataElement(element.tag, "PN", PersonName(octets, encodings))  # which keeps its bytes until it is asked
    return DataElement(element.tag, element.VR, UnreadableText(str(element.value), octets))


def _has_its_vr(element: DataElement) -> bool:
    promised = dictionary_VR(element.tag)
    return promised == element.VR or element.VR in promised.split(" or ")


def _is_number_where_promised(element: DataElement) -> bool:
    """False for a decimal or integer string that is no number: pydicom hands its text on."""
    if element.VR not in ("DS", "IS"):
        return True
    values = element.value if element.VM > 1 else [element.value]
    return not any(isinstance(value, str) and value for value in values)


def _has_its_multiplicity(element: DataElement) -> bool:
    least, most, step = _multiplicity(dictionary_VM(element.tag))
    return element.VM == 0 or (least <= element.VM <= most and element.VM % step == 0)


@cache
def _multiplicity(words: str) -> tuple[int, float, int]:
    """Least and most number of values and their step: ``1``, ``1-3``, ``1-n``, ``2-2n`` (PS3.5 6.4)."""
    found = re.fullmatch(r"(\d+)(?:-(\d*)(n?))?", words)
    assert found is not None, f"the data dictionary has a multiplicity '{words}'"
    least, factor, unbounded = int(found[1]), found[2], found[3]
    if unbounded:
        return least, float("inf"), int(factor or 1)
    return least, int(factor or least), 1


@cache
def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"there is no attribute '{keyword}'"
    return BaseTag(tag)


def _is_known(tag: Any) -> bool:
    try:
        dictionary_VR(tag)
    except KeyError:
        return False
    return True
