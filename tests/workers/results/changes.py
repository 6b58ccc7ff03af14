"""What a change of the encoders changes in the objects, attribute by attribute.

``python -m tests.workers.results.changes store FOLDER`` writes the objects of a handful of analyses. ``compare FOLDER``
encodes them again and prints a Markdown table of every attribute that differs, with the cases in which it does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from db.records import StaleObject
from models.contract import NotAnalysed
from tests.workers.results.sources import (
    CREATED_AT,
    EQUIPMENT,
    analysis,
    boxed,
    encode_all,
    finding,
    negative,
    source,
    study_summary,
    two_masks,
    write,
)
from workers.results.rejection_note import encode_note

_BROKEN: dict[str, Any] = {
    "PatientAge": "62",
    "PatientSex": "X",
    "StudyDate": "2026-03-01",
    "StudyTime": "25:00",
    "StudyID": None,
    "AccessionNumber": "B100\\B101",
    "PatientID": "x" * 70,
    "StudyDescription": "CHEST PA\\LAT",
    "PatientOrientation": "L",
    "SpecificCharacterSet": None,
    "PatientName": "Müller^Jürgen",
}
_SHUTTER: dict[str, Any] = {
    "ShutterShape": "RECTANGULAR",
    "ShutterLeftVerticalEdge": 1,
    "ShutterRightVerticalEdge": 40,
    "ShutterUpperHorizontalEdge": 2,
    "ShutterLowerHorizontalEdge": 60,
    "WindowCenterWidthExplanation": "NORMAL",
    "RescaleIntercept": "0",
    "RescaleSlope": "1",
}


def objects() -> Iterator[tuple[str, str, Dataset]]:
    """Case, kind and object."""
    cases = {
        "localised": analysis(),
        "several segments": analysis(findings=two_masks()),
        "boxes": analysis(source("dx", PhotometricInterpretation="MONOCHROME1", **_SHUTTER), boxed()),
        "negative": analysis(findings=negative()),
        "supine": analysis(source(ViewPosition="AP"), negative()),
        "could not tell": analysis(findings=(finding(probability=None, reason="no lungs"),)),
        "not analysed": analysis(not_analysed=NotAnalysed("corrupt", "The pixels are broken."), model_input=None),
        "no spacing": analysis(source("sc", PatientOrientation=None, TimezoneOffsetFromUTC="-0400"), spacing=None),
        "broken source": analysis(source(**_BROKEN), two_masks()),
    }
    for case, made in cases.items():
        for kind, one in encode_all(made).items():
            yield case, kind, one
        yield case, "summary", study_summary(made.source)
        yield case, "note", note(made.source)


def note(header: Dataset) -> Dataset:
    """A rejection note about a SEG and a report."""
    stale = [
        StaleObject(1, "pacs", "seg", sop_class, f"1.2.3.{number}", "1.2.3", "113001", "The analysis was corrected.")
        for number, sop_class in enumerate(("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"), 1)
    ]
    return encode_note(header, stale, equipment=EQUIPMENT, uid_root="2.25", created_at=CREATED_AT)


def flat(dataset: Dataset, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and value of each element; items are numbered from 1 in brackets."""
    for element in dataset:
        here = f"{path}{element.keyword or element.tag}"
        if element.VR != "SQ":
            yield here, f"{element.VR} {element.value!r:.60}"
            continue
        yield here, f"SQ {len(element.value)}"
        for number, item in enumerate(element.value, 1):
            yield from flat(item, f"{here}[{number}].")


def compare(folder: Path) -> Iterator[str]:
    """Rows of the table."""
    differences: dict[tuple[str, str, str, str], list[str]] = {}
    for case, kind, made in objects():
        path = folder / case / f"{kind}.dcm"
        if not path.is_file():
            yield f"| {kind} | (new object) | | | {case} |"
            continue
        now = pydicom.dcmread(write(made, folder / "now.dcm"))
        before, after = (dict(flat(one.file_meta)) | dict(flat(one)) for one in (pydicom.dcmread(path), now))
        for name in sorted(before.keys() | after.keys(), key=lambda name: [*after, *before].index(name)):
            if before.get(name) != after.get(name):
                row = (kind, name, before.get(name, "-"), after.get(name, "-"))
                differences.setdefault(row, []).append(case)
    for row, cases in differences.items():
        yield f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} | {', '.join(cases)} |"


def main() -> None:
    """See the module's docstring."""
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "store":
        for case, kind, made in objects():
            (folder / case).mkdir(parents=True, exist_ok=True)
            write(made, folder / case / f"{kind}.dcm")
        return
    print("| kind | attribute | before | after | cases |", "|---|---|---|---|---|", *compare(folder), sep="\n")


if __name__ == "__main__":
    main()
