"""What is decided about a study inside of a transaction: pure functions of values, which the modules with SQL call.

What is decided before or after a transaction is in ``workers``: priority and due time in ``workers/triage.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from db.not_eligible_codes import FOR_A_READER
from db.records import IS_REPORTED, NotEligible
from db.states import Priority, StudyState

REPORT_OBJECT = "dicom:"
"""How ``reported_by`` begins where a report came as a DICOM object; the calling AE title follows."""

AHEAD = "hl7 (ahead of its images)"
"""Who has reported a study whose final report was announced before its first image came."""

READ_ELSEWHERE = "prior"
"""``reported_by`` of a study that was only pulled to be compared with."""

AND = "; "
"""What stands between two reasons, so that the page can translate each of them."""

# Study Time has no time zone: a study counts as old only where it is in every one of them.
_FARTHEST_ZONE = timedelta(hours=14)


@dataclass(frozen=True, slots=True)
class NotificationRules:
    """The channels that notify of a critical finding, and how old its study may be."""

    channels: tuple[str, ...] = ()
    maximum_age: timedelta = timedelta(hours=24)


@lru_cache(1024)
def modalities_of(text: str) -> tuple[str, ...]:
    """The values of a Modalities in Study (0008,0061), each once and sorted. A radiology department has few such."""
    return tuple(sorted(set(filter(None, text.split("\\")))))


def why_not_notify(study: Any, maximum_age: timedelta, now: datetime) -> str:
    """Why this study raises no notification: it is reported, back-filled or analysed long after.

    Empty: it may raise one. ``study`` has the columns of ``studies``.
    """
    hours = f"{maximum_age / timedelta(hours=1):g} hours"
    if study.reported_at is not None:
        return IS_REPORTED
    if now - study.first_received_at > maximum_age:
        return f"the study came more than {hours} ago"
    taken = _study_moment(study.study_date, study.study_time)
    if taken is not None and study.first_received_at - taken > maximum_age + _FARTHEST_ZONE:
        return f"the study was taken more than {hours} before it came"
    return ""


def _study_moment(date: str, time: str) -> datetime | None:
    """Read Study Date and Study Time (VR DA and TM) as if in UTC; the end of the day where no time is given."""
    digits = time.strip()[:6]
    for text, layout in ((date.strip() + digits, "%Y%m%d%H%M%S"), (date.strip() + "235959", "%Y%m%d%H%M%S")):
        try:
            return datetime.strptime(text, layout).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def came_after_the_report(study: Any, not_eligible: NotEligible | None) -> bool:
    """Whether a reader has not seen what came: an image of a study that is reported.

    A report that came as an object may overtake images of its own study, and one that was announced before the first
    image has overtaken them all, so both cover what comes until the study is complete. What is pulled of a study that
    was pulled before is not to be read here either; what came by itself has put that study on the worklist already
    (:func:`db.backfill.came_by_itself`). Other objects, such as reports and presentation states, are no images to be
    read. ``study`` has the columns of ``studies``.
    """
    if (
        study.reported_at is None
        or study.reported_by == READ_ELSEWHERE
        or (not_eligible is not None and not_eligible.code not in FOR_A_READER)
    ):
        return False
    return study.state is StudyState.COMPLETE or not study.reported_by.startswith((REPORT_OBJECT, AHEAD))


def highest_priority(priorities: Iterable[Priority | None]) -> Priority | None:
    """The most urgent of what several orders ask for; None where none asks for anything."""
    return max(priorities, key=_rank, default=None)


def priority_by_orders(current: Priority | None, before: Priority | None, after: Priority | None) -> Priority | None:
    """The hospital's priority of a study whose orders asked for ``before`` and ask for ``after``.

    It follows them, unless a person has set a higher one.
    """
    return after if current in (None, before) or _rank(after) > _rank(current) else current


def _rank(priority: Priority | None) -> int:
    return 0 if priority is None else priority.rank
