"""docs/dicom-conformance.md against the code: what its tables list is what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID

from config import implementation
from db.records import NOTE, StaleObject
from models.model_spec import Code
from node.dicom.eligibility import RADIOGRAPH_CLASSES
from node.dicom.presentation_contexts import DECODABLE
from tests.workers.results.sources import CREATED_AT, EQUIPMENT, analysis, encode_all, source, study_summary
from tests.workers.results.test_objects import KNOWN_WARNINGS
from workers.results import codes
from workers.results.codes import read_code
from workers.results.encoders import ENCODERS
from workers.results.rejection_note import encode_note
from workers.results.result_kinds import LUNGS, MODALITIES

STATEMENT = Path(__file__).parents[3] / "docs" / "dicom-conformance.md"


def table(heading: str) -> list[list[str]]:
    """Rows of the table whose first header cell is ``heading``."""
    rows: list[list[str]] = []
    inside = False
    for line in STATEMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not set(line) <= set("|-: "):
            rows.append(cells)
    assert rows, f"no table {heading}"
    return rows


def test_received_classes_and_transfer_syntaxes_are_those_of_the_listener():
    assert {row[1] for row in table("Received SOP class")} == set(RADIOGRAPH_CLASSES)
    assert {row[1] for row in table("Received transfer syntax")} == set(DECODABLE)


def test_status_codes_are_those_of_the_listener():
    from node.dicom import receiving

    coded = (
        receiving.SUCCESS,
        receiving.OUT_OF_RESOURCES,
        receiving.MISMATCH,
        receiving.CANNOT_UNDERSTAND,
        receiving.PROCESSING_FAILURE,
    )
    assert [int(row[0], 16) for row in table("Status")] == list(coded)


def test_kinds_classes_modalities_and_numbers_are_those_of_the_encoders():
    listed = table("Kind")
    assert list(dict.fromkeys(row[0] for row in listed)) == [
        *(entry.kind for entry in ENCODERS if entry.kind != LUNGS),
        "summary",
        NOTE,
        LUNGS,
    ]
    stale = StaleObject(1, "pacs", "seg", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.3", "1.2", "113001", "Why.")
    note = encode_note(source(), [stale], equipment=EQUIPMENT, uid_root="2.25", created_at=CREATED_AT)
    made = {**encode_all(analysis()), "summary": study_summary(source()), NOTE: note}
    for kind, item in made.items():
        row = next(row for row in listed if row[0] == kind)
        assert row[2] == item.SOPClassUID
        assert UID(row[2]).name in row[1]
        assert MODALITIES[kind] == item.Modality, "what a query for this modality finds"
        assert (row[3], row[4]) == (item.Modality, f"base + {item.SeriesNumber - 9000}")
    assert encode_all(analysis(sr_storage="comprehensive"))["sr"].SOPClassUID in {row[2] for row in listed}


def our_codes() -> list[Code]:
    """Every code that :mod:`workers.results.codes` names, alone or in a table."""
    named = [value for value in vars(codes).values() if isinstance(value, Code)]
    tables = [value for value in vars(codes).values() if isinstance(value, dict)]
    return named + [code for table in tables for code in table.values() if isinstance(code, Code)]


def test_every_listed_code_is_ours_or_one_that_highdicom_writes():
    ours = {(code.value, code.scheme, code.meaning) for code in our_codes()}
    for element in (element for made in encode_all(analysis()).values() for element in made.iterall()):
        if element.VR == "SQ":
            written = (read_code(item) for item in element.value if "CodeMeaning" in item)
            ours |= {(code.value, code.scheme, code.meaning) for code in written}
    listed = {(row[1], row[2], row[3]) for row in table("Use")}
    assert listed <= ours


@pytest.mark.parametrize(
    "name", ["PRESENT", "NOT_DETECTED", "SUMMARY", "UNDETERMINED", "NOT_ATTEMPTED", "PROBABILITY", "PRIORITY"]
)
def test_codes_that_decide_are_listed(name):
    code: Code = getattr(codes, name)
    assert [code.value, code.scheme, code.meaning] in [row[1:] for row in table("Use")]


def test_the_implementation_is_as_listed():
    listed = {row[0]: row[1].strip("`") for row in table("Identification")}
    assert listed["Implementation Class UID"] == implementation.IMPLEMENTATION_CLASS_UID
    assert listed["Implementation Version Name"] == implementation.IMPLEMENTATION_VERSION_NAME


def test_every_warning_that_the_tests_allow_is_explained():
    text = " ".join(row[0] for row in table("Warning"))
    for warning in KNOWN_WARNINGS:
        key = re.sub(r"[^A-Za-z]+", " ", warning).split()
        assert all(word in re.sub(r"[^A-Za-z]+", " ", text).split() for word in key if word not in ("Attribute", "is"))


def test_meanings_of_standard_codes_are_those_of_the_standard():
    """A wrong digit gives another meaning: pydicom's copy of PS3.16 knows most of our codes."""
    from pydicom.sr._concepts_dict import concepts

    known: dict[tuple[str, str], set[str]] = {}
    for scheme in ("DCM", "SCT"):
        of_scheme: dict[str, Any] = concepts[scheme]
        for meanings in of_scheme.values():
            for value, (meaning, _) in meanings.items():
                known.setdefault((value, scheme), set()).add(re.sub(r" \(.*\)$", "", meaning).lower())
    ours = [code for code in our_codes() if (code.value, code.scheme) in known]
    assert [code for code in ours if code.meaning.lower() not in known[(code.value, code.scheme)]] == []
    assert len(ours) > 30
