"""De-identification of one data set by the Basic Application Level Confidentiality Profile (PS3.15 Annex E).

An attribute that Table E.1-1 names gets its action, at every depth. What the table does not name is kept only where its
value representation holds no free text, or where a short list here says so: the profile protects attributes that are
used as they should be, but devices write names into others. Private and unknown attributes go.

Pure: a data set in, a new one and a count of what was done out. The original is not changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from importlib.metadata import version
from typing import Any

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID

from config.deidentification import Deidentification
from models.model_spec import Code
from workers.deidentification.pseudonyms import Pseudonyms, Subject
from workers.deidentification.table import EDITION, Action, rule_of
from workers.deidentification.vocabulary import cleaned, forbidden_words, is_free_of, masked
from workers.results.codes import PLAIN_CHEST_RADIOGRAPH
from workers.results.header import TYPE_2, TYPE_3
from workers.results.source_image import IDENTITY

TEXT = frozenset({"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
"""Value representations that may hold any text."""

_MOMENTS = frozenset({"DA", "DT", "TM"})
_BYTES = frozenset({"OB", "OB or OW", "OD", "OF", "OL", "OV", "OW", "UN"})
_KEPT_BYTES = frozenset({"PixelData", "LUTData"})
_KEPT_TEXT = frozenset(
    {"Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ModalityLUTType", "RescaleType"}
    | {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"}
)
_OF_CODES = frozenset({"CodeValue", "CodingSchemeDesignator", "CodeMeaning"})  # in items of sequences only
# Sentences and names that this node or its models have written.
_OUR_TEXT = frozenset(
    {"TextValue", "SegmentLabel", "SegmentDescription", "SegmentAlgorithmName", "TrackingID", "AlgorithmName"}
    | {"AlgorithmVersion", "AlgorithmParameters", "GraphicLayerDescription", "ContentDescription"}
    | {"CompletionFlagDescription", "DimensionDescriptionLabel", "SeriesDescription", "ContributionDescription"}
    | {"DerivationDescription", "UnformattedTextValue", "CodingSchemeVersion", "LongCodeValue"}
)
_COPIED = frozenset({*IDENTITY, *TYPE_2, *TYPE_3, "InstitutionName"})
_LONGEST = {"LO": 64, "SH": 16}  # PS3.5 6.2
_EMPTIED = frozenset({"PositionReferenceIndicator"})  # type 2, and not in the table
_KEPT_UIDS = frozenset({"SOPClassUID", "ReferencedSOPClassUID", "CodingSchemeUID", "MappingResourceUID", "ContextUID"})
_FIRST_GROUP = 0x0008  # below are commands and file meta, which somebody has left in a data set
_DICOM_UIDS = "1.2.840.10008."
_PUBLIC_SCHEMES = frozenset({"DCM", "SCT", "SRT", "SNM3", "LN", "UCUM", "RADLEX", "UMLS", "FMA", "RFC5646", "NCIt"})
_PUBLIC_CODE = re.compile(r"(?=.*\d)[A-Z0-9][A-Z0-9.-]{0,15}")
_CODED = re.compile(r"[A-Z0-9_ ]{0,16}")
_NUMBER = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_OFFSET = re.compile(r"[+-]\d{4}")
_AGE = re.compile(r"(\d{3})([DWMY])")
_OLDEST = 90
_DUMMIES = {"DA": "19000101", "DT": "19000101000000", "TM": "000000", "AS": "000Y", "UR": "urn:removed"}
_DUMMY = "REMOVED"
# Content items of a report whose text names an observer or a device, and not a finding (PS3.16 TID 1003, 1004).
_IDENTIFYING_CONCEPTS = frozenset({"121008", "121009", "121013", "121016", "121017"})
_PROCEDURE, _ANY_PROCEDURE = "121058", PLAIN_CHEST_RADIOGRAPH  # the one code that a report copies from the image
_METHODS = {
    "basic": Code("113100", "DCM", "Basic Application Confidentiality Profile"),
    "graphics": Code("113103", "DCM", "Clean Graphics Option"),
    "content": Code("113104", "DCM", "Clean Structured Content Option"),
    "descriptors": Code("113105", "DCM", "Clean Descriptors Option"),
    "dates": Code("113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient": Code("113108", "DCM", "Retain Patient Characteristics Option"),
    "device": Code("113109", "DCM", "Retain Device Identity Option"),
}
"""PS3.16 CID 7050."""


class Done(StrEnum):
    """What was done to an attribute."""

    REMOVED = "removed"
    EMPTIED = "emptied"
    REPLACED = "replaced"
    NEW_UID = "new UID"
    SHIFTED = "shifted"
    CLEANED = "cleaned"


Changes = Counter[tuple[str, Done]]
"""How often what was done to which attribute; private ones together are ``private``, unknown ones ``unknown``."""


@dataclass(frozen=True, slots=True)
class Deidentifier:
    """The profile with a site's options."""

    options: Deidentification
    pseudonyms: Pseudonyms

    def forbidden(self, dataset: Dataset, *, ours: bool) -> frozenset[str]:
        """The words of ``dataset`` that nothing of its study may repeat; see :func:`forbidden_words`.

        A result of this node (``ours``) has words from outside only where it copies patient and study.
        """
        elements = (element for element in dataset if element.keyword in _COPIED) if ours else dataset.iterall()
        return frozenset(forbidden_words(element for element in elements if self._names(element)))

    def _names(self, element: DataElement) -> bool:
        """Whether a text tells who or where somebody is, or may be quoted by a report; descriptions are not."""
        if element.VR == "CS":
            return not all(map(_CODED.fullmatch, _texts(element)))
        if element.VR == "PN" or element.keyword == "CodeMeaning":
            return True
        rule = rule_of(element.tag)
        if rule is None or rule.descriptors or (element.VR not in TEXT and element.VR != "DA"):
            return False
        return rule.action(self.options, ours=False) is not Action.KEEP

    def deidentify(
        self, dataset: Dataset, subject: Subject, forbidden: Collection[str], *, ours: bool
    ) -> tuple[Dataset, Changes]:
        """A de-identified copy of ``dataset``, and what was done.

        ``forbidden`` are the words that no text may repeat. ``ours``: a result of this node, whose structured content
        and graphics are cleaned instead of replaced, since their texts are known.
        """
        walk = _Walk(self, subject, frozenset(forbidden))
        made = walk.item(dataset, ours)
        for keyword in _OF_CODES & set(made.dir()):
            walk.changes[keyword, Done.REMOVED] += 1
            delattr(made, keyword)
        self._declare(made, ours)
        return made, walk.changes

    def _declare(self, made: Dataset, ours: bool) -> None:
        """Say that it is de-identified, how (PS3.15 E.1.1, PS3.3 C.7.1.1, C.12.1), and write a new file meta."""
        options = self.options
        made.PatientIdentityRemoved = "YES"
        made.DeidentificationMethod = f"Pleura {version('pleura')}, PS3.15 {EDITION}"
        methods = [
            "basic",
            *(["graphics"] if ours and "GraphicAnnotationSequence" in made else []),
            *(["content"] if ours and "ContentSequence" in made else []),
            *(["descriptors"] if options.clean_descriptors else []),
            *(["dates"] if options.dates == "shifted" else []),
            *(["patient"] if options.patient_characteristics else []),
            *(["device"] if options.device_identity else []),
        ]
        made.DeidentificationMethodCodeSequence = [_code_item(_METHODS[method]) for method in methods]
        made.LongitudinalTemporalInformationModified = "MODIFIED" if options.dates == "shifted" else "REMOVED"
        made.SpecificCharacterSet = "ISO_IR 192"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = made.SOPClassUID
        meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.file_meta = meta


