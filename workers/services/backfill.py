"""Backfill: pull from an archive what it holds and this node has not received.

The database decides what is missing, so a run that was stopped goes on where it ended, and a second run does nothing.
Series are pulled by C-MOVE and arrive at the listener like everything else: with the same durability and the same
eligibility rules. A study of an earlier day that a backfill has pulled raises no notification; one of today may
also be sent by a modality, and raises one whichever comes first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import date, timedelta, tzinfo
from functools import partial

from config.destinations import Destination
from config.settings import Settings
from db import backfill as store
from db import erasures
from db.backfill import BackfillOutcome
from db.database import Database
from workers.clock import Clock
from workers.destinations.destination_kind import PeerError
from workers.destinations.dimse import Dimse
from workers.query_retrieve_scu import Archive, open_archive

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0

Wait = Callable[[float], bool]
"""Waits so many seconds; True where the run has to stop."""

Report = Callable[[BackfillOutcome, int], None]
"""Told the outcome so far and the number of studies in all, after each study."""


@dataclass(frozen=True, slots=True)
class BackfillTools:
    """All that :func:`backfill` works with: ``open_archive`` gives an association with the archive."""

    database: Database
    open_archive: Callable[[], AbstractContextManager[Archive]]
    clock: Clock
    wait: Wait
    maximum_waiting: int
    zone: tzinfo


def archive_of(settings: Settings, name: str = "") -> Destination | None:
    """The destination ``name``, or the one of ``backfill.archive``; None where it is not configured."""
    return settings.destination(name or settings.backfill.archive)


def backfill_tools(
    settings: Settings, database: Database, archive: Destination, clock: Clock, wait: Wait
) -> BackfillTools:
    """The tools of a node. What is pulled comes to the AE title of its listener."""
    calling = settings.listener.ae_title
    peers, seconds = Dimse(settings.tls), settings.backfill.timeout_seconds
    opening = partial(open_archive, peers, archive, calling, calling, seconds)
    return BackfillTools(database, opening, clock, wait, settings.backfill.maximum_waiting, settings.site.zone)


def days_between(first: date, last: date) -> tuple[date, ...]:
    """Each day from ``first`` to ``last``, both included."""
    return tuple(first + timedelta(days=number) for number in range((last - first).days + 1))


def backfill(
    days: Sequence[date], modalities: Sequence[str], tools: BackfillTools, report: Report, *, dry_run: bool = False
) -> BackfillOutcome:
    """Pull the missing images of ``modalities`` in the studies of ``days``; ``dry_run`` only counts them.

    Studies that were erased here are left out.

    Raises:
        PeerError: the archive cannot be asked for its studies. What fails for one study is in the outcome.
    """
    outcome = BackfillOutcome()
    found = _study_uids(days, modalities, tools)
    report(outcome, len(found))
    today = tools.clock().astimezone(tools.zone).date()
    left_out = tools.database.read(erasures.left_out, found)
    for uid, day in found.items():
        if not _there_is_room(tools):
            return replace(outcome, problem="stopped before its end; the next run goes on")
        if uid in left_out:
            outcome = replace(outcome, studies=outcome.studies + 1, erased=outcome.erased + 1)
            report(outcome, len(found))
            continue
        outcome = _with_study(
            outcome, partial(complete_study, uid, modalities, tools, silent=day < today, dry_run=dry_run)
        )
        report(outcome, len(found))
    return outcome


def _study_uids(days: Sequence[date], modalities: Sequence[str], tools: BackfillTools) -> dict[str, date]:
    """Studies and their days. One query a day and modality: an archive may limit matches, and lists are optional."""
    with tools.open_archive() as archive:
        return {uid: day for day in days for each in modalities for uid in archive.study_uids(day, each)}


def _there_is_room(tools: BackfillTools) -> bool:
    """Wait until workers have little to do, so that today's patients come first; False where the run has to stop."""
    if tools.wait(0):
        return False
    while tools.database.read(store.waiting_jobs, tools.maximum_waiting) >= tools.maximum_waiting:
        if tools.wait(_PAUSE_SECONDS):
            return False
    return True


def _with_study(outcome: BackfillOutcome, complete: Callable[[], int | None]) -> BackfillOutcome:
    outcome = replace(outcome, studies=outcome.studies + 1)
    try:
        images = complete()
    except PeerError as error:
        log.warning("a study could not be pulled: %s", error)
        return replace(outcome, incomplete=outcome.incomplete + 1, failed=outcome.failed + 1, problem=str(error))
    if images is None:
        return outcome
    return replace(outcome, incomplete=outcome.incomplete + 1, images=outcome.images + images)


def complete_study(
    uid: str,
    modalities: Sequence[str],
    tools: BackfillTools,
    *,
    silent: bool,
    dry_run: bool = False,
    for_prior: bool = False,
) -> int | None:
    """Pull what is missing of a study: how many images came (with ``dry_run``: are missing); None if nothing was.

    ``silent``: it raises no notification; ``for_prior``: it is only to be compared with.

    Raises:
        PeerError: the archive refuses, or an image that it says it has sent has not arrived.
    """
    held = tools.database.read(store.held_images, uid)
    with tools.open_archive() as archive:
        missing = dict(_missing(archive, uid, modalities, held))
        if not missing:
            return None
        if dry_run:
            return sum(len(images) for images in missing.values())
        noted = tools.database.write(store.note_request, uid, tools.clock(), for_prior=for_prior) if silent else None
        try:
            for series in missing:
                archive.pull(uid, series)
        finally:
            if noted is not None:
                tools.database.write(store.end_request, uid, noted, tools.clock())
    now_held = tools.database.read(store.held_images, uid)
    absent = sum(len(images - now_held.get(series, frozenset())) for series, images in missing.items())
    if absent:
        raise PeerError(
            f"it says that it has sent a series, but {absent} images have not arrived; "
            "the log of the listener says whether it was turned away"
        )
    return sum(len(now_held.get(series, frozenset()) - held.get(series, frozenset())) for series in missing)


def _missing(
    archive: Archive, study_uid: str, modalities: Sequence[str], held: Mapping[str, frozenset[str]]
) -> Iterator[tuple[str, frozenset[str]]]:
    """Series of which images are missing, and those images as far as the archive names them."""
    for series in archive.series(study_uid):
        here = held.get(series.series_instance_uid, frozenset())
        if series.modality not in modalities or (series.images is not None and series.images <= len(here)):
            continue
        images = archive.image_uids(study_uid, series.series_instance_uid)
        if not images or images - here:
            yield series.series_instance_uid, images - here
