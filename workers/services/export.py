"""De-identified export of studies: each study has its line in the audit trail before anything of it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from db.audit import EXPORT_DEIDENTIFIED, AuditEntry, AuditTrail
from db.database import Database
from db.queries.study_details import study_detail
from workers.clock import Clock
from workers.deidentification.folder import ExportFolder
from workers.deidentification.profile import Deidentifier
from workers.deidentification.study import deidentify_study


@dataclass(frozen=True, slots=True)
class ExportTools:
    """All that :func:`export_studies` works with; ``store`` is the folder of the node's files."""

    database: Database
    audit: AuditTrail
    store: Path
    deidentifier: Deidentifier
    clock: Clock
    actor: str


def export_studies(study_ids: Sequence[int], export: ExportFolder, tools: ExportTools) -> Iterator[int]:
    """Export studies one after the other; yields the number of those that are done.

    An object that is in the folder already is not written again.

    Raises:
        OSError: a file cannot be read or written now; the export can be resumed.
    """
    done = export.exported()
    goal = str((export.archive or export.folder).absolute())
    for number, study_id in enumerate(study_ids, start=1):
        detail = tools.database.read(study_detail, study_id)
        subject = f"study #{study_id}"
        tools.audit.add(
            AuditEntry(tools.clock(), tools.actor, EXPORT_DEIDENTIFIED, subject, study_id, detail=f"to {goal}")
        )
        rules = tools.database.rules.patients
        for outcome in deidentify_study(detail, tools.store, tools.deidentifier, rules, done):
            export.record(outcome)
        yield number
