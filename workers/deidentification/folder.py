"""The folder or ZIP file of an export: its objects, its report, and a journal that lets it go on after a stop.

The journal has a line for each object, by its new UID, written after the object's file is on the disk. A ZIP file is
put together at the end from a folder beside it. Nothing that was there before is touched.
"""

from __future__ import annotations

import json
import secrets
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from workers.deidentification.profile import Done
from workers.deidentification.report import Report, as_json, as_text
from workers.deidentification.study import Outcome
from workers.durable_files import sync_folder, write_durably

JOURNAL = "journal.jsonl"
REPORTS = ("report.json", "report.txt")


class ExportError(Exception):
    """The export cannot be written there; the message says why and what helps."""


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """Where an export goes: ``folder`` is filled, and becomes the file ``archive`` at the end where there is one."""

    folder: Path
    archive: Path | None
    options: Mapping[str, Any]

    def record(self, outcome: Outcome) -> None:
        """Write the object's file, if it has one, and then its line."""
        if outcome.path:
            write_durably(self.folder / outcome.path, [outcome.content])
        line = {
            "kind": outcome.kind,
            "object": outcome.sop_instance_uid,
            "path": outcome.path,
            "not_exported": outcome.not_exported,
            "changes": [[keyword, done, count] for (keyword, done), count in sorted(outcome.changes.items())],
        }
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def exported(self) -> frozenset[str]:
        """The new UIDs of the objects that were written so far."""
        return frozenset(outcome.sop_instance_uid for outcome in self._lines() if outcome.path)

    def finish(self, now: datetime) -> Report:
        """Write the report, and the ZIP file."""
        report, exported = Report(), self.exported()
        not_exported = {}
        for outcome in self._lines():
            if outcome.path:
                report.add(outcome)
            elif outcome.sop_instance_uid not in exported:
                # At each call anew: the last one counts.
                not_exported[outcome.sop_instance_uid] = outcome
        for outcome in not_exported.values():
            report.add(outcome)
        text = json.dumps(as_json(report, self.options, now), indent=2) + "\n"
        write_durably(self.folder / REPORTS[0], [text.encode()])
        write_durably(self.folder / REPORTS[1], [as_text(report, self.options, now).encode()])
        if self.archive is not None:
            _pack(self.folder, self.archive)
        return report

    def _lines(self) -> Iterator[Outcome]:
        with (self.folder / JOURNAL).open(encoding="utf-8") as file:
            next(file, "")
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the line that was being written when the power went
                changes = Counter({(keyword, Done(done)): count for keyword, done, count in entry["changes"]})
                yield Outcome(entry["kind"], entry["object"], entry["path"], entry["not_exported"], changes)


def open_export(target: Path, options: Mapping[str, Any], *, resume: bool | None) -> ExportFolder:
    """Begin an export at ``target`` (a folder, or a file that ends in ``.zip``), or go on with one (``resume``).

    None: whichever it is. Several processes may do so at a time.

    Raises:
        ExportError: something is there already, or another export than this one is.
    """
    archive = target if target.suffix.lower() == ".zip" else None
    folder = target if archive is None else target.with_name(f"{target.name}.part")
    if archive is not None and archive.exists():
        raise ExportError(f"{archive} exists; it is not overwritten")
    export = ExportFolder(folder, archive, options)
    begun = (folder / JOURNAL).is_file()
    if begun and resume is not False:
        _check_same(folder, options)
        return export
    if begun:
        raise ExportError(f"an export was begun in {folder}; --resume goes on with it")
    if folder.exists() and (not folder.is_dir() or any(path.suffix != ".jsonl" for path in folder.iterdir())):
        raise ExportError(f"{folder} is not empty; nothing is overwritten")
    if resume:
        raise ExportError(f"there is no export in {folder} to go on with")
    _begin(folder / JOURNAL, options)
    _check_same(folder, options)
    return export


def _begin(journal: Path, options: Mapping[str, Any]) -> None:
    """Write the journal's first line, unless another process was quicker."""
    first = journal.with_name(f".{secrets.token_hex(8)}.jsonl")
    write_durably(first, [(json.dumps({"options": dict(options)}) + "\n").encode()])
    try:
        journal.hardlink_to(first)
    except FileExistsError:
        pass
    finally:
        first.unlink()


def _check_same(folder: Path, options: Mapping[str, Any]) -> None:
    with (folder / JOURNAL).open(encoding="utf-8") as file:
        begun = json.loads(file.readline())["options"]
    changed = sorted(name for name in {*begun, *options} if begun.get(name) != options.get(name))
    if changed:
        raise ExportError(f"the export in {folder} was begun with other settings: {', '.join(changed)}")


def _pack(folder: Path, archive: Path) -> None:
    """Make the ZIP file in one step, and remove the folder. Pixels are compressed, which they are not in the files."""
    made = folder.with_name(f"{archive.name}.new")
    with (
        made.open("wb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
    ):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".jsonl":
                packed.write(path, f"{archive.stem}/{path.relative_to(folder)}")
    made.replace(archive)
    sync_folder(archive.parent)
    shutil.rmtree(folder)
