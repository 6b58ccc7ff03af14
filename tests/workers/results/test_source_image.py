"""The header of a source image: what is read is sound, what is odd says nothing, nothing is forgotten."""

from __future__ import annotations

import ast
import struct
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.datadict import keyword_dict
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

import workers
from models.radiograph.attributes import UnreadableText, is_readable
from models.radiograph.decode import UnreadablePixels
from tests.workers.harness import radiograph
from workers.results.codes import PLAIN_CHEST_RADIOGRAPH
from workers.results.report_document import procedure_code
from workers.results.source_image import HEADER, read_header, read_source, sound_header

ROOM = Path(workers.__file__).parent
PROCEDURE, METHOD, BODY_PART, SPACING = 0x00081032, 0x00120064, 0x00180015, 0x00280030


def raw(tag: int, vr: str | None, octets: bytes) -> RawDataElement:
    """An element as it comes from a file."""
    return RawDataElement(BaseTag(tag), vr, len(octets), octets, 0, vr is None, True)


def read(*odd: RawDataElement, tmp_path: Path, **changes: object) -> Dataset:
    """The header of a small radiograph with these elements, after a trip through a file."""
    return read_header(written(*odd, path=tmp_path / "a.dcm", **changes))


def written(*odd: RawDataElement, path: Path, **changes: object) -> Path:
    dataset = radiograph("1.2.3.1")
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dcmwrite(path, dataset, enforce_file_format=True)
    reread = dcmread(path)
    for element in odd:
        reread[element.tag] = element
    dcmwrite(path, reread)
    return path


def test_a_private_element_that_is_not_what_the_dictionary_says_does_no_harm(tmp_path: Path) -> None:
    dataset = radiograph("1.2.3.1")
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    file = (tmp_path / "a.dcm").read_bytes()
    at = file.rindex(struct.pack("<HH", 0x7FE0, 0x0010))
    odd = struct.pack("<HHL", 0x01F1, 0x0010, 8) + b"ELSCINT1" + struct.pack("<HHL", 0x01F1, 0x1026, 6) + b"0.264 "
    (tmp_path / "a.dcm").write_bytes(file[:at] + odd + file[at:])
    source = read_source(tmp_path / "a.dcm")
    assert source.not_analysed is None
    assert source.model_input is not None
    assert all(not element.tag.is_private for element in source.header)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_file_meta_inside_the_data_set_is_not_believed(syntax: str, tmp_path: Path) -> None:
    dataset = radiograph("1.2.3.1")
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    file = (tmp_path / "a.dcm").read_bytes()
    at = file.index(struct.pack("<HH", 0x0008, 0x0016))
    length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, 30)
    left = struct.pack("<HH2sH", 2, 0x0010, b"UI", 22) + b"1.2.840.10008.1.2.4.70"
    for stray in (left, length + left):
        (tmp_path / "b.dcm").write_bytes(file[:at] + stray + file[at:])
        source = read_source(tmp_path / "b.dcm")
        assert source.not_analysed is None
        assert source.header.file_meta.TransferSyntaxUID == syntax
        assert source.header.PatientID == "P1"


@pytest.mark.parametrize("tag", [PROCEDURE, METHOD])
def test_a_sequence_written_as_text_says_nothing(tag: int, tmp_path: Path) -> None:
    header = read(raw(tag, "LO", b"CHEST PA"), tmp_path=tmp_path)
    assert BaseTag(tag) not in header
    assert procedure_code(header) == PLAIN_CHEST_RADIOGRAPH


@pytest.mark.parametrize(
    ("tag", "vr", "octets"),
    [
        (BODY_PART, "CS", b"CHEST\\ABDOMEN "),
        (BODY_PART, "UL", b"ABCD"),
        (SPACING, "DS", b"0.2\\wide"),
        (0x00281050, "US", b"\1\0\2"),
        (0x00101010, "XX", b"0"),
    ],
)
def test_a_wrong_value_representation_or_multiplicity_says_nothing(
    tag: int, vr: str, octets: bytes, tmp_path: Path
) -> None:
    del tmp_path
    dataset = radiograph("1.2.3.1")
    dataset[tag] = raw(tag, vr, octets)
    assert BaseTag(tag) not in sound_header(dataset)


