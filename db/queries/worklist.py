"""The worklist as a page of a table: filtered, searched, sorted and counted for people who read it.

Reading only. Rows come by ``due_at`` through an index unless another order is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, case, func, or_, select

from db.holds import is_on_hold
from db.records import Analysis, DeliveryState, FindingRecord, JobState, Priority
from db.tables import Delivery, Finding, Instance, Job, Series, Study


class Show(StrEnum):
    """Which part of the worklist to show."""

    UNREPORTED = "unreported"
    CRITICAL = "critical"
    URGENT = "urgent"
    ROUTINE = "routine"
    NOT_ANALYSED = "not-analysed"
    FAILED = "failed"
    ON_HOLD = "on_hold"
    REPORTED = "reported"


class Order(StrEnum):
    """What the rows are sorted by."""

    DUE = "due"
    RECEIVED = "received"
    PATIENT = "patient"
    STUDY = "study"
    PRIORITY = "priority"


@dataclass(frozen=True, slots=True)
class ListedStudy:
    """One row of the reading list. ``deliveries`` and ``jobs`` count by state."""

    study_id: int
    study_instance_uid: str
    patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    study_date: str
    study_description: str
    priority: Priority
    analysis: Analysis
    reason: str
    on_hold: bool
    hold_reason: str
    stat: bool
    settled: bool
    received_at: datetime
    due_at: datetime
    reported_at: datetime | None
    reported_by: str
    images: int
    not_eligible: int
    findings: tuple[FindingRecord, ...]
    jobs: dict[str, int]
    deliveries: dict[str, int]
    modalities: tuple[str, ...]

    @property
    def present(self) -> tuple[FindingRecord, ...]:
        """Findings that count: present, not in shadow, the most probable first."""
        found = [finding for finding in self.findings if finding.present and not finding.shadow]
        return tuple(sorted(found, key=lambda finding: -(finding.probability or 0)))

    @property
    def deliveries_failed(self) -> int:
        """Deliveries that wait for a person."""
        return self.deliveries.get(DeliveryState.FAILED, 0) + self.deliveries.get(DeliveryState.ON_HOLD, 0)

    @property
    def deliveries_arrived(self) -> int:
        """Deliveries that the destination has taken."""
        return self.deliveries.get(DeliveryState.SENT, 0) + self.deliveries.get(DeliveryState.VERIFIED, 0)

    @property
    def deliveries_all(self) -> int:
        """Deliveries that were ever planned, but for those withdrawn."""
        return sum(self.deliveries.values()) - self.deliveries.get(DeliveryState.WITHDRAWN, 0)

    @property
    def jobs_failed(self) -> int:
        """Jobs that wait for a person."""
        return self.jobs.get(JobState.FAILED, 0)


class ReadingList:
    """Pages of the worklist."""

    def __init__(self, engine: Engine) -> None:
        """Use the database of ``engine``."""
        self._engine = engine

    def page(
        self,
        *,
        show: Show = Show.UNREPORTED,
        search: str = "",
        order: Order = Order.DUE,
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[ListedStudy, ...]:
        """Rows ``offset`` to ``offset + limit`` of what is asked for."""
        conditions = [_shown(show), *_matching(search)]
        key = _ORDERS[order]
        first = key.desc() if descending else key.asc()
        query = select(Study.__table__).where(*conditions).order_by(first, Study.due_at, Study.id)
        with self._engine.connect() as connection:
            rows = connection.execute(query.limit(limit).offset(offset)).all()
            return _complete(connection, rows)

    def rows(self, study_ids: Sequence[int]) -> tuple[ListedStudy, ...]:
        """The rows of these studies, whatever part of the list they are in."""
        with self._engine.connect() as connection:
            query = select(Study.__table__).where(Study.id.in_(study_ids)).order_by(Study.id)
            return _complete(connection, connection.execute(query).all())

    def count(self, show: Show, search: str = "", *, at_most: int = 10_000) -> int:
        """How many rows there are, counted no further than ``at_most``."""
        inner = select(Study.id).where(_shown(show), *_matching(search)).limit(at_most).subquery()
        with self._engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(inner)).scalar_one())

    def counts(self) -> dict[Show, int]:
        """How many unreported studies each part holds."""
        on_hold_now = case((is_on_hold(Study), 1), else_=0).label("on_hold_now")
        grouped = (
            select(Study.priority, Study.analysis, on_hold_now, func.count())
            .where(Study.reported_at.is_(None))
            .group_by(Study.priority, Study.analysis, on_hold_now)
        )
        totals = dict.fromkeys(Show, 0)
        with self._engine.connect() as connection:
            rows = connection.execute(grouped).all()
        for priority, analysis, on_hold, number in rows:
            totals[Show.UNREPORTED] += number
            totals[Show(priority.value)] += number
            if analysis in (Analysis.NOT_ANALYSED, Analysis.FAILED):
                totals[Show(analysis.value.replace(" ", "-"))] += number
            if on_hold:
                totals[Show.ON_HOLD] += number
        return totals


_ORDERS: dict[Order, Any] = {
    Order.DUE: Study.due_at,
    Order.RECEIVED: Study.first_received_at,
    Order.PATIENT: func.lower(Study.patient_name),
    Order.STUDY: Study.study_date,
    # The words sort as they should: critical, routine, urgent would not.
    Order.PRIORITY: func.replace(Study.priority, Priority.ROUTINE.value, "z"),
}


def _shown(show: Show) -> ColumnElement[bool]:
    if show is Show.REPORTED:
        return Study.reported_at.is_not(None)
    unreported = Study.reported_at.is_(None)
    narrower: dict[Show, ColumnElement[bool]] = {
        Show.NOT_ANALYSED: Study.analysis == Analysis.NOT_ANALYSED,
        Show.FAILED: Study.analysis == Analysis.FAILED,
        Show.ON_HOLD: is_on_hold(Study),
    }
    if show in (Show.CRITICAL, Show.URGENT, Show.ROUTINE):
        narrower[show] = Study.priority == Priority(show.value)
    return unreported if show is Show.UNREPORTED else unreported & narrower[show]


def _matching(search: str) -> list[ColumnElement[bool]]:
    """Every word must be found in the name, the description, or at the start of an identifier."""
    return [
        or_(
            func.lower(Study.patient_name).contains(word, autoescape=True),
            func.lower(Study.study_description).contains(word, autoescape=True),
            func.lower(Study.patient_id).startswith(word, autoescape=True),
            func.lower(Study.accession_number).startswith(word, autoescape=True),
            func.lower(Study.accession_number).contains(f"\\{word}", autoescape=True),
            Study.study_instance_uid == word,
        )
        for word in search.lower().split()[:6]
    ]


def _complete(connection: Connection, rows: Sequence[Any]) -> tuple[ListedStudy, ...]:
    ids = [row.id for row in rows]
    if not ids:
        return ()
    findings = _findings(connection, ids)
    jobs = _counted(connection, select(Job.study_id, Job.state, func.count()), Job, ids)
    deliveries = _counted(connection, select(Delivery.study_id, Delivery.state, func.count()), Delivery, ids)
    modalities = _modalities(connection, ids)
    return tuple(
        ListedStudy(
            study_id=row.id,
            study_instance_uid=row.study_instance_uid,
            patient_id=row.patient_id,
            patient_name=row.patient_name,
            patient_birth_date=row.patient_birth_date,
            patient_sex=row.patient_sex,
            accession_number=row.accession_number,
            study_date=row.study_date,
            study_description=row.study_description,
            priority=row.priority,
            analysis=row.analysis,
            reason=row.reason,
            on_hold=row.on_hold or bool(row.correction),
            hold_reason=row.hold_reason or row.correction,
            stat=row.stat,
            settled=row.completed_at is not None,
            received_at=row.first_received_at,
            due_at=row.due_at,
            reported_at=row.reported_at,
            reported_by=row.reported_by,
            images=row.images,
            not_eligible=row.not_eligible,
            findings=findings[row.id],
            jobs=jobs[row.id],
            deliveries=deliveries[row.id],
            modalities=modalities[row.id],
        )
        for row in rows
    )


def _findings(connection: Connection, ids: list[int]) -> dict[int, tuple[FindingRecord, ...]]:
    query = select(Finding.__table__).where(Finding.study_id.in_(ids), Finding.superseded.is_(False))
    found: defaultdict[int, tuple[FindingRecord, ...]] = defaultdict(tuple)
    for row in connection.execute(query.order_by(Finding.id)):
        found[row.study_id] += (
            FindingRecord(
                row.label,
                row.model,
                row.model_version,
                row.probability,
                row.threshold,
                row.present,
                row.shadow,
                row.reason,
                row.area_mm2,
                row.area_fraction,
            ),
        )
    return found


def _counted(
    connection: Connection, query: Any, table: type[Job] | type[Delivery], ids: list[int]
) -> dict[int, dict[str, int]]:
    counted: defaultdict[int, dict[str, int]] = defaultdict(dict)
    grouped = query.where(table.study_id.in_(ids)).group_by(table.study_id, table.state)
    for study_id, state, number in connection.execute(grouped):
        counted[study_id][state.value] = number
    return counted


def _modalities(connection: Connection, ids: list[int]) -> dict[int, tuple[str, ...]]:
    found: defaultdict[int, tuple[str, ...]] = defaultdict(tuple)
    query = (
        select(Series.study_id, Series.modality)
        .where(Series.study_id.in_(ids), Series.id.in_(select(Instance.series_id).where(Instance.study_id.in_(ids))))
        .distinct()
        .order_by(Series.modality)
    )
    for study_id, modality in connection.execute(query):
        found[study_id] += (modality,)
    return found
