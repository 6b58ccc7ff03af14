"""``pleura worklist`` and ``pleura show``: the worklist and one study, on a terminal."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

import click
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Engine

from config.settings import Settings
from db.audit import AuditEntry, write_entry
from db.audit_events import VIEW_STUDY
from db.database import Database
from db.engine import connect, schema_problem
from db.errors import AmbiguousStudyError
from db.queries import study_details
from db.queries.worklist import Order, Worklist, WorklistPart
from db.queries.worklist_filters import Filters
from db.records import FindingRecord
from db.search_words import as_date
from db.shown_records import StudyDetail, WorklistRow
from db.states import Analysis, Priority, StudyState
from node.cli.common import console, fail, json_option, print_json, print_notice, settings_of
from workers.clock import for_people
from workers.laterality import place_text
from workers.open_database import database_of
from workers.stale_objects import ToRemove, by_hand

_STYLES = {Priority.CRITICAL: "bold red", Priority.URGENT: "yellow", Priority.ROUTINE: ""}


def open_engine(settings: Settings) -> Engine:
    """The database of this node; the command fails if there is none of this version."""
    if settings.database.url is None and not (settings.store.folder / "pleura.sqlite").exists():
        fail(f"there is no database in {settings.store.folder.absolute()} yet; `pleura serve` creates it")
    engine = connect(settings.database_url)
    problem = schema_problem(engine)
    if problem:
        fail(problem)
    return engine


def open_database(settings: Settings) -> Database:
    """The worklist of this node; the command fails if there is no database of this version."""
    return database_of(settings, open_engine(settings))


def actor() -> str:
    """Name of the user in the history and the audit trail."""
    try:
        return f"cli:{getpass.getuser()}"
    except (
        KeyError,
        OSError,
    ):  # a container engine may run us as a user whom no file names (from Python 3.13: OSError)
        return f"cli:{os.getuid()}"


def _date(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A date as DICOM writes it."""
    del context
    date = as_date(value)
    if value and not re.fullmatch(r"\d{8}", date):
        raise click.BadParameter("must be a date such as 2026-01-31", param=parameter)
    return date


_FILTERS = (
    click.option(
        "--search",
        default="",
        help="Words, or beginnings of words, of patient, accession number, date, description or station; or a UID.",
    ),
    click.option(
        "--from", "date_from", default="", callback=_date, metavar="DATE", help="Study Date from this day on."
    ),
    click.option("--to", "date_to", default="", callback=_date, metavar="DATE", help="Study Date until this day."),
    click.option("--modality", default="", help="Modality of one of its series."),
    click.option("--station", default="", help="Station Name of one of its series."),
    click.option("--calling", "calling_ae_title", default="", metavar="AE", help="AE title that has sent it."),
    click.option("--destination", default="", metavar="NAME", help="Destination to which something of it goes."),
    click.option("--finding", default="", metavar="LABEL", help="Finding that an active model has found."),
    click.option(
        "--state", default=None, type=click.Choice([state.value for state in StudyState]), help="State of the study."
    ),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose studies; :func:`filters_of` reads them."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def filters_of(values: dict[str, Any]) -> Filters:
    """The filters that the options of :func:`filter_options` say."""
    state = values["state"]
    return Filters(**{**values, "state": None if state is None else StudyState(state)})


@click.command()
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10000), help="Rows to print.")
@filter_options
@click.option("--open", "only_open", is_flag=True, help="Leave out studies that are complete.")
@click.option(
    "--show",
    "part",
    type=click.Choice([part.value for part in WorklistPart]),
    default=WorklistPart.UNREPORTED.value,
    show_default=True,
    help="Only this part of the list.",
)
@click.option(
    "--order",
    type=click.Choice([order.value for order in Order]),
    default=Order.DUE.value,
    show_default=True,
    help="Sort by this.",
)
@json_option
@click.pass_context
def worklist(
    context: click.Context, /, limit: int, only_open: bool, part: str, order: str, as_json: bool, **filters: Any
) -> None:
    """Print the studies by due time; reported ones only with --show reported or --show all."""
    rows = Worklist(open_engine(settings_of(context))).page(
        show=WorklistPart(part),
        filters=filters_of(filters),
        order=Order(order),
        limit=limit,
        only_open=only_open,
        as_listed=not as_json,
    )
    if as_json:
        print_json(rows)
    else:
        console.print(worklist_table(rows))
        print_notice()


