"""Removing files that have been kept long enough, a few at a time.

Only files go; the rows stay, so that the history of a study is whole. It is noted which studies have no files any
more, and no later pass looks at such a one again unless something has come to it since.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from db.database import Database
from db.queries import retention
from db.records import ExpiredStudy
from workers.store_files import demand_store, remove_file

log = logging.getLogger(__name__)

STUDIES_AT_ONCE = 50
PAUSE = timedelta(hours=6)


@dataclass(slots=True)
class Retention:
    """Removes files of ``folder`` that are older than ``keep_days``; 0 keeps them for ever.

    ``after_id`` is where a pass stands, ``rest_until`` when the next one begins.
    """

    folder: Path
    keep_days: int
    database: Database
    after_id: int = 0
    rest_until: datetime | None = None

    def step(self, now: datetime) -> int:
        """Remove the files of the next few studies; how many files that were.

        Raises:
            StoreAwayError: the store is not in its place, so nothing is known to be gone.
        """
        if not self.keep_days or self._rests(now):
            return 0
        demand_store(self.folder)
        studies = self.database.read(
            retention.expired, now - timedelta(days=self.keep_days), self.after_id, STUDIES_AT_ONCE
        )
        # First, so that no study on which something fails is in the way of those behind it.
        if len(studies) < STUDIES_AT_ONCE:
            self.after_id, self.rest_until = 0, now + PAUSE
        else:
            self.after_id = studies[-1].study_id
        gone = [(study, self._remove_all(study)) for study in studies]
        removed = sum(count or 0 for _, count in gone)
        if removed:
            log.info("removed %d files of %d studies, kept for %d days", removed, len(studies), self.keep_days)
        # At last: a disk that is full may have no room for a note, until all of these files are gone.
        for study, count in gone:
            if count is not None:
                self.database.write(retention.removed, study, now)
        return removed

    def _rests(self, now: datetime) -> bool:
        """Whether the next pass is not due yet; a clock that was set back does not put it off."""
        return self.rest_until is not None and timedelta(0) < self.rest_until - now <= PAUSE

    def _remove_all(self, study: ExpiredStudy) -> int | None:
        """Remove the files of a study; how many there were, None where one could not be removed."""
        try:
            return sum(remove_file(self.folder, path) for path in study.paths)
        except OSError as error:
            log.error("the files of study %d cannot be removed: %s", study.study_id, error.strerror)
            return None
