"""``pleura audit``: verify and export the audit trail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO

import click

from db.audit import AuditEntry, AuditFilter, AuditTrail
from db.audit_chain import Link, anchors_in
from db.audit_events import EXPORT_TRAIL, AuditEvent
from node.cli.common import console, settings_of
from node.cli.worklist import actor, open_engine
from node.web.audit_export import FORMATS
from workers.audit.trail_verification import verify_and_record

_DAY = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.group()
def audit() -> None:
    """Verify and export the audit trail."""


@audit.command("verify")
@click.option(
    "--anchors",
    "kept",
    type=click.File(encoding="utf-8", errors="replace"),
    multiple=True,
    help="A text with digests that were kept elsewhere: what a repository has received, or the scheduler's log.",
)
@click.pass_context
def verify_trail(context: click.Context, kept: tuple[IO[str], ...]) -> None:
    """Check that no entry was changed, removed or inserted; with --anchors also that none was cut off at the end.

    Prints the last entry with its digest: keep it elsewhere. Exit status 1 where the trail does not hold.
    """
    trail = AuditTrail(open_engine(settings_of(context)))
    anchors = tuple(_anchors(kept))
    found = verify_and_record(trail, actor(), datetime.now(UTC), anchors)
    if found.problem:
        console.print(f"[red]broken at entry {found.broken_at}[/]: {found.problem}", soft_wrap=True)
        sys.exit(1)
    if kept:
        console.print(f"{len(anchors)} digests that were kept elsewhere agree")
    console.print(f"{found.entries} entries hold; the last is {found.head}", soft_wrap=True)


def _anchors(kept: tuple[IO[str], ...]) -> Iterator[Link]:
    for file in kept:
        yield from anchors_in(file)


@audit.command("export")
@click.option(
    "--format", "kind", type=click.Choice(list(FORMATS)), default="csv", show_default=True, help="Form of the entries."
)
@click.option(
    "--since",
    type=_DAY,
    metavar="DATE",
    help="Entries from this day or moment (UTC) on: 2026-01-31, or 2026-01-31T14:00:00.",
)
@click.option("--until", type=_DAY, metavar="DATE", help="Entries before this day or moment (UTC).")
@click.option("--actor", "who", default="", help="Entries of this user, AE title or part of the node.")
@click.option("--event", type=click.Choice([event.value for event in AuditEvent]), help="Entries of this event.")
@click.option("--study", "study_id", type=click.IntRange(min=1), help="Entries of this study, by its number.")
@click.option("--output", type=click.File("w", encoding="utf-8"), default="-", help="A file; standard output if none.")
@click.pass_context
def export(
    context: click.Context,
    kind: str,
    since: datetime | None,
    until: datetime | None,
    who: str,
    event: str | None,
    study_id: int | None,
    output: IO[str],
) -> None:
    """Write the trail as CSV or JSON, the oldest entry first; times are in UTC."""
    wanted = AuditFilter(
        since=since.replace(tzinfo=UTC) if since else None,
        until=until.replace(tzinfo=UTC) if until else None,
        actor=who,
        event=AuditEvent(event) if event else None,
        study_id=study_id,
    )
    trail = AuditTrail(open_engine(settings_of(context)))
    for line in FORMATS[kind](trail.every(wanted)):
        output.write(line)
    trail.add(AuditEntry(datetime.now(UTC), actor(), EXPORT_TRAIL, "audit trail", detail=f"as {kind}"))
