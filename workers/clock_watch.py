"""Whether this machine's clock agrees with the database server's.

Every scheduler looks, the one that acts and those that stand by. One runs on each host, so each host is watched
(docs/scaling.md, "Clocks").
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.server_clock import ahead_of_server, difference_in_words
from workers.clock import Clock, Elapsed

log = logging.getLogger(__name__)

_EVERY_SECONDS = 60.0


@dataclass(slots=True)
class ClockWatch:
    """Tells in the log when the clock goes wrong, and when it is right again."""

    engine: Engine
    clock: Clock
    elapsed: Elapsed
    due: float = 0.0
    wrong: bool = False

    def look(self) -> None:
        """Compare the clocks, once a minute."""
        if self.elapsed() < self.due:
            return
        self.due = self.elapsed() + _EVERY_SECONDS
        try:
            ahead = ahead_of_server(self.engine, self.clock)
        except SQLAlchemyError:
            return  # the scheduler's own steps tell it
        problem = difference_in_words(ahead) if ahead is not None else ""
        if problem and not self.wrong:
            log.warning(
                "%s: workers of other hosts may take what is still worked at here; let both follow one NTP", problem
            )
        elif self.wrong and not problem:
            log.info("the clocks of this machine and of the database server agree again")
        self.wrong = bool(problem)