def worklist_table(rows: Sequence[WorklistRow], now: datetime | None = None) -> Table:
    """The worklist as a table, with due times relative to ``now``."""
    now = now or datetime.now(UTC)
    table = Table(title="Worklist", title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("due", justify="right")
    for name in ("priority", "analysis", "patient", "study", "images", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        style = _STYLES[row.priority]
        table.add_row(
            f"#{row.study_id}",
            due_in(row.due_at, now),
            f"[{style}]{row.priority}[/]" if style else str(row.priority),
            _analysis(row),
            escape(row.patient_id),
            escape(row.study_description or row.accession_number),
            f"{row.images - row.not_eligible} of {row.images}",
            escape(row.hold_reason or row.reason),
        )
    return table


def due_in(due_at: datetime, now: datetime) -> str:
    """Time until ``due_at`` as text: ``in 14 min``, ``3 h ago``."""
    seconds = (due_at - now).total_seconds()
    minutes = round(abs(seconds) / 60)
    span = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} d"
    return f"in {span}" if seconds >= 0 else f"{span} ago"


def _analysis(row: WorklistRow) -> str:
    if row.on_hold:
        return "[magenta]on hold[/]"
    if row.deliveries_failed:
        return f"{row.analysis}, [red]{row.deliveries_failed} not delivered[/]"
    if row.deliveries_on_hold:
        return f"{row.analysis}, [magenta]{row.deliveries_on_hold} on hold[/]"
    return f"[red]{row.analysis}[/]" if row.analysis is Analysis.FAILED else str(row.analysis)


@click.command()
@click.argument("study")
@json_option
@click.pass_context
def show(context: click.Context, study: str, as_json: bool) -> None:
    """Print everything about STUDY: its row ('#3', quoted), UID, accession number, or the UID of one of its images."""
    settings = settings_of(context)
    database = open_database(settings)
    detail = find_detail(database, study)
    note_view(database, detail)
    if as_json:
        print_json(detail)
        return
    for part in _parts(detail, by_hand(detail, settings.destinations), settings.site.zone):
        console.print(part)
    print_notice()


def note_view(database: Database, detail: StudyDetail) -> None:
    """Write to the audit trail that a study is seen in a terminal."""
    entry = AuditEntry(datetime.now(UTC), actor(), VIEW_STUDY, "study", detail.row.study_id, detail="in a terminal")
    database.write(write_entry, entry)


def find_detail(database: Database, reference: str) -> StudyDetail:
    """The study with this reference; the command fails if there is none, or more than one."""
    try:
        study_id = database.read(study_details.find_study, reference)
    except AmbiguousStudyError as error:
        lines = [f"  {describe_study(database.read(study_details.study_detail, each))}" for each in error.study_ids]
        fail("\n".join([f"more than one study matches {reference}; name one by its row, quoted:", *lines]))
    if study_id is not None:
        return database.read(study_details.study_detail, study_id)
    hint = f"; the row of that number is written '#{reference}'" if reference.strip().isdigit() else ""
    raise click.ClickException(f"no study matches {reference}{hint}; `pleura worklist` lists the studies")


def describe_study(detail: StudyDetail) -> str:
    """A study with the attributes that identify it: row, patient, accession number and date."""
    row = detail.row
    patient = " ".join(part for part in (row.patient_id, row.patient_name) if part) or "-"
    date = row.study_date or "an unknown date"
    return f"study #{row.study_id} (patient {patient}, accession {row.accession_number or '-'}, of {date})"


def _parts(detail: StudyDetail, to_remove: Sequence[ToRemove], zone: tzinfo) -> Iterator[Table | str]:
    yield from _heading(detail)
    yield _images(detail)
    yield _jobs(detail)
    yield from _similar(detail)
    yield _deliveries(detail)
    yield from _to_remove(to_remove)
    yield _history(detail, zone)


def _heading(detail: StudyDetail) -> Iterator[str]:
    row = detail.row
    yield f"[bold]Study #{row.study_id}[/]  {escape(row.study_description)}  {row.study_date}  {row.study_instance_uid}"
    yield escape(f"Patient {row.patient_id} {row.patient_name}  accession {row.accession_number or '-'}")
    yield f"[{_STYLES[row.priority] or 'default'}]{row.priority}[/], {row.analysis}: {escape(row.reason)}"
    if row.on_hold:
        yield f"[magenta]on hold: {escape(row.hold_reason)}[/]"
    if detail.prior_search is not None:
        search = detail.prior_search
        yield escape(f"Prior: {search.prior_study_instance_uid or search.problem or 'the archive is being searched'}")


def _images(detail: StudyDetail) -> Table:
    rows = (
        (
            str(item.id),
            item.modality,
            item.view,
            item.flag or str(item.state),
            "" if item.not_eligible is None else f"{item.not_eligible.sentence} ({item.not_eligible.code})",
            "" if item.route is None else f"{item.route.rule or '(no rule)'}: {item.route.why}",
        )
        for item in detail.instances
    )
    return _table("Images", ("#", "kind", "view", "state", "why", "routing rule"), rows)


def _jobs(detail: StudyDetail) -> Table:
    rows = (
        (
            str(job.id),
            str(job.instance_id),
            str(job.state),
            str(job.attempts),
            f"{sum(job.timings.values()):.2f}",
            job.error
            or (job.not_analysed.sentence if job.not_analysed else "; ".join(map(finding_text, job.findings))),
        )
        for job in detail.jobs
    )
    return _table("Jobs", ("#", "image", "state", "attempts", "seconds", "found"), rows)


def _similar(detail: StudyDetail) -> Iterator[Table]:
    """Similar cases that retrieval models found; nothing if none ran."""
    rows = [
        (str(job.id), finding.label, case.reference, case.label, f"{case.distance:.3g}")
        for job in detail.jobs
        for finding in job.findings
        for case in finding.similar
    ]
    if rows:
        yield _table("Similar cases", ("job", "finding", "case", "label", "distance"), iter(rows))


def _deliveries(detail: StudyDetail) -> Table:
    uids = {result.id: result.record.sop_instance_uid for result in detail.results}
    rows = (
        (
            str(item.id),
            item.kind,
            item.destination,
            str(item.state),
            str(item.attempts),
            uids[item.result_id],
            item.error,
        )
        for item in detail.deliveries
    )
    return _table("Deliveries", ("#", "kind", "destination", "state", "attempts", "object", "error"), rows)


def _to_remove(objects: Sequence[ToRemove]) -> Iterator[Table]:
    """Objects to remove by hand at destinations that do not accept rejection notes; nothing if there are none."""
    rows = [(one.delivery.destination, one.sop_instance_uid, one.delivery.error) for one in objects]
    if rows:
        yield _table("To remove by hand", ("destination", "object", "why"), iter(rows))


def _history(detail: StudyDetail, zone: tzinfo) -> Table:
    rows = (
        (
            for_people(item.at, zone, seconds=True),
            f"{item.entity} {item.entity_id}",
            item.from_state,
            item.to_state,
            item.cause,
            item.actor,
        )
        for item in detail.events
    )
    return _table("History", ("time", "what", "from", "to", "cause", "who"), rows)


def finding_text(finding: FindingRecord) -> str:
    """One finding as text: ``lung_opacity present 0.91 (threshold 0.45), right lower zone, 12% of the image``."""
    from workers.results.finding_text import probability_value  # with NumPy, which other commands need not load

    value = "not assessed"
    if finding.probability is not None:
        shown = probability_value(finding.probability, finding.threshold)
        value = f"{'present' if finding.present else 'not detected'} {shown:g}"
    described = f"{finding.label} {value} (threshold {finding.threshold:g})"
    if finding.present and (finding.probability or 0.0) < finding.threshold:
        described += f", {finding.reason or 'follows from a part of it'}"
    if finding.present and (place := place_text(finding.side, filter(None, finding.zones.split(",")))):
        described += f", {place}"
    if finding.present and finding.area_fraction:
        described += f", {finding.area_fraction:.0%} of the image"
    return f"{described}, in shadow" if finding.shadow else described


def _table(title: str, names: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