def test_items_keep_what_is_sound() -> None:
    dataset, item = radiograph("1.2.3.1"), Dataset()
    item.PatientID = "OLD-1"
    item[0x00100021] = raw(0x00100021, "DS", b"A")
    item[0x00091001] = raw(0x00091001, "FD", b"123")
    dataset.OtherPatientIDsSequence = [item]
    (found,) = sound_header(dataset).OtherPatientIDsSequence
    assert [element.keyword for element in found] == ["PatientID"]


def test_identity_is_read_to_the_letter(tmp_path: Path) -> None:
    header = read(raw(0x00100020, "ST", b"A\\B "), raw(0x00100010, "LO", b"Doe^Jane"), tmp_path=tmp_path)
    assert header["PatientID"].VR == "LO"
    assert list(header.PatientID) == ["A", "B"]
    assert header.PatientName.family_name == "Doe"


@pytest.mark.parametrize(("tag", "octets"), [(0x0020000D, b""), (0x0020000E, b"1.2\\3"), (0x00080018, b"")])
def test_what_nothing_can_refer_to_is_not_analysed(tag: int, octets: bytes, tmp_path: Path) -> None:
    path = written(raw(tag, "UI", octets), path=tmp_path / "a.dcm")
    source = read_source(path)
    assert source.not_analysed is not None
    assert not source.not_analysed.is_chest
    assert "that can be read" in source.not_analysed.sentence
    with pytest.raises(UnreadablePixels):
        read_header(path)


def test_text_that_cannot_be_read_keeps_its_bytes(tmp_path: Path) -> None:
    latin = "Müller".encode("latin-1")
    changes = {"SpecificCharacterSet": "ISO_IR 192"}
    header = read(raw(0x00100010, "PN", latin), raw(0x00081030, "LO", latin), tmp_path=tmp_path, **changes)
    assert isinstance(header.StudyDescription, UnreadableText)
    assert header.StudyDescription.octets == latin
    assert header.PatientName.original_string == latin
    assert not is_readable(header.PatientName)


def test_a_character_set_that_does_not_exist_is_read_as_latin_1(tmp_path: Path) -> None:
    for term in ("WINDOWS1252", "UTF8", "NONSENSE"):
        octets = term.encode() + b" " * (len(term) % 2)
        odd = raw(0x00080005, "CS", octets), raw(0x00081030, "LO", "Thorax für".encode("latin-1"))
        assert read(*odd, tmp_path=tmp_path).StudyDescription == "Thorax für"


def test_the_limit_on_pixels_holds(tmp_path: Path) -> None:
    source = read_source(written(path=tmp_path / "a.dcm"), maximum_pixels=100)
    assert source.not_analysed is not None
    assert source.not_analysed.code == "too_large"
    assert source.header.SOPInstanceUID == dcmread(tmp_path / "a.dcm").SOPInstanceUID


def test_whatever_is_read_of_a_header_is_in_its_list() -> None:
    modules = [
        *(ROOM / "results").glob("*.py"),
        ROOM / "analysis.py",
        ROOM / "image_measures.py",
        ROOM / "study_summary.py",
    ]
    for module in modules:
        missing = _read_of_a_header(ast.parse(module.read_text())) - {*HEADER, "SpecificCharacterSet"}
        assert not missing, f"{module.name} reads {missing} of a source, and workers.results.source_image does not"


def _read_of_a_header(tree: ast.Module) -> set[str]:
    """Keywords of ``source.Rows``, ``analysis.source.get("Rows")``, ``header["Rows"]``, ``"Rows" in source``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(getattr(node, "ctx", None), ast.Store):
            continue
        if isinstance(node, ast.Attribute) and _is_header(node.value):
            found.add(node.attr)
        if isinstance(node, ast.Subscript) and _is_header(node.value):
            found |= _constants(node.slice)
        if isinstance(node, ast.Compare) and any(map(_is_header, node.comparators)):
            found |= _constants(node.left)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_header(node.func.value):
            found |= {word for argument in node.args for word in _constants(argument)}
    return found & keyword_dict.keys()


def _is_header(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in ("source", "header")


def _constants(node: ast.expr) -> set[str]:
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
