"""``pleura backfill``: pull from an archive what it holds and this node has not received."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from config.destinations import Destination
from config.settings import Settings
from node.cli.common import console, database_opens, fail, print_json, settings_of, stop_on_signals

if TYPE_CHECKING:
    from db.backfill import BackfillOutcome

_DAY = click.DateTime(["%Y-%m-%d", "%Y%m%d"])


@click.command()
@click.option("--from", "first", type=_DAY, metavar="DATE", help="First Study Date [default: yesterday].")
@click.option("--to", "last", type=_DAY, metavar="DATE", help="Last Study Date [default: today].")
@click.option(
    "--modality", "modalities", multiple=True, help="Modality to pull; may be repeated [eligibility.modalities]."
)
@click.option("--archive", default="", metavar="NAME", help="Destination to search [backfill.archive].")
@click.option("--dry-run", is_flag=True, help="Only say what is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_context
def backfill(
    context: click.Context,
    first: datetime | None,
    last: datetime | None,
    modalities: tuple[str, ...],
    archive: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Pull from an archive what it holds and this node has not received.

    The archive is searched by C-FIND and sends by C-MOVE to the listener of this node, which must run; it must know
    the listener's AE title, address and port as a move destination. What was received before is skipped, so a run
    that was stopped goes on when it is started again. Studies of earlier days that come in this way notify nobody.
    While jobs wait for a worker, nothing further is pulled. Studies that were erased here are left out.

    Exit status 1 if an image could not be pulled.
    """
    settings = settings_of(context)
    peer = _archive(settings, archive)
    end = last.date() if last else datetime.now(settings.site.zone).date()
    begin = first.date() if first else end - timedelta(days=1)
    if begin > end:
        raise click.BadParameter(f"{begin} is after {end}", param_hint="--from")
    wanted = modalities or settings.eligibility.modalities
    with stop_on_signals(waits_for="the study that is being pulled") as stop:
        outcome = _run(settings, peer, (begin, end), wanted, stop, dry_run=dry_run, quiet=as_json)
    if as_json:
        print_json(asdict(outcome) | {"archive": peer.name, "from": begin, "to": end, "dry_run": dry_run})
    else:
        verb = "are missing" if dry_run else "came"
        console.print(
            f"{outcome.studies} studies of {begin} to {end} in {peer.name}: {outcome.incomplete} were incomplete here, "
            f"{outcome.images} images {verb}"
        )
        if outcome.erased:
            studies = "study is" if outcome.erased == 1 else "studies are"
            console.print(f"{outcome.erased} erased {studies} left out; who needs one sends it from the PACS")
    if outcome.problem:
        fail(f"{outcome.failed} studies could not be pulled: {outcome.problem}" if outcome.failed else outcome.problem)


def _archive(settings: Settings, name: str) -> Destination:
    from workers.services.backfill import archive_of

    found = archive_of(settings, name)
    if name and (found is None or found.kind != "dimse"):
        fail(f"there is no destination '{name}' of kind 'dimse' in the configuration")
    if found is None:
        fail("say which destination to search: --archive NAME, or backfill.archive in the configuration")
    return found


def _run(
    settings: Settings,
    peer: Destination,
    days: tuple[date, date],
    modalities: tuple[str, ...],
    stop: threading.Event,
    *,
    dry_run: bool,
    quiet: bool,
) -> BackfillOutcome:
    from db import backfill as store
    from db.backfill import BackfillOutcome
    from workers.clock import utc_now
    from workers.destinations.destination_kind import PeerError
    from workers.open_database import database_of
    from workers.services.backfill import backfill as run
    from workers.services.backfill import backfill_tools, days_between

    if not database_opens(settings, stop):
        fail("stopped")
    database = database_of(settings)
    tools = backfill_tools(settings, database, peer, utc_now, stop.wait)
    limits = (f"{days[0]:%Y%m%d}", f"{days[1]:%Y%m%d}")
    run_id = None if dry_run else database.write(store.begin_run, None, peer.name, limits, utc_now())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet) as progress:
        task = progress.add_task(f"studies of {peer.name}", total=None)

        so_far = BackfillOutcome()

        def report(outcome: BackfillOutcome, total: int) -> None:
            nonlocal so_far
            so_far = outcome
            progress.update(task, completed=outcome.studies, total=total)
            if run_id is not None:
                database.write(store.keep_outcome, run_id, outcome, utc_now())

        try:
            outcome = run(days_between(*days), modalities, tools, report, dry_run=dry_run)
        except PeerError as error:
            outcome = BackfillOutcome(problem=f"{peer.name} cannot be searched: {error}")
        except KeyboardInterrupt:
            outcome = replace(so_far, problem="ended in the midst of a study; the next run goes on")
    if run_id is not None:
        database.write(store.keep_outcome, run_id, outcome, utc_now(), ended=True)
    return outcome
