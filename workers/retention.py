"""Removing files that have been kept long enough, a few at a time.

Only files go; the rows stay, so that the history of a study is whole. A pass over all old studies is made once in a
while; nothing is remembered of it, for a file that is gone already costs nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from db.records import ExpiredStudy

log = logging.getLogger(__name__)

STUDIES_AT_ONCE = 50
PAUSE = timedelta(hours=6)


class OldStudies(Protocol):
    """What this module needs of :class:`db.worklist.Worklist`."""

    def expired_studies(self, before: datetime, after_id: int = 0, limit: int = 100) -> tuple[ExpiredStudy, ...]:
        """Studies whose files may go, in pages."""
        ...


@dataclass(slots=True)
class Retention:
    """Removes files of ``folder`` that are older than ``keep_days``; 0 keeps them for ever.

    ``after_id`` is where a pass stands, ``rest_until`` when the next one begins.
    """

    folder: Path
    keep_days: int
    worklist: OldStudies
    after_id: int = 0
    rest_until: datetime | None = None

    def step(self, now: datetime) -> int:
        """Remove the files of the next few studies; how many files that were."""
        if not self.keep_days or (self.rest_until is not None and now < self.rest_until):
            return 0
        studies = self.worklist.expired_studies(now - timedelta(days=self.keep_days), self.after_id, STUDIES_AT_ONCE)
        removed = sum(self._remove(path) for study in studies for path in study.paths)
        if removed:
            log.info("removed %d files of %d studies, kept for %d days", removed, len(studies), self.keep_days)
        if len(studies) < STUDIES_AT_ONCE:
            self.after_id, self.rest_until = 0, now + PAUSE
        else:
            self.after_id = studies[-1].study_id
        return removed

    def _remove(self, relative: str) -> bool:
        path = self.folder / relative
        if not path.resolve().is_relative_to(self.folder.resolve()):
            log.error("a path of the database leads out of the store and is left alone")
            return False
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True
