"""``pleura export``: studies for research, de-identified."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from config.settings import Settings
from db.audit import AuditTrail
from db.queries.worklist import Order, Worklist, WorklistPart
from db.queries.worklist_filters import Filters
from node.cli.common import console, fail, settings_of
from node.cli.progress import progress_bars
from node.cli.worklist import actor, filter_options, filters_of, find_detail, open_engine
from workers.clock import utc_now
from workers.open_database import database_of

_PAGE = 1000


@click.command()
@click.argument("studies", nargs=-1, metavar="[STUDY]...")
@click.option("--deidentified", is_flag=True, help="Required: Pleura exports nothing that names a patient.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER|FILE.zip",
    help="New folder or ZIP file to write; nothing is overwritten.",
)
@click.option("--resume", is_flag=True, help="Go on with an export that was stopped, or add studies to it.")
@filter_options
@click.pass_context
def export(
    context: click.Context, /, studies: tuple[str, ...], deidentified: bool, out: Path, resume: bool, **filters: Any
) -> None:
    """Export radiographs and results of STUDIES, or of all studies that the filters find, de-identified.

    By the Basic Application Level Confidentiality Profile of DICOM PS3.15 Annex E with the options of the section
    [deidentification]: patients, dates and UIDs get consistent pseudonyms, made with deidentification.key. Images that
    may have text burned in stay here. The report says what was removed, replaced and left out.

    A STUDY is a row ('#3', quoted), a UID, an accession number, or the UID of an image. De-identified data are not
    anonymous by law: docs/deidentified-export.md says what is kept.
    """
    wanted = filters_of(filters)
    if not deidentified:
        raise click.UsageError("say --deidentified: nothing else can be exported", ctx=context)
    if bool(studies) == bool(wanted != Filters()):
        raise click.UsageError("name STUDIES, or give filters such as --from, --finding or --modality", ctx=context)
    _export(settings_of(context), studies, wanted, out, resume)


def _export(settings: Settings, studies: tuple[str, ...], wanted: Filters, out: Path, resume: bool) -> None:
    from workers.deidentification.folder import ExportError, open_export
    from workers.deidentification.report import options_of
    from workers.deidentification.study import deidentifier_of
    from workers.services.export import ExportTools, export_studies

    engine = open_engine(settings)
    database = database_of(settings, engine)
    named = [find_detail(database, study).row.study_id for study in studies]
    study_ids = named or list(_found(Worklist(engine), wanted))
    if not study_ids:
        fail("no study matches")
    try:
        deidentifier = deidentifier_of(settings.deidentification)
        export = open_export(out, options_of(deidentifier), resume=resume)
        store = settings.store.folder
        tools = ExportTools(database, AuditTrail(engine), store, deidentifier, utc_now, actor())
        with progress_bars() as report_progress:
            report_progress("studies", 0, len(study_ids))
            for number in export_studies(study_ids, export, tools):
                report_progress("studies", number, len(study_ids))
        report = export.finish(datetime.now(UTC))
    except (ExportError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.strerror}: {error.filename}; once that is fixed, continue with --resume")
    for (kind, reason), count in sorted(report.not_exported.items()):
        console.print(escape(f"{count} {kind} not exported: {reason}"))
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(report.exported.items())) or "nothing"
    console.print(escape(f"{counts} of {len(report.patients)} patients: {out.absolute()}"), soft_wrap=True)


def _found(worklist: Worklist, wanted: Filters) -> Iterator[int]:
    """The studies that the filters find, by their time of arrival."""
    offset = 0
    while rows := worklist.page(
        show=WorklistPart.ALL, filters=wanted, order=Order.RECEIVED, limit=_PAGE, offset=offset, as_listed=True
    ):
        yield from (row.study_id for row in rows)
        offset += len(rows)
