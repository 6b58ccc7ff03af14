"""Leader election: of the schedulers on one database one acts, and the others stand by.

The one that acts renews its lease between its steps, so one that hangs loses it, too. Every step is harmless when it
runs twice, so a step that takes longer than the lease does no harm beside another scheduler's.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from db import scheduler_lease
from db.database import Database
from workers.clock import Clock, Elapsed

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
_RENEW_SECONDS = 5.0
_STAND_BY_SECONDS = 3.0
_AWAY_SECONDS = 30.0


@dataclass(slots=True)
class Leadership:
    """Whether the scheduler ``worker`` acts. In seconds of ``elapsed``: ``until`` it does, ``ask_at`` it asks again."""

    database: Database
    worker: str
    clock: Clock
    elapsed: Elapsed
    until: float | None = None
    ask_at: float | None = None

    @property
    def acts(self) -> bool:
        """Whether this scheduler acts now, as far as is known without asking."""
        return self.until is not None and self.elapsed() < self.until

    def hold(self) -> bool:
        """Take or renew the lease if it is time to; whether this scheduler acts.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        now = self.elapsed()
        if self.ask_at is not None and now < self.ask_at:
            return self.acts
        acted = self.acts
        if self.database.write(scheduler_lease.hold, self.worker, self.clock(), timedelta(seconds=LEASE_SECONDS)):
            self.until, self.ask_at = now + LEASE_SECONDS, now + _RENEW_SECONDS
        else:
            self.until, self.ask_at = None, now + _STAND_BY_SECONDS
        if acted != self.acts:
            log.info("this scheduler %s", "acts" if self.acts else "stands by: another one acts")
        return self.acts

    def give_up(self) -> None:
        """Let another one act for a while, if there is one: what this one needs does not answer here."""
        if self.acts and self.database.write(scheduler_lease.give_up, self.worker, self.clock()):
            self.until, self.ask_at = None, self.elapsed() + _AWAY_SECONDS
            log.warning("this scheduler stands by: the broker does not answer it, and another scheduler is there")

    def release(self) -> None:
        """Let another one act at once: this one ends."""
        if self.acts:
            self.until = None
            with suppress(SQLAlchemyError):  # then the lease runs out
                self.database.write(scheduler_lease.release, self.worker)
