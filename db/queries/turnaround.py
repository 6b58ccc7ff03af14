"""Arrivals, findings and report times of studies: the input of a simulated reading room."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, func, select

from db.states import Analysis
from db.study_rules import READ_ELSEWHERE
from db.tables import Finding, Study


@dataclass(frozen=True, slots=True)
class Observation:
    """Studies received between ``since`` and ``until``.

    ``arrivals`` are the times of their first images, ``positives`` has for each label the studies in which it was found
    (not in shadow), ``reports`` who reported when, in order of time.
    """

    since: datetime
    until: datetime
    arrivals: tuple[datetime, ...]
    analysed: int
    not_analysed: int
    positives: dict[str, int]
    reports: tuple[tuple[str, datetime], ...]


def observe(engine: Engine, since: datetime, until: datetime) -> Observation:
    """Look at the studies that were received between ``since`` and ``until`` and have come to their end."""
    finished = (Study.first_received_at >= since, Study.first_received_at < until, Study.analysis != Analysis.WAITING)
    times = select(Study.first_received_at, Study.analysis).where(*finished).order_by(Study.first_received_at)
    found = (
        select(Finding.label, func.count(Finding.study_id.distinct()).label("studies"))
        .join(Study, Study.id == Finding.study_id)
        .where(*finished, Finding.present.is_(True), Finding.shadow.is_(False), Finding.superseded.is_(False))
        .group_by(Finding.label)
    )
    reported = (
        select(Study.reported_by, Study.reported_at)
        .where(Study.reported_at >= since, Study.reported_at < until, Study.reported_by != READ_ELSEWHERE)
        .order_by(Study.reported_at)
    )
    with engine.connect() as connection:
        rows = connection.execute(times).all()
        positives = {row.label: row.studies for row in connection.execute(found)}
        reports = tuple((reader, at) for reader, at in connection.execute(reported) if at is not None)
    analysed = sum(row.analysis is Analysis.ANALYSED for row in rows)
    return Observation(
        since=since,
        until=until,
        arrivals=tuple(row.first_received_at for row in rows),
        analysed=analysed,
        not_analysed=len(rows) - analysed,
        positives=positives,
        reports=reports,
    )
