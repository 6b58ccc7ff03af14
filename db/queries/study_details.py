"""One study with everything that is known of it, found by any of its names."""

from __future__ import annotations

import re

from sqlalchemy import Connection, select

from db import tables
from db.accessions import has_number
from db.errors import AmbiguousStudyError, RecordNotFoundError
from db.queries.worklist_rows import current_findings, rows_of
from db.records import NotEligible, ResultRecord
from db.shown_records import (
    DeliveryDetail,
    Event,
    InstanceDetail,
    JobDetail,
    PriorSearchDetail,
    ResultDetail,
    StudyDetail,
)

_LARGEST_ID = 2**31 - 1


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


def study_id_of(connection: Connection, row_or_uid: str) -> int:
    """The row of a study that a program names by its row number (digits) or its Study Instance UID (with dots).

    Raises:
        RecordNotFoundError: there is none.
    """
    study, is_row = tables.Study, row_or_uid.isdecimal()
    if is_row and int(row_or_uid) > _LARGEST_ID:
        raise RecordNotFoundError("study", row_or_uid)
    named = study.id == int(row_or_uid) if is_row else study.study_instance_uid == row_or_uid
    found = connection.scalar(select(study.id).where(named))
    if found is None:
        raise RecordNotFoundError("study", row_or_uid)
    return int(found)


def studies_named(
    connection: Connection, study_instance_uid: str = "", accession_number: str = "", limit: int = 100
) -> tuple[int, ...]:
    """The rows of the studies with this UID and this accession number; an empty text asks for neither."""
    study = tables.Study
    conditions = []
    if study_instance_uid:
        conditions.append(study.study_instance_uid == study_instance_uid)
    if accession_number:
        conditions.append(has_number(accession_number))
    if not conditions:
        return ()
    return tuple(connection.scalars(select(study.id).where(*conditions).order_by(study.id).limit(limit)))


def study_detail(connection: Connection, study_id: int) -> StudyDetail:
    """Everything about one study."""
    table = tables.Study.__table__
    study = connection.execute(select(table).where(table.c.id == study_id)).one_or_none()
    if study is None:
        raise RecordNotFoundError("study", study_id)
    return StudyDetail(
        row=rows_of(connection, [study_id])[0],
        issuer_of_patient_id=study.issuer_of_patient_id,
        study_time=study.study_time,
        completed_at=study.completed_at,
        last_activity_at=study.last_activity_at,
        activity=study.activity,
        revision=study.revision,
        instances=_instances(connection, study_id),
        jobs=_jobs(connection, study_id),
        results=_results(connection, study_id),
        deliveries=_deliveries(connection, study_id),
        events=_events(connection, study_id),
        prior_search=_prior_search(connection, study_id),
    )


def _prior_search(connection: Connection, study_id: int) -> PriorSearchDetail | None:
    search = tables.PriorSearch
    names = PriorSearchDetail.__dataclass_fields__
    query = select(*(getattr(search, name) for name in names)).where(search.study_id == study_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else PriorSearchDetail(*row)


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
    query = select(table).where(table.c.study_id == study_id).order_by(table.c.at, table.c.id)
    return tuple(
        Event(**{name: getattr(row, name) for name in Event.__dataclass_fields__}) for row in connection.execute(query)
    )