def _code_item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, code.meaning
    return item


@dataclass(slots=True)
class _Walk:
    """One pass through a data set."""

    deidentifier: Deidentifier
    subject: Subject
    forbidden: frozenset[str]
    changes: Changes = field(default_factory=Counter)

    def item(self, item: Dataset, ours: bool) -> Dataset:
        """A de-identified copy of a data set or an item of a sequence."""
        concept = _concept(item)
        names_observer = concept in _IDENTIFYING_CONCEPTS
        made = Dataset()
        for element in item:
            if names_observer and element.keyword == "TextValue":
                kept = self._note(element, Done.REPLACED, _dummy(element))
            elif concept == _PROCEDURE and element.keyword == "ConceptCodeSequence":
                kept = self._sequence(element, False) or self._note(
                    element, Done.REPLACED, [_code_item(_ANY_PROCEDURE)]
                )
            else:
                kept = self._element(element, ours and element.keyword not in _COPIED)
            if kept is not None:
                made.add(kept)
        return made

    def _element(self, element: DataElement, ours: bool) -> DataElement | None:
        if element.tag.is_private or element.tag.group < _FIRST_GROUP:
            return self._note(element, Done.REMOVED, None)
        if element.keyword == "PatientID":
            return self._note(element, Done.REPLACED, self.subject.pseudonym)
        if element.keyword == "PatientName":
            return self._note(element, Done.REPLACED, f"{self.subject.pseudonym}^")
        rule = rule_of(element.tag)
        action = None if rule is None else rule.action(self.deidentifier.options, ours=ours)
        if element.is_empty:
            return None if action is Action.REMOVE or element.VR in _BYTES else deepcopy(element)
        if rule is None or action is None:
            return self._unlisted(element, ours)
        if action is Action.CLEAN:
            descends = ours if rule.content or rule.graphics else False
            return self._clean(element, descends, ours) or self._plain(element, rule.fallback, ours)
        if action is Action.REMOVE and element.VR in _MOMENTS and rule.type == 1:
            # The standard removes them also where an IOD demands them.
            action = Action.DUMMY
        return self._plain(element, action, ours)

    def _plain(self, element: DataElement, action: Action, ours: bool) -> DataElement | None:
        """Carry out an action other than *clean*."""
        if action is Action.KEEP:
            return self._kept(element, ours)
        if action is Action.REMOVE:
            return self._note(element, Done.REMOVED, None)
        if action is Action.EMPTY:
            return self._note(element, Done.EMPTIED, Sequence() if element.VR == "SQ" else "")
        if element.VR == "SQ":
            return self._sequence_or_none(element, ours)
        if element.VR == "UI":
            return self._uid(element)
        return self._note(element, Done.REPLACED, _dummy(element))

    def _clean(self, element: DataElement, descends: bool, ours: bool) -> DataElement | None:
        """What the cleaning options leave of an attribute; None where nothing can be left."""
        if element.VR in _MOMENTS or element.keyword == "TimezoneOffsetFromUTC":
            return self._shifted(element)
        if element.VR == "SQ":
            return self._sequence(element, descends)
        if element.VR not in TEXT:
            return None
        clean = masked if ours and element.keyword in _OUR_TEXT else cleaned
        text = clean(" ".join(_texts(element)), self.forbidden)[: _LONGEST.get(element.VR)]
        return self._note(element, Done.CLEANED, text) if text else None

    def _unlisted(self, element: DataElement, ours: bool) -> DataElement | None:
        """An attribute that the table does not name."""
        if element.VR == "SQ":
            return self._sequence_or_none(element, ours)
        if element.VR == "UI":
            return self._uid(element)
        if element.VR in ("DA", "DT", "TM"):
            shifted = self._shifted(element) if self.deidentifier.options.dates == "shifted" else None
            return shifted or self._note(element, Done.REMOVED, None)
        if element.VR in TEXT and not (element.keyword in _KEPT_TEXT or (ours and element.keyword in _OUR_TEXT)):
            emptied = element.keyword in _EMPTIED
            return self._note(element, Done.EMPTIED if emptied else Done.REMOVED, "" if emptied else None)
        if element.VR in _BYTES and element.keyword not in _KEPT_BYTES:
            return self._note(element, Done.REMOVED, None)
        return self._kept(element, ours)

    def _kept(self, element: DataElement, ours: bool) -> DataElement | None:
        """An attribute that stays, without forbidden words; an age says no more than 90 years."""
        if element.VR == "SQ":
            return self._sequence_or_none(element, ours)
        if element.VR == "CS":
            good = all(_CODED.fullmatch(text) and is_free_of(text, self.forbidden) for text in _texts(element))
            return deepcopy(element) if good else self._note(element, Done.REMOVED, None)
        if element.VR == "AS":
            return self._age(element)
        if element.VR in ("DS", "IS") and not all(map(_NUMBER.fullmatch, _texts(element))):
            # A number on the wire is text: pydicom hands on what is none.
            return self._note(element, Done.REMOVED, None)
        if element.VR not in TEXT or (ours and element.keyword in _OF_CODES):
            return deepcopy(element)
        texts = [masked(text, self.forbidden)[: _LONGEST.get(element.VR)] for text in _texts(element)]
        if texts == _texts(element):
            return deepcopy(element)
        return self._note(element, Done.CLEANED, texts if len(texts) > 1 else texts[0])

    def _age(self, element: DataElement) -> DataElement | None:
        found = _AGE.fullmatch(str(element.value))
        if found is None:
            return self._note(element, Done.REMOVED, None)
        if found[2] == "Y" and int(found[1]) > _OLDEST:
            return self._note(element, Done.REPLACED, f"{_OLDEST:03}Y")
        return deepcopy(element)

    def _sequence(self, element: DataElement, ours: bool) -> DataElement | None:
        """A sequence with de-identified items; None if none is left."""
        items = []
        for each in element.value:
            if not ours and not _is_public(each):
                continue
            item = self.item(each, ours)
            if not ours:
                self._name_by_code(item)
            if len(item) or not len(each):
                items.append(item)
        return DataElement(element.tag, "SQ", Sequence(items)) if items else None

    def _sequence_or_none(self, element: DataElement, ours: bool) -> DataElement | None:
        """As :meth:`_sequence`, and count it where none is left."""
        return self._sequence(element, ours) or self._note(element, Done.REMOVED, None)

    def _name_by_code(self, item: Dataset) -> None:
        """Leave known words of a code's meaning, or else the code: the meaning may be written by anybody."""
        if "CodeMeaning" in item:
            meaning = cleaned(str(item.CodeMeaning), self.forbidden)
            item.CodeMeaning = meaning or str(item.get("CodeValue") or _DUMMY)

    def _uid(self, element: DataElement) -> DataElement:
        """New UIDs for what is an instance; UIDs of the standard and of coding schemes stay."""
        uids = element.value if element.VM > 1 else [element.value]
        kept = element.keyword in _KEPT_UIDS
        stays = [_UID.fullmatch(uid) and (kept or uid.startswith(_DICOM_UIDS)) for uid in uids]
        made_up = self.deidentifier.pseudonyms.uid
        new = [uid if stay else UID(made_up(uid)) for uid, stay in zip(uids, stays, strict=True)]
        if new == list(uids):
            return deepcopy(element)
        self._note(element, Done.NEW_UID, None)
        return DataElement(element.tag, "UI", new if len(new) > 1 else new[0])

    def _shifted(self, element: DataElement) -> DataElement | None:
        """The same moments, as many days earlier as the patient's others; None where one cannot be read."""
        if element.VR == "TM":
            return deepcopy(element) if all(re.fullmatch(r"[\d:.]+", text) for text in _texts(element)) else None
        if element.keyword == "TimezoneOffsetFromUTC":
            return deepcopy(element) if all(map(_OFFSET.fullmatch, _texts(element))) else None
        moved = [earlier(text, self.subject.days) for text in _texts(element)]
        texts = [text for text in moved if text is not None]
        if len(texts) < len(moved):
            return None
        return self._note(element, Done.SHIFTED, texts if len(texts) > 1 else texts[0])

    def _note(self, element: DataElement, done: Done, value: Any) -> DataElement | None:
        """Count what was done, and give the element with its new value; None is no element."""
        self.changes[name_of(element.tag), done] += 1
        return None if value is None else DataElement(element.tag, element.VR, value)


