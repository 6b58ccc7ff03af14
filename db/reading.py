"""Reading for people: the worklist, one study with everything, and counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, or_, select

from db import tables
from db.errors import RecordNotFoundError
from db.records import (
    DeliveryDetail,
    DeliveryState,
    Event,
    FindingRecord,
    InstanceDetail,
    JobDetail,
    Refusal,
    ResultDetail,
    ResultRecord,
    StudyDetail,
    StudyState,
    WorklistRow,
)

_OPEN_DELIVERIES = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.HELD)
_LARGEST_ID = 2**31 - 1
_ESCAPE = "\\"


def worklist(
    connection: Connection, *, limit: int, offset: int, include_settled: bool, search: str
) -> tuple[WorklistRow, ...]:
    """Unread studies by ``due_at`` through an index; findings and deliveries are then read for these rows only."""
    study = tables.Study.__table__
    unread = select(study).where(study.c.reported_at.is_(None))
    query = unread.order_by(study.c.due_at, study.c.id).limit(limit).offset(offset)
    if not include_settled:
        query = query.where(study.c.state == StudyState.OPEN)
    if search:
        query = query.where(_matches(study, search))
    return _rows(connection, connection.execute(query).all())


def _matches(study: Any, search: str) -> Any:
    """Case is ignored; % and _ mean themselves."""
    escaped = search.replace(_ESCAPE, _ESCAPE * 2).replace("%", _ESCAPE + "%").replace("_", _ESCAPE + "_")
    columns = (study.c.patient_id, study.c.patient_name, study.c.accession_number, study.c.study_instance_uid)
    return or_(*(column.ilike(f"%{escaped}%", escape=_ESCAPE) for column in columns))


def _rows(connection: Connection, studies: Sequence[Row[Any]]) -> tuple[WorklistRow, ...]:
    ids = [study.id for study in studies]
    if not ids:
        return ()
    findings: dict[int, list[FindingRecord]] = defaultdict(list)
    for study_id, record in current_findings(connection, ids, shown=True):
        findings[study_id].append(record)
    counts = _delivery_counts(connection, ids)
    return tuple(_worklist_row(study, findings[study.id], counts.get(study.id, (0, 0))) for study in studies)


def _worklist_row(study: Row[Any], findings: Iterable[FindingRecord], deliveries: tuple[int, int]) -> WorklistRow:
    return WorklistRow(
        study_id=study.id,
        study_instance_uid=study.study_instance_uid,
        patient_id=study.patient_id,
        patient_name=study.patient_name,
        accession_number=study.accession_number,
        study_date=study.study_date,
        study_description=study.study_description,
        state=study.state,
        priority=study.priority,
        analysis=study.analysis,
        held=study.held,
        reason=study.held_reason if study.held else study.reason,
        stat=study.stat,
        received_at=study.first_received_at,
        due_at=study.due_at,
        images=study.images,
        refused=study.refused,
        deliveries_open=deliveries[0],
        deliveries_failed=deliveries[1],
        findings=tuple(findings),
    )


def current_findings(
    connection: Connection, study_ids: Sequence[int], *, shown: bool = False
) -> list[tuple[int, FindingRecord]]:
    """Findings of the latest revision of each job, with their study; ``shown``: those present and not in shadow."""
    finding = tables.Finding.__table__
    query = select(finding).where(finding.c.study_id.in_(study_ids), finding.c.superseded.is_(False))
    if shown:
        query = query.where(finding.c.present.is_(True), finding.c.shadow.is_(False))
    return [(row.study_id, _finding(row)) for row in connection.execute(query.order_by(finding.c.id))]


def _finding(row: Row[Any]) -> FindingRecord:
    return FindingRecord(
        label=row.label,
        model=row.model,
        model_version=row.model_version,
        probability=row.probability,
        threshold=row.threshold,
        present=row.present,
        shadow=row.shadow,
        reason=row.reason,
        area_mm2=row.area_mm2,
        area_fraction=row.area_fraction,
    )


def _delivery_counts(connection: Connection, study_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    delivery = tables.Delivery
    query = (
        select(
            delivery.study_id,
            func.sum(case((delivery.state.in_(_OPEN_DELIVERIES), 1), else_=0)),
            func.sum(case((delivery.state == DeliveryState.FAILED, 1), else_=0)),
        )
        .where(delivery.study_id.in_(study_ids), delivery.state.in_((*_OPEN_DELIVERIES, DeliveryState.FAILED)))
        .group_by(delivery.study_id)
    )
    return {study_id: (waiting, failed) for study_id, waiting, failed in connection.execute(query)}


def count_worklist(connection: Connection) -> dict[str, int]:
    """Count studies: ``open``, ``settled`` and ``held``, and the open ones by priority and by analysis."""
    study = tables.Study
    counts: dict[str, int] = defaultdict(int)
    states = select(study.state, func.count()).group_by(study.state)
    for state, number in connection.execute(states):
        counts[state.value] = number
    counts["held"] = connection.scalar(select(func.count()).where(study.held.is_(True))) or 0
    words = (
        select(study.priority, study.analysis, func.count())
        .where(study.state == StudyState.OPEN)
        .group_by(study.priority, study.analysis)
    )
    for priority, analysis, number in connection.execute(words):
        counts[priority.value] += number
        counts[analysis.value] += number
    return dict(counts)


def find_study(connection: Connection, reference: str) -> int | None:
    """Find a study by its row, its UID, its accession number (the newest) or the SOP Instance UID of an image."""
    study, instance = tables.Study, tables.Instance
    wanted = reference.strip()
    if wanted.isascii() and wanted.isdigit() and int(wanted) <= _LARGEST_ID:
        found = connection.scalar(select(study.id).where(study.id == int(wanted)))
        if found is not None:
            return int(found)
    queries = (
        select(study.id).where(study.study_instance_uid == wanted),
        select(study.id).where(study.accession_number == wanted).order_by(study.first_received_at.desc()).limit(1),
        select(instance.study_id).where(instance.sop_instance_uid == wanted).order_by(instance.id).limit(1),
    )
    for query in queries if wanted else ():
        found = connection.scalar(query)
        if found is not None:
            return int(found)
    return None


def study_detail(connection: Connection, study_id: int) -> StudyDetail:
    """Read everything about one study."""
    table = tables.Study.__table__
    study = connection.execute(select(table).where(table.c.id == study_id)).one_or_none()
    if study is None:
        raise RecordNotFoundError("study", study_id)
    return StudyDetail(
        row=_rows(connection, [study])[0],
        patient_birth_date=study.patient_birth_date,
        patient_sex=study.patient_sex,
        issuer_of_patient_id=study.issuer_of_patient_id,
        study_time=study.study_time,
        triage_reason=study.reason,
        settled_at=study.settled_at,
        last_activity_at=study.last_activity_at,
        activity=study.activity,
        revision=study.revision,
        instances=_instances(connection, study_id),
        jobs=_jobs(connection, study_id),
        results=_results(connection, study_id),
        deliveries=_deliveries(connection, study_id),
        events=_events(connection, study_id),
    )


def _refusal(code: str, sentence: str) -> Refusal | None:
    return Refusal(code, sentence) if code else None


def _instances(connection: Connection, study_id: int) -> tuple[InstanceDetail, ...]:
    instance, series = tables.Instance.__table__, tables.Series.__table__
    query = (
        select(
            instance,
            series.c.series_instance_uid,
            series.c.series_description,
            series.c.modality,
            series.c.body_part,
        )
        .join(series, series.c.id == instance.c.series_id)
        .where(instance.c.study_id == study_id)
        .order_by(instance.c.id)
    )
    same = [name for name in InstanceDetail.__dataclass_fields__ if name != "refusal"]
    return tuple(
        InstanceDetail(
            **{name: getattr(row, name) for name in same},
            refusal=_refusal(row.refusal_code, row.refusal_sentence),
        )
        for row in connection.execute(query)
    )


def _jobs(connection: Connection, study_id: int) -> tuple[JobDetail, ...]:
    job, finding = tables.Job.__table__, tables.Finding.__table__
    findings: dict[int, list[FindingRecord]] = defaultdict(list)
    current = and_(finding.c.study_id == study_id, finding.c.superseded.is_(False))
    for row in connection.execute(select(finding).where(current).order_by(finding.c.id)):
        findings[row.job_id].append(_finding(row))
    same = [name for name in JobDetail.__dataclass_fields__ if name not in ("unfit", "findings")]
    return tuple(
        JobDetail(
            **{name: getattr(row, name) for name in same},
            unfit=_refusal(row.unfit_code, row.unfit_sentence),
            findings=tuple(findings[row.id]),
        )
        for row in connection.execute(select(job).where(job.c.study_id == study_id).order_by(job.c.id))
    )


def _results(connection: Connection, study_id: int) -> tuple[ResultDetail, ...]:
    result = tables.Result.__table__
    query = select(result).where(result.c.study_id == study_id).order_by(result.c.id)
    return tuple(
        ResultDetail(
            id=row.id,
            job_id=row.job_id,
            revision=row.revision,
            record=ResultRecord(**{name: getattr(row, name) for name in ResultRecord.__dataclass_fields__}),
            created_at=row.created_at,
        )
        for row in connection.execute(query)
    )


def _deliveries(connection: Connection, study_id: int) -> tuple[DeliveryDetail, ...]:
    delivery, result = tables.Delivery.__table__, tables.Result.__table__
    query = (
        select(delivery, result.c.kind)
        .join(result, result.c.id == delivery.c.result_id)
        .where(delivery.c.study_id == study_id)
        .order_by(delivery.c.id)
    )
    names = DeliveryDetail.__dataclass_fields__
    return tuple(DeliveryDetail(**{name: getattr(row, name) for name in names}) for row in connection.execute(query))


def _events(connection: Connection, study_id: int) -> tuple[Event, ...]:
    table = tables.Event.__table__
    query = select(table).where(table.c.study_id == study_id).order_by(table.c.id)
    return tuple(
        Event(**{name: getattr(row, name) for name in Event.__dataclass_fields__}) for row in connection.execute(query)
    )


def queue_counts(connection: Connection) -> dict[str, int]:
    """Count jobs and deliveries by state: ``jobs.queued``, ``deliveries.failed`` …; states without any are left out."""
    counts: dict[str, int] = {}
    for name, state in (("jobs", tables.Job.state), ("deliveries", tables.Delivery.state)):
        for value, number in connection.execute(select(state, func.count()).group_by(state)):
            counts[f"{name}.{value.value}"] = number
    return counts
