"""Values of a patient that occur nowhere else, a radiograph and messages full of them, and the search for them.

A value is found in any case of letters, in the encodings that hospitals send (UTF-8, Latin-1, UTF-16), percent-encoded,
as JSON and Python escape it, and inside base64, wherever it begins there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import quote

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import generate_uid

from tests.integration.studies import frontal

NAME, ID, OTHER_ID, ACCESSION = "name", "patient ID", "other ID", "accession number"
DESCRIPTION = "description"
WORDS: Mapping[str, tuple[str, ...]] = {
    NAME: ("Quxelbrandt", "Zörgibelia"),
    ID: ("KZQ-7741903",),
    OTHER_ID: ("SOZ-55501237",),
    ACCESSION: ("ACQ-90417733",),
    "birth date": ("19330217", "1933-02-17", "17.02.1933", "02/17/1933"),
    "address": ("Wunzelgasse", "Knarrenheim"),
    "telephone": ("0815-4711-3399",),
    "birth name": ("Ploffinger",),
    "mother": ("Grizzelmaier",),
    "physician": ("Drosselquist", "Ottokarina"),
    "reader": ("Vennemurk",),
    "comments": ("tulpenzwiebelallergisch",),
    "history": ("kofferkniegicht",),
    "occupation": ("Gurkenkapitaen",),
    "private text": ("xylopflaumig",),
    DESCRIPTION: ("Thoraxquirl",),
    "order number": ("ORQ-66120984",),
    "report": ("Rippenquatsch",),
}
"""Words by what they are of; each alone identifies the patient, or says what only the patient's record says."""


def radiograph() -> FileDataset:
    """A chest PA with these words in every attribute that may hold one, in sequences and private elements, too."""
    image = frontal()
    image.PatientName = "Quxelbrandt^Zörgibelia"
    image.PatientID, image.AccessionNumber, image.PatientBirthDate = "KZQ-7741903", "ACQ-90417733", "19330217"
    image.OtherPatientIDs = ["SOZ-55501237", "KZQ-7741903"]
    image.OtherPatientIDsSequence = [_item(PatientID="SOZ-55501237", TypeOfPatientID="TEXT")]
    image.OtherPatientNames = "Ploffinger^Zörgibelia"
    image.PatientBirthName, image.PatientMotherBirthName = "Ploffinger^Z", "Grizzelmaier^Z"
    image.PatientAddress, image.PatientTelephoneNumbers = "Wunzelgasse 7, Knarrenheim", "0815-4711-3399"
    image.PatientComments, image.ImageComments = "tulpenzwiebelallergisch", "tulpenzwiebelallergisch"
    image.AdditionalPatientHistory, image.Occupation = "kofferkniegicht", "Gurkenkapitaen"
    image.ReferringPhysicianName = image.PhysiciansOfRecord = "Drosselquist^Ottokarina"
    image.NameOfPhysiciansReadingStudy = image.OperatorsName = "Vennemurk^O"
    image.StudyDescription, image.StudyID = "Thoraxquirl", "ORQ-66120984"
    image.RequestAttributesSequence = [
        _item(RequestedProcedureDescription="Thoraxquirl", ScheduledProcedureStepID="ORQ-66120984")
    ]
    private = image.private_block(0x0099, "XYLOPFLAUMIG", create=True)
    private.add_new(0x01, "LT", "xylopflaumig Quxelbrandt")
    return image


def odd_radiographs() -> Iterator[FileDataset]:
    """Radiographs that something is wrong with, and patients' words where numbers or codes belong."""
    changes: tuple[Mapping[str, object], ...] = (
        {"PixelData": b"\0" * 10},
        {"Rows": None},
        {"PhotometricInterpretation": "QUXELBRANDT"},
        {"BodyPartExamined": "QUXELBRANDT", "ViewPosition": "ZOERGIBELIA"},
        {"SpecificCharacterSet": "Quxelbrandt"},
        {"Modality": "KZQ-7741903"},
        {"StudyInstanceUID": "1.2.Quxelbrandt.KZQ-7741903"},
        {"SOPInstanceUID": ""},
    )
    for change in changes:
        image = radiograph()
        image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
        for keyword, value in change.items():
            if value is None:
                delattr(image, keyword)
            else:
                image.add_new(keyword, image[keyword].VR if keyword in image else "LO", value)
        yield image
    # Values that are no values of their representation: they are written as raw bytes.
    for keyword, raw in (
        ("PixelSpacing", b"Quxelbrandt\\KZQ-7741903 "),
        ("WindowCenter", b"19330217Quxelbrandt "),
        ("StudyDate", b"Quxelbrandt "),
        ("InstanceNumber", b"Quxelbrandt "),
        ("PatientName", b"Quxelbrandt\xff\xfe^\x1b$BZ "),
    ):
        image = radiograph()
        image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
        image[keyword] = _raw(image, keyword, raw)
        yield image