def name_of(tag: BaseTag) -> str:
    """The keyword of an attribute; ``private`` and ``unknown`` for those that the standard has no name for."""
    return "private" if tag.is_private else keyword_for_tag(tag) or "unknown"


def earlier(text: str, days: int) -> str | None:
    """A date (DA) or moment (DT), ``days`` earlier and as exact as it was; None if it is neither (PS3.5 6.2)."""
    found = re.fullmatch(r"(\d{4})[.]?(\d\d)?[.]?(\d\d)?([\d.]*)([+-]\d{4})?", text.strip())
    if found is None:
        return None
    year, month, day, clock, offset = found.groups()
    try:
        moved = date(int(year), int(month or 1), int(day or 1)) - timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    digits = f"{moved:%Y%m%d}".rjust(8, "0")
    return digits[: 4 + 2 * (month is not None) + 2 * (day is not None)] + clock + (offset or "")


def _dummy(element: DataElement) -> Any:
    if element.VR in TEXT or element.VR in _DUMMIES:
        return _DUMMIES.get(element.VR, _DUMMY)
    if element.VR == "CS":
        return _DUMMY
    return b"\0\0" if element.VR in _BYTES else 0


def _texts(element: DataElement) -> list[str]:
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    return [str(value) for value in values]


def _is_public(item: Dataset) -> bool:
    """False for a code of a coding scheme of somebody's own: value and meaning may be any text."""
    if not any(keyword in item for keyword in ("CodeValue", "LongCodeValue", "URNCodeValue")):
        return True
    scheme, value = str(item.get("CodingSchemeDesignator") or ""), str(item.get("CodeValue") or "")
    return scheme in _PUBLIC_SCHEMES and _PUBLIC_CODE.fullmatch(value) is not None


def _concept(item: Dataset) -> str:
    """The code that names a content item of a report; empty for anything else."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue") or "") if names else ""


def known_keywords(dataset: Dataset) -> list[str]:
    """Keywords of the public attributes of a data set that the data dictionary knows; repeating groups have none."""
    keywords = (keyword_for_tag(tag) for tag in sorted(dataset.keys()) if not tag.is_private)
    return [keyword for keyword in keywords if keyword and tag_for_keyword(keyword) is not None]
