"""Media types of DICOMweb: which one a client accepts (RFC 9110 12.5.1), and the two models of a data set.

A data set is a value in the DICOM JSON model (PS3.18 F.2) here, and becomes the Native DICOM Model (PS3.19 A.1) as XML
where a client asks for that.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from pydicom.datadict import keyword_for_tag

DICOM, JSON, XML = "application/dicom", "application/dicom+json", "application/dicom+xml"
RELATED = "multipart/related"
_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_SYNONYMS = {"application/json": JSON, "text/xml": XML, "application/xml": XML}


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One entry of an Accept header, or a Content-Type: the type, ``type=`` of a multipart, and other parameters."""

    name: str
    parameters: Mapping[str, str]
    quality: float = 1.0

    @property
    def inner(self) -> str:
        """The media type of the parts of a multipart type; that of anything else is itself."""
        return self.parameters.get("type", "").lower() if self.name == RELATED else self.name


def media_range(text: str) -> MediaRange:
    """Parse a media type with its parameters; a quality that is no number is 0."""
    message = Message()
    message["Content-Type"] = text
    parameters = {name.lower(): str(value) for name, value in (message.get_params() or [])[1:]}
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 0.0
    return MediaRange(text.partition(";")[0].strip().lower(), parameters, quality)


def accepted(header: str, offered: Sequence[str]) -> str | None:
    """The one of ``offered`` that a client likes best, the earlier of equal ones; None if it takes none of them.

    A multipart type is compared by the type of its parts.
    """
    ranges = [media_range(entry) for entry in _entries(header or "*/*")]
    qualities = {offer: _quality(offer, ranges) for offer in offered}
    best = max(offered, key=lambda offer: qualities[offer])
    return best if qualities[best] > 0 else None


def _entries(header: str) -> list[str]:
    """Split at commas outside of quotes."""
    entries, quoted = [""], False
    for letter in header:
        quoted ^= letter == '"'
        if letter == "," and not quoted:
            entries.append("")
        else:
            entries[-1] += letter
    return [entry for entry in entries if entry.strip()]


def _quality(offer: str, ranges: Iterable[MediaRange]) -> float:
    """The quality of the most specific range that matches."""
    found = [(0, 0.0)]
    for each in ranges:
        inner = _SYNONYMS.get(each.inner, each.inner)
        if inner == offer:
            found.append((3, each.quality))
        elif inner == f"{offer.partition('/')[0]}/*" or (each.name == RELATED and not inner):
            found.append((2, each.quality))
        elif inner == "*/*":
            found.append((1, each.quality))
    return max(found)[1]


def native_xml(data_set: Mapping[str, Any]) -> bytes:
    """A data set of the DICOM JSON model as an XML document of the Native DICOM Model."""
    root = Element("NativeDicomModel", {"xmlns": _NAMESPACE, "xml:space": "preserve"})
    _add_attributes(root, data_set)
    document: bytes = tostring(root, "utf-8", xml_declaration=True)
    return document


# XML 1.0 2.2 allows no other control characters.
_NO_XML = dict.fromkeys(set(range(0x20)) - {0x09, 0x0A, 0x0D}, " ")


def _add_attributes(parent: Element, data_set: Mapping[str, Any]) -> None:
    for tag, attribute in data_set.items():
        described = {"tag": tag, "vr": attribute["vr"]}
        if keyword := keyword_for_tag(int(tag, 16)):
            described["keyword"] = keyword
        element = SubElement(parent, "DicomAttribute", described)
        if "BulkDataURI" in attribute:
            SubElement(element, "BulkData", {"uri": attribute["BulkDataURI"]})
        elif "InlineBinary" in attribute:
            SubElement(element, "InlineBinary").text = attribute["InlineBinary"]
        for number, value in enumerate(attribute.get("Value", ()), 1):
            _add_value(element, attribute["vr"], str(number), value)


def _add_value(element: Element, vr: str, number: str, value: Any) -> None:
    if vr == "SQ":
        _add_attributes(SubElement(element, "Item", {"number": number}), value or {})
    elif vr == "PN":
        name = SubElement(element, "PersonName", {"number": number})
        for representation, text in (value or {}).items():
            group = SubElement(name, representation)
            for part, component in zip(_NAME_PARTS, text.split("^"), strict=False):
                if component:
                    SubElement(group, part).text = component.translate(_NO_XML)
    else:
        SubElement(element, "Value", {"number": number}).text = "" if value is None else str(value).translate(_NO_XML)


def multipart(parts: Sequence[tuple[str, Callable[[], Iterator[bytes]]]], kind: str) -> tuple[Iterator[bytes], str]:
    """A multipart/related body and its Content-Type (PS3.18 8.6.1.2.1); each part is its own Content-Type and bytes."""
    boundary = secrets.token_hex(16)

    def body() -> Iterator[bytes]:
        for described, content in parts:
            yield f"--{boundary}\r\nContent-Type: {described}\r\n\r\n".encode("ascii")
            yield from content()
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode("ascii")

    return body(), f'{RELATED}; type="{kind}"; boundary={boundary}'