def _raw(image: Dataset, keyword: str, value: bytes) -> RawDataElement:
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.tag import Tag

    del image
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return RawDataElement(Tag(tag), dictionary_VR(tag), len(value), value, 0, False, True)


def _item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


PID = (
    "PID|1||KZQ-7741903^^^^MR~SOZ-55501237^^^^PI||Quxelbrandt^Zörgibelia^^^^^L|Grizzelmaier|19330217|F|"
    "Ploffinger^Z||Wunzelgasse 7^^Knarrenheim||0815-4711-3399"
)
PV1 = "PV1|1|I|Knarrenheim||||1^Drosselquist^Ottokarina"
NTE = "NTE|1||tulpenzwiebelallergisch kofferkniegicht"


def hl7_segments() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Kinds of messages with their segments: right ones first, then such as cannot be taken."""
    obr = f"OBR|1|ORQ-66120984^RIS|FI-1^RIS|36643-5^Thoraxquirl^LN{'|' * 14}ACQ-90417733{'|' * 7}F||^^^^^S"
    obx = "OBX|1|TX|18748-4^Report^LN||Rippenquatsch Quxelbrandt||||||F"
    return (
        ("ORM^O01", (PID, PV1, "ORC|NW|ORQ-66120984^RIS|FI-1^RIS", obr, NTE)),
        ("ADT^A08^ADT_A01", ("EVN|A08|20260301030000", PID, PV1)),
        ("ADT^A40^ADT_A39", (PID, "MRG|SOZ-55501237^^^^MR")),
        ("ORU^R01^ORU_R01", (PID, obr, obx)),
        ("ADT^A08^ADT_A01", ("EVN|A08|Quxelbrandt", PID.replace("19330217", "Quxelbrandt1933"), PV1)),
        ("ADT^A08^ADT_A01", ("EVN|A08|20260301030000", "PID|1||UNKNOWN^^^^MR||Quxelbrandt^Zörgibelia")),
        ("ORM^O01", (PID, "ORC|Quxelbrandt|ORQ-66120984", "OBR|Quxelbrandt")),
        ("ORM^O01", (PV1, NTE)),
        ("ZZZ^Z99", (PID,)),
        ("ADT^A40^ADT_A39", (PID, "MRG|")),
    )


# --- the search


@cache
def _forms(word: str) -> tuple[bytes, ...]:
    """What a word may look like where ASCII letters are in lower case."""
    forms: set[bytes] = set()
    for text in (word, word.upper(), word.lower()):
        forms |= {text.encode(encoding) for encoding in ("utf-8", "latin-1", "utf-16-le")}
        forms |= {quote(text, safe="", encoding=encoding).encode() for encoding in ("utf-8", "latin-1")}
        forms |= {repr(text.encode(encoding))[2:-1].encode() for encoding in ("utf-8", "latin-1")}
        forms.add(json.dumps(text)[1:-1].encode())
    return tuple({form.lower() for form in forms})


@cache
def _base64_forms(word: str) -> tuple[bytes, ...]:
    """What is the same of a word in base64, however many bytes come before and behind it."""
    forms = set()
    for text in {word, word.upper(), word.lower()}:
        for encoding in ("utf-8", "latin-1"):
            for before in range(3):
                encoded = base64.b64encode(b"\0" * before + text.encode(encoding))
                first, last = (0, 2, 3)[before], len(text.encode(encoding)) + before
                forms.add(encoded[first : last * 8 // 6])  # letters that depend on this word alone
    return tuple(forms) + tuple(form.replace(b"+", b"-").replace(b"/", b"_") for form in forms)


def found_in(content: bytes, but: Iterable[str] = ()) -> dict[str, str]:
    """The kinds of values that ``content`` holds, each with the words around it; ``but`` names kinds that it may."""
    lower, allowed, found = content.lower(), frozenset(but), {}
    for kind, words in WORDS.items():
        if kind in allowed:
            continue
        for word in words:
            places = [at for form in _forms(word) if (at := lower.find(form)) >= 0]
            places += [at for form in _base64_forms(word) if (at := content.find(form)) >= 0]
            if places:
                around = content[max(0, places[0] - 80) : places[0] + 80]
                found[kind] = around.decode("utf-8", "replace")
                break
    return found


def found_below(folder: Path, but: Iterable[str] = (), without: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """What the files below ``folder`` hold, and their names; ``without`` are names in it that are meant to hold it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        names = found_in(str(relative).encode())
        meant = any(relative.parts[0] == name or relative.parts[0].startswith(f"{name}-") for name in without)
        content = found_in(path.read_bytes(), but) if path.is_file() and not meant else {}
        if names or content:
            found[str(relative)] = {**names, **content}
    return found
