"""When a study has come to rest, and what its summary is made of: pure decisions."""

from __future__ import annotations

from datetime import datetime, timedelta

from db.records import StudyFacts


def may_settle(facts: StudyFacts) -> bool:
    """True when nothing of the study is still to be analysed."""
    return facts.jobs_waiting == 0


def is_too_old_to_send(facts: StudyFacts, late_after_hours: float, now: datetime) -> bool:
    """True when results for this study are to be recorded and not sent; 0 hours sends always."""
    return late_after_hours > 0 and now - facts.first_received_at > timedelta(hours=late_after_hours)
