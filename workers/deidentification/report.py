"""The report of an export: what was removed or replaced, how often, and what stayed. No original value is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any

from pydicom.datadict import dictionary_description, tag_for_keyword

from workers.deidentification.profile import Changes, Deidentifier, Done
from workers.deidentification.study import Outcome
from workers.deidentification.table import EDITION

NOT_ANONYMOUS = (
    "De-identified data are not anonymous by law: who has the key, or knows the patient, may find them again. "
    "Text that is burned in was refused by what headers say of it; nobody has looked into the pixels. "
    "Look at the images before you pass them on."
)


@dataclass(slots=True)
class Report:
    """The sum over all objects of an export."""

    exported: Counter[str] = field(default_factory=Counter)
    not_exported: Counter[tuple[str, str]] = field(default_factory=Counter)
    changes: Changes = field(default_factory=Changes)
    patients: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)

    def add(self, outcome: Outcome) -> None:
        """Count the outcome of one object."""
        if outcome.not_exported:
            self.not_exported[outcome.kind, outcome.not_exported] += 1
            return
        patient, study, *_ = outcome.path.split("/")
        self.patients.add(patient)
        self.studies.add(study)
        self.exported[outcome.kind] += 1
        self.changes.update(outcome.changes)


def options_of(deidentifier: Deidentifier) -> dict[str, Any]:
    """The options of an export, with a fingerprint in the place of the key."""
    chosen = deidentifier.options.model_dump(exclude={"key"})
    return {**chosen, "key_fingerprint": deidentifier.pseudonyms.fingerprint}


def as_json(report: Report, options: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The report for programs."""
    return {
        "made_by": f"Pleura {version('pleura')}",
        "made_at": now.isoformat(timespec="seconds"),
        "profile": f"Basic Application Level Confidentiality Profile, DICOM PS3.15 {EDITION} Annex E",
        "options": dict(options),
        "patients": len(report.patients),
        "studies": len(report.studies),
        "exported": dict(sorted(report.exported.items())),
        "not_exported": [
            {"kind": kind, "reason": reason, "count": count}
            for (kind, reason), count in sorted(report.not_exported.items())
        ],
        "attributes": [
            {"tag": _tag(keyword), "attribute": keyword, "action": str(done), "count": count}
            for (keyword, done), count in _ordered(report.changes)
        ],
        "warning": NOT_ANONYMOUS,
    }


def as_text(report: Report, options: Mapping[str, Any], now: datetime) -> str:
    """The report for people."""
    return "\n".join(_lines(report, options, now)) + "\n"


def _lines(report: Report, options: Mapping[str, Any], now: datetime) -> Iterator[str]:
    yield f"De-identified export by Pleura {version('pleura')} at {now:%Y-%m-%d %H:%M} UTC"
    yield f"Basic Application Level Confidentiality Profile, DICOM PS3.15 {EDITION} Annex E"
    yield ""
    yield NOT_ANONYMOUS
    yield ""
    yield f"{len(report.patients)} patients, {len(report.studies)} studies"
    yield from (f"{count:8} {kind} exported" for kind, count in sorted(report.exported.items()))
    yield from (f"{count:8} {kind} not exported: {why}" for (kind, why), count in sorted(report.not_exported.items()))
    yield ""
    yield "Options"
    yield from (f"  {name}: {value}" for name, value in options.items())
    yield ""
    yield "Attributes"
    for (keyword, done), count in _ordered(report.changes):
        yield f"{count:8} {done:<9} {_tag(keyword):<11} {_name(keyword)}"


def _ordered(changes: Changes) -> list[tuple[tuple[str, Done], int]]:
    return sorted(changes.items(), key=lambda one: (_tag(one[0][0]) or "~", one[0]))


def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    return "" if tag is None else f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _name(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    return f"{keyword} attributes" if tag is None else dictionary_description(tag)
