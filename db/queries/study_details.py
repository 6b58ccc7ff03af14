"""Reading for people: the worklist, one study with everything, and counts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Row, Select, String, and_, bindparam, case, func, or_, select

from db import tables
from db.accessions import has_number
from db.errors import AmbiguousStudyError, RecordNotFoundError
from db.holds import is_on_hold
from db.records import (
    DeliveryDetail,
    DeliveryState,
    Event,
    FindingRecord,
    InstanceDetail,
    JobDetail,
    NotEligible,
    ResultDetail,
    ResultRecord,
    StudyDetail,
    StudyState,
    WorklistRow,
)

_OPEN_DELIVERIES = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.ON_HOLD)
_LARGEST_ID = 2**31 - 1
_ESCAPE = "\\"
_STUDY_COLUMNS = len(WorklistRow.__dataclass_fields__) - 1


def worklist(
    connection: Connection, *, limit: int, offset: int, include_complete: bool, search: str
) -> tuple[WorklistRow, ...]:
    """Unreported studies by ``due_at`` through an index; findings and deliveries are looked up for these rows only."""
    values: dict[str, Any] = {"limit": limit, "offset": offset}
    if search:
        values["pattern"] = _pattern(search)
    return _rows(connection.execute(_page(include_complete, bool(search)), values))


@cache
def _page(include_complete: bool, searching: bool) -> Select[Any]:
    """One statement for a page, so that it is one glimpse of the database and one way to the server and back."""
    study = tables.Study.__table__
    conditions: list[ColumnElement[bool]] = [study.c.reported_at.is_(None)]
    if not include_complete:
        conditions.append(study.c.state == StudyState.OPEN)
    if searching:
        columns = (study.c.patient_id, study.c.patient_name, study.c.accession_number, study.c.study_instance_uid)
        pattern = bindparam("pattern", type_=String)
        conditions.append(or_(*(column.ilike(pattern, escape=_ESCAPE) for column in columns)))
    studies = select(*_row_columns(study)).where(*conditions).order_by(study.c.due_at, study.c.id)
    # In the text of the statement: PostgreSQL plans a page of unknown size as if it were a tenth of the table, so it
    # would never keep the plan, and plan anew for every page.
    limit, offset = (bindparam(name, type_=Integer, literal_execute=True) for name in ("limit", "offset"))
    return _with_findings(studies.limit(limit).offset(offset))


@cache
def _single() -> Select[Any]:
    study = tables.Study.__table__
    return _with_findings(select(*_row_columns(study)).where(study.c.id == bindparam("study_id", type_=Integer)))


def _pattern(search: str) -> str:
    """For LIKE: anywhere in the value; % and _ mean themselves."""
    escaped = search.replace(_ESCAPE, _ESCAPE * 2).replace("%", _ESCAPE + "%").replace("_", _ESCAPE + "_")
    return f"%{escaped}%"


def _row_columns(study: Any) -> list[Any]:
    """Columns of a worklist row, in the order of the fields of WorklistRow (all but the findings)."""
    corrected = study.c.correction != ""
    reason = case(
        (study.c.on_hold.is_(True), study.c.hold_reason), (corrected, study.c.correction), else_=study.c.reason
    )
    special = {
        "on_hold": is_on_hold(study.c),
        "study_id": study.c.id,
        "reason": reason,
        "received_at": study.c.first_received_at,
        "deliveries_open": _deliveries_in(study, _OPEN_DELIVERIES),
        "deliveries_failed": _deliveries_in(study, (DeliveryState.FAILED,)),
    }
    names = [name for name in WorklistRow.__dataclass_fields__ if name != "findings"]
    return [special[name].label(name) if name in special else study.c[name] for name in names]


def _deliveries_in(study: Any, states: tuple[DeliveryState, ...]) -> Any:
    delivery = tables.Delivery.__table__
    return (
        select(func.count())
        .select_from(delivery)
        .where(delivery.c.study_id == study.c.id, delivery.c.state.in_(states))
        .correlate(study)
        .scalar_subquery()
    )


def _with_findings(studies: Select[Any]) -> Select[Any]:
    """Join the present findings that are not in shadow: a study comes once for each, or once without any."""
    page, finding = studies.subquery("page"), tables.Finding.__table__
    shown = and_(
        finding.c.study_id == page.c.study_id,
        finding.c.present.is_(True),
        finding.c.shadow.is_(False),
        finding.c.superseded.is_(False),
    )
    columns = [finding.c[name].label(f"finding_{name}") for name in FindingRecord.__dataclass_fields__]
    return (
        select(*page.c, *columns)
        .select_from(page.outerjoin(finding, shown))
        .order_by(page.c.due_at, page.c.study_id, finding.c.id)
    )


def _rows(found: Iterable[Row[Any]]) -> tuple[WorklistRow, ...]:
    rows = []
    for _, same_study in groupby(found, key=itemgetter(0)):
        lines = list(same_study)
        # A label that is missing means that the outer join has found nothing.
        findings = tuple(FindingRecord(*line[_STUDY_COLUMNS:]) for line in lines if line[_STUDY_COLUMNS] is not None)
        rows.append(WorklistRow(*(*lines[0][:_STUDY_COLUMNS], findings)))
    return tuple(rows)


def current_findings(connection: Connection, study_id: int) -> dict[int, list[FindingRecord]]:
    """All findings of the latest revision of each job of a study, by job."""
    finding = tables.Finding.__table__
    query = select(finding).where(finding.c.study_id == study_id, finding.c.superseded.is_(False))
    findings: dict[int, list[FindingRecord]] = defaultdict(list)
    for row in connection.execute(query.order_by(finding.c.id)):
        findings[row.job_id].append(_finding(row))
    return findings


def _finding(row: Row[Any]) -> FindingRecord:
    return FindingRecord(**{name: getattr(row, name) for name in FindingRecord.__dataclass_fields__})


def count_worklist(connection: Connection) -> dict[str, int]:
    """Count studies: ``open``, ``complete`` and ``on_hold``, and the open ones by priority and by analysis."""
    study = tables.Study
    counts: dict[str, int] = defaultdict(int)
    states = select(study.state, func.count()).group_by(study.state)
    for state, number in connection.execute(states):
        counts[state.value] = number
    counts["on_hold"] = connection.scalar(select(func.count()).where(is_on_hold(study))) or 0
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
    """Find a study by its row (``#3``), its UID, its accession number or the SOP Instance UID of an image.

    A number without ``#`` is an accession number and never a row: the accession number that somebody means may not be
    here yet.

    Raises:
        AmbiguousStudyError: more than one study is known so.
    """
    study, instance = tables.Study, tables.Instance
    wanted = reference.strip()
    if not wanted:
        return None
    queries = [
        select(study.id).where(study.study_instance_uid == wanted),
        select(study.id).where(has_number(wanted)),
        select(instance.study_id).where(instance.sop_instance_uid == wanted),
    ]
    row = re.fullmatch(r"#([0-9]{1,10})", wanted)
    if row and int(row[1]) <= _LARGEST_ID:
        queries.append(select(study.id).where(study.id == int(row[1])))
    found = sorted({int(study_id) for query in queries for study_id in connection.scalars(query)})
    if len(found) > 1:
        raise AmbiguousStudyError(reference, tuple(found))
    return found[0] if found else None


def study_detail(connection: Connection, study_id: int) -> StudyDetail:
    """Read everything about one study."""
    table = tables.Study.__table__
    study = connection.execute(select(table).where(table.c.id == study_id)).one_or_none()
    if study is None:
        raise RecordNotFoundError("study", study_id)
    return StudyDetail(
        row=_rows(connection.execute(_single(), {"study_id": study_id}))[0],
        patient_birth_date=study.patient_birth_date,
        patient_sex=study.patient_sex,
        issuer_of_patient_id=study.issuer_of_patient_id,
        study_time=study.study_time,
        triage_reason=study.reason,
        completed_at=study.completed_at,
        last_activity_at=study.last_activity_at,
        activity=study.activity,
        revision=study.revision,
        instances=_instances(connection, study_id),
        jobs=_jobs(connection, study_id),
        results=_results(connection, study_id),
        deliveries=_deliveries(connection, study_id),
        events=_events(connection, study_id),
    )


def _not_eligible(code: str, sentence: str) -> NotEligible | None:
    return NotEligible(code, sentence) if code else None


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
    same = [name for name in InstanceDetail.__dataclass_fields__ if name != "not_eligible"]
    return tuple(
        InstanceDetail(
            **{name: getattr(row, name) for name in same},
            not_eligible=_not_eligible(row.not_eligible_code, row.not_eligible_reason),
        )
        for row in connection.execute(query)
    )


def _jobs(connection: Connection, study_id: int) -> tuple[JobDetail, ...]:
    job = tables.Job.__table__
    findings = current_findings(connection, study_id)
    same = [name for name in JobDetail.__dataclass_fields__ if name not in ("not_analysed", "findings")]
    return tuple(
        JobDetail(
            **{name: getattr(row, name) for name in same},
            not_analysed=_not_eligible(row.not_analysed_code, row.not_analysed_reason),
            findings=tuple(findings.get(row.id, ())),
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
