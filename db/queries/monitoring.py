"""What the database knows of how models behave: counts of scores, measures of images, verdicts, and pairs of analyses.

Every method looks at what ended in a span of time (aware; the end is not part of it). What to make of the counts is
decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, and_, case, func, or_, select
from sqlalchemy.orm import aliased

from db.assessments import ADDED
from db.states import JobState
from db.tables import Finding, Job, Model, Study
from db.user_tables import AssessmentRow, FeedbackRow, Verdict

_LOW = 0.1

ONLY_SHADOW = "only_shadow"
"""Why an image is not analysed of which no model that counts has said anything."""

MOST_IMAGES = 2000
"""Images of a span whose measures are looked at: of more, every n-th."""


@dataclass(frozen=True, slots=True)
class ScoreCount:
    """How often a model gave one probability (rounded; None: it could not tell) for a label."""

    model: str
    version: str
    label: str
    score: float | None
    present: int
    count: int


@dataclass(frozen=True, slots=True)
class VerdictCount:
    """How often readers' latest word on findings of a model was this verdict."""

    model: str
    version: str
    label: str
    present: bool
    verdict: Verdict
    count: int


class DiscrepancyKind(StrEnum):
    """How a reader contradicts a model. *Added* is a finding that a reader has stated in another system, and that fits
    none of the model's."""

    FALSE = "false notification"
    MISSED = "missed"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A reported study in which a reader contradicts a model."""

    study_id: int
    kind: DiscrepancyKind
    label: str
    model: str
    version: str
    probability: float | None
    actor: str
    comment: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Pair:
    """One image on which an active model and one in shadow have analysed the same label."""

    study_id: int
    active: str
    shadow: str
    label: str
    active_score: float
    shadow_score: float
    active_present: bool
    shadow_present: bool


@dataclass(frozen=True, slots=True)
class PairCount:
    """On how many images an active model and one in shadow said so about a label."""

    active: str
    shadow: str
    label: str
    active_present: bool
    shadow_present: bool
    count: int


class ModelMonitoring:
    """Reads what monitoring of the models needs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _all(self, query: Any) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(query).all()

    def first_used(self) -> dict[tuple[str, str], datetime]:
        """When each version of each model analysed its first image here."""
        return {(row.name, row.version): row.first_used_at for row in self._all(select(Model.__table__))}

    def scores(self, start: datetime, end: datetime) -> tuple[ScoreCount, ...]:
        """Scores of all findings that hold, active, in shadow or off."""
        # Thousandths where scores are low, hundredths elsewhere: fine enough for tenths of any distribution.
        fine, coarse = func.round(Finding.probability * 1000), func.round(Finding.probability * 100) * 10
        score = case((Finding.probability < _LOW, fine), else_=coarse)
        hits = func.count().filter(Finding.present.is_(True))
        query = (
            select(Finding.model, Finding.model_version, Finding.label, score, hits, func.count())
            .join(Job, Job.id == Finding.job_id)
            .where(*_ended(start, end), Finding.superseded.is_(False))
            .group_by(Finding.model, Finding.model_version, Finding.label, score)
        )
        return tuple(
            ScoreCount(model, version, label, None if value is None else float(value) / 1000, present, count)
            for model, version, label, value, present, count in self._all(query)
        )

    def outcomes(self, start: datetime, end: datetime) -> dict[str, int]:
        """How jobs ended: by what made an image not analysed, ``failed``, or an empty word for those that were
        analysed.

        As in the worklist, an image of which every model was off or in shadow is not analysed: :data:`ONLY_SHADOW`.
        """
        held = select(Finding.id).where(Finding.job_id == Job.id, Finding.superseded.is_(False))
        only_shadow = and_(Job.not_analysed_code == "", held.exists(), ~held.where(Finding.shadow.is_(False)).exists())
        reason = case((only_shadow, ONLY_SHADOW), else_=Job.not_analysed_code).label("reason")
        ended = select(Job.state, reason).where(*_ended(start, end)).subquery()
        query = select(*ended.c, func.count()).group_by(*ended.c)
        found: dict[str, int] = {}
        for state, code, count in self._all(query):
            word = "failed" if state is JobState.FAILED else code if state is JobState.DONE else None
            if word is not None:
                found[word] = found.get(word, 0) + count
        return found

    def measures(self, start: datetime, end: datetime) -> tuple[dict[str, Any], ...]:
        """What was measured of the images, at most :data:`MOST_IMAGES` of them, evenly taken."""
        measured = and_(*_ended(start, end), Job.measures.is_not(None))
        number = int(self._all(select(func.count()).where(measured))[0][0])
        step = -(-number // MOST_IMAGES) or 1
        query = select(Job.measures).where(measured, Job.id % step == 0).order_by(Job.id)
        return tuple(row.measures for row in self._all(query))

    def verdicts(self, start: datetime, end: datetime) -> tuple[VerdictCount, ...]:
        """Readers' latest words of the span, one a finding."""
        row = FeedbackRow
        keys = (row.model, row.model_version, row.label, row.present, row.verdict)
        query = select(*keys, func.count()).where(row.id.in_(_latest(start, end))).group_by(*keys)
        return tuple(
            VerdictCount(model, version, label, present, Verdict(verdict), count)
            for model, version, label, present, verdict, count in self._all(query)
        )

    def discrepancies(self, start: datetime, end: datetime, limit: int = 50) -> tuple[Discrepancy, ...]:
        """Reported studies whose reader rejected what a model found, or added what it did not; the latest first."""
        row = FeedbackRow
        against = or_(row.verdict == Verdict.REJECT, and_(row.present.is_(False), row.verdict == Verdict.MODIFY))
        query = (
            select(row.__table__)
            .join(Study, Study.id == row.study_id)
            .where(row.id.in_(_latest(start, end)), against, Study.reported_at.is_not(None))
            .order_by(row.id.desc())
            .limit(limit)
        )
        found = [
            Discrepancy(
                one.study_id,
                DiscrepancyKind.FALSE if one.present else DiscrepancyKind.MISSED,
                one.label,
                one.model,
                one.model_version,
                one.probability,
                one.actor,
                one.comment,
                one.at,
            )
            for one in self._all(query)
        ]
        found += self._added(start, end, limit)
        return tuple(sorted(found, key=lambda one: one.at, reverse=True)[:limit])

    def _added(self, start: datetime, end: datetime, limit: int) -> list[Discrepancy]:
        row = AssessmentRow
        query = (
            select(row.__table__)
            .join(Study, Study.id == row.study_id)
            .where(
                row.verdict == ADDED,
                row.feedback_id.is_(None),
                row.at >= start,
                row.at < end,
                Study.reported_at.is_not(None),
            )
            .order_by(row.id.desc())
            .limit(limit)
        )
        return [
            Discrepancy(
                one.study_id, DiscrepancyKind.ADDED, "", "", "", None, f"dicom:{one.observer}", one.comment, one.at
            )
            for one in self._all(query)
        ]

    def pair_counts(self, start: datetime, end: datetime) -> tuple[PairCount, ...]:
        """Two-by-two tables of each active model with each one in shadow, per label."""
        active, shadow = aliased(Finding), aliased(Finding)
        keys = (active.model, shadow.model, active.label, active.present, shadow.present)
        query = _paired(select(*keys, func.count()), active, shadow, start, end).group_by(*keys)
        return tuple(PairCount(*row) for row in self._all(query))

    def pairs(self, start: datetime, end: datetime, limit: int = 1000, *, differing: bool = False) -> tuple[Pair, ...]:
        """Pairs of the latest images (:data:`MOST_IMAGES`), the latest first.

        With ``differing`` only those where just one of the two found something.
        """
        active, shadow = aliased(Finding), aliased(Finding)
        names = (active.study_id, active.model, shadow.model, active.label)
        values = (active.probability, shadow.probability, active.present, shadow.present)
        query = _paired(select(*names, *values), active, shadow, start, end)
        if differing:
            query = query.where(active.present != shadow.present)
        latest = select(Job.id).where(*_ended(start, end)).order_by(Job.id.desc()).limit(MOST_IMAGES)
        query = query.where(Job.id.in_(latest)).order_by(active.id.desc()).limit(limit)
        return tuple(Pair(*row) for row in self._all(query))


def _ended(start: datetime, end: datetime) -> tuple[Any, ...]:
    return Job.finished_at >= start, Job.finished_at < end


def _latest(start: datetime, end: datetime) -> Any:
    """Rows of the latest word on each finding that was given in the span."""
    row = FeedbackRow
    return select(func.max(row.id)).where(row.at >= start, row.at < end).group_by(row.finding_id)


def _paired(query: Any, active: Any, shadow: Any, start: datetime, end: datetime) -> Any:
    """Pair two findings of one run of one job: of the same label, one delivered and one not, from two models."""
    same = and_(shadow.job_id == active.job_id, shadow.label == active.label, shadow.model != active.model)
    counted = (side.probability.is_not(None) & side.superseded.is_(False) for side in (active, shadow))
    return (
        query.select_from(Job)
        .join(active, active.job_id == Job.id)
        .join(shadow, same)
        .where(*_ended(start, end), *counted, active.shadow.is_(False), shadow.shadow.is_(True))
    )
