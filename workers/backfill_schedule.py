"""The daily backfill: the scheduler's process starts it once a day, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from config.settings import Settings
from db import backfill as store
from db.backfill import BackfillOutcome
from db.database import Database
from workers.clock import Clock
from workers.destinations.destination_kind import PeerError
from workers.repeat import repeat_until
from workers.services.backfill import archive_of, backfill, backfill_tools, days_between

log = logging.getLogger(__name__)

_LOOK_SECONDS = 30.0
_LONGEST_AWAY = timedelta(days=31)


def due_day(now: datetime, daily_at: str) -> str | None:
    """The day (YYYYMMDD) whose run may start at the local time ``now``; None before ``daily_at`` or without it."""
    if not daily_at or now.time() < time.fromisoformat(daily_at):
        return None
    return f"{now:%Y%m%d}"


@dataclass(frozen=True, slots=True)
class BackfillSchedule:
    """Starts the run of a day; of several schedulers one does, and another goes on where that one has died."""

    settings: Settings
    database: Database
    clock: Clock
    wait: Callable[[float], bool]

    def once(self) -> None:
        """Run today's backfill if it is due."""
        local = self.clock().astimezone(self.settings.site.zone)
        day = due_day(local, self.settings.backfill.daily_at)
        if day is not None and self.database.read(store.is_due, day, self.clock()):
            self._run(day, local)

    def _run(self, day: str, local: datetime) -> None:
        archive = archive_of(self.settings)
        assert archive is not None, "checked with the settings"
        days = days_between(self._first_day(archive.name, local), local.date())
        limits = (f"{days[0]:%Y%m%d}", f"{days[-1]:%Y%m%d}")
        run_id = self.database.write(store.begin_run, day, archive.name, limits, self.clock())
        if run_id is None:
            return
        tools = backfill_tools(self.settings, self.database, archive, self.clock, self.wait)

        def keep(outcome: BackfillOutcome, total: int) -> None:
            del total
            self.database.write(store.keep_outcome, run_id, outcome, self.clock())

        try:
            outcome = backfill(days, self.settings.eligibility.modalities, tools, keep)
        except PeerError as error:
            # The lease ends in half an hour: then it is tried again, until the day is over.
            log.warning("%s cannot be searched for missing images: %s", archive.name, error)
            self.database.write(store.keep_outcome, run_id, BackfillOutcome(problem=str(error)), self.clock())
            return
        self.database.write(store.keep_outcome, run_id, outcome, self.clock(), ended=not self.wait(0))
        log.info(
            "backfill from %s: %d studies, %d were incomplete, %d images came, %d failed, %d erased ones are left out",
            archive.name,
            outcome.studies,
            outcome.incomplete,
            outcome.images,
            outcome.failed,
            outcome.erased,
        )

    def _first_day(self, archive: str, local: datetime) -> date:
        """The day on which the search begins: that of the last run that came to its end, where it lies farther back.

        The node, or the archive, may have been away over a week-end.
        """
        usual = (local - timedelta(hours=self.settings.backfill.hours)).date()
        last = self.database.read(store.searched_until, archive)
        if last is None:
            return usual
        return min(usual, max(datetime.strptime(last, "%Y%m%d").date(), local.date() - _LONGEST_AWAY))


def start_schedule(
    settings: Settings, database: Database, clock: Clock, stop: threading.Event
) -> threading.Thread | None:
    """Start the thread that looks whether a run is due; None where no time is configured."""
    if not settings.backfill.daily_at:
        return None
    once = BackfillSchedule(settings, database, clock, stop.wait).once
    thread = threading.Thread(target=repeat_until, args=(stop, once, _LOOK_SECONDS), name="backfill", daemon=True)
    thread.start()
    return thread
