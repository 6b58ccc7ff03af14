"""The settings of archives that are searched: for priors, and by backfill."""

from __future__ import annotations

from pydantic import Field

from config.section import Part as _Part


class Priors(_Part):
    """Comparing findings with those of the last prior chest radiograph, which is pulled from an archive."""

    archive: str = ""
    """Name of the destination that is searched by C-FIND and sends by C-MOVE (docs/priors.md); it must know the
    listener as a move destination. Empty: nothing is pulled or compared."""
    wait_seconds: float = Field(default=120, ge=1, le=3600)
    """The summary of a study waits for its prior until so long after the study's first image. Everything else waits
    never."""
    lookback_days: int = Field(default=1825, ge=1)
    """Older priors are not looked for."""
    timeout_seconds: float = Field(default=60, gt=0)
    """Time limit for each answer of the archive."""


class Backfill(_Part):
    """Pulling what an archive holds and this node has not received, by C-FIND and C-MOVE: `pleura backfill`."""

    archive: str = ""
    """Name of the destination that is searched. It must know the listener's AE title, address and port as a move
    destination, and the listener must admit it. Empty: `pleura backfill` needs `--archive`."""
    daily_at: str = Field(default="", pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$")
    """Time of day (HH:MM, in site.time_zone) at which the scheduler searches the archive. Empty: never."""
    hours: float = Field(default=24, gt=0, le=24 * 31)
    """How far back it searches then, or back to the last such search that came to its end, 31 days at most. Study
    Dates count, so the search covers whole days."""
    maximum_waiting: int = Field(default=4, ge=1)
    """The next study is pulled only while fewer jobs than this wait for a worker: today's patients come first."""
    timeout_seconds: float = Field(default=600, gt=0)
    """Time limit for each answer of the archive. While it sends a series it may be silent."""
