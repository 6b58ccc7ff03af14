"""Check for studies that were to be erased and are still here, and for files of erased ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import Engine

from config.settings import Settings
from db.erasures import LateErasure, late_erasures, late_files
from node.monitoring.check import Check
from workers.clock import for_people, utc_now

_PATIENCE = timedelta(minutes=10)
_MOST_STUDIES = 5
_EFFECT = "What a person has asked to erase is still here; it is on hold, so nothing of it leaves."
_NOBODY = "start `pleura serve` or `pleura scheduler`; where it runs, its log says why it does not act"


def check_erasures(engine: Engine, settings: Settings) -> Iterator[Check]:
    """One check for each study that waits for too long, the oldest first, and one for files."""
    now = utc_now()
    with engine.connect() as connection:
        late = late_erasures(connection, now - _PATIENCE, now)
        files = late_files(connection, now - _PATIENCE)
    for one in late[:_MOST_STUDIES]:
        yield _late(one, settings)
    if more := len(late[_MOST_STUDIES:]):
        yield Check("erasing", False, f"{more} further studies wait to be erased", _NOBODY, _EFFECT)
    if files:
        found = f"{files} files of erased studies are still to be removed, or the database's to be made anew"
        advice = "the scheduler tries it every minute, and its log says what stands against it"
        yield Check("erasing", False, found, advice, "Parts of erased studies are still on the disk.")


def _late(one: LateErasure, settings: Settings) -> Check:
    since = for_people(one.requested_at, settings.site.zone)
    why = one.waits.why if one.waits else "nobody erases it"
    advice = "it is erased when that has ended; `pleura show` tells more of the study" if one.waits else _NOBODY
    return Check("erasing", False, f"study #{one.study_id} is to be erased since {since}: {why}", advice, _EFFECT)
