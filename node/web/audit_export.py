"""The audit trail as a file: CSV (RFC 4180) or JSON, with places and digests, so that the copy can be verified too."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from db.audit import RecordedEntry
from node.web.formatting import cell

_CSV: Mapping[str, Callable[[RecordedEntry], object]] = {
    "entry": lambda one: one.position,
    "at": lambda one: one.at.isoformat(),
    "actor": lambda one: one.actor,
    "action": lambda one: one.action,
    "event": lambda one: one.meaning.event.value,
    "failed": lambda one: int(one.failed),
    "subject": lambda one: one.subject,
    "study": lambda one: "" if one.study_id is None else one.study_id,
    "study_instance_uid": lambda one: one.study_instance_uid,
    "patient_id": lambda one: one.patient_id,
    "address": lambda one: one.address,
    "detail": lambda one: one.detail,
    "data": lambda one: json.dumps(dict(one.data), sort_keys=True) if one.data else "",
    "sha256": lambda one: one.digest,
}


def csv_lines(entries: Iterable[RecordedEntry]) -> Iterator[str]:
    """Lines of CSV, the header first; times are ISO 8601 in UTC."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(_CSV)
    for entry in entries:
        writer.writerow(cell(str(value(entry))) for value in _CSV.values())
        yield written.getvalue()
        written.seek(0)
        written.truncate()
    yield written.getvalue()


def json_lines(entries: Iterable[RecordedEntry]) -> Iterator[str]:
    """Lines of one JSON array."""
    before = "[\n"
    for entry in entries:
        yield before + json.dumps(_object(entry), ensure_ascii=False)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _object(entry: RecordedEntry) -> dict[str, Any]:
    names = ("actor", "action", "subject", "study_instance_uid", "patient_id", "address", "detail", "failed")
    return {
        "entry": entry.position,
        "at": entry.at.isoformat(),
        "event": entry.meaning.event.value,
        "study": entry.study_id,
        **{name: getattr(entry, name) for name in names},
        "data": dict(entry.data),
        "sha256": entry.digest,
    }


FORMATS: Mapping[str, Callable[[Iterable[RecordedEntry]], Iterator[str]]] = {"csv": csv_lines, "json": json_lines}
