"""Recording a received instance: the one transaction that lies between a peer's C-STORE and its answer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from db import tables
from db.holding import hold
from db.records import Analysis, Ingest, InstanceState, JobState, Priority, ReceivedInstance, Refusal, StudyState
from db.transitions import event, touch_study, write_events

STAT_WAIT = timedelta(hours=1)
ROUTINE_WAIT = timedelta(hours=8)
"""When a study is due until triage has judged it. Triage replaces both by what the configuration says."""

REJECTED = "rejected"
"""Refusal code of an instance that a rejection note has taken back."""

_TEXT_LIMIT = 256
_ACTOR = "listener"
_OPEN_JOBS = (JobState.QUEUED, JobState.RUNNING, JobState.RETRYING)


def record_instance(
    connection: Connection, received: ReceivedInstance, refusal: Refusal | None, pipeline: str, now: datetime
) -> Ingest:
    """Record ``received`` with its study and series and, where it is not refused, its job.

    The study's row stays locked, so two associations that bring the same instance at once come one after the other.
    """
    study, is_new = _study(connection, received, refusal, now)
    twins = _twins(connection, received.sop_instance_uid)
    repeat = next((twin for twin in twins if twin.digest == received.digest), None)
    if repeat is not None:
        return Ingest(repeat.id, _open_jobs(connection, repeat.id), repeat=True)

    refusal = refusal or _rejection(connection, received.sop_instance_uid)
    own = refusal is not None and is_own_result(connection, received.sop_instance_uid)
    flag, trouble = _flag(study, received, conflict=bool(twins), own=own)
    series_id = _series_id(connection, study.id, received)
    instance_id = _insert_instance(connection, (study.id, series_id), received, refusal, flag, now)
    held = study.held or bool(trouble)
    job_id = None if refusal else _insert_job(connection, study, instance_id, received, pipeline, held, now)
    write_events(connection, _events(study, is_new, instance_id, refusal, job_id, trouble or study.held_reason, now))
    if not own:
        _update_study(connection, study, received, refusal, now)
    if trouble:
        for study_id in sorted({study.id, *(twin.study_id for twin in twins)}):
            hold(connection, study_id, trouble, _ACTOR, now)
    return Ingest(instance_id, () if job_id is None or held else (job_id,), conflict=bool(twins))


def is_own_result(connection: Connection, sop_instance_uid: str) -> bool:
    """Say whether this node has made the object with this UID."""
    query = select(tables.Result.id).where(tables.Result.sop_instance_uid == sop_instance_uid)
    return connection.execute(query).first() is not None


def _rejection(connection: Connection, sop_instance_uid: str) -> Refusal | None:
    """Why the hospital has taken this instance back before it came, if it has."""
    rejection = tables.Rejection
    query = select(rejection.sentence).where(rejection.sop_instance_uid == sop_instance_uid).order_by(rejection.id)
    sentence = connection.scalars(query).first()
    return None if sentence is None else Refusal(REJECTED, sentence)


def insert_or_ignore(connection: Connection, table: Any) -> Any:
    """Give an INSERT for ``table`` that leaves a row which is there already as it is."""
    make: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    return make(table).on_conflict_do_nothing()


def _clean(value: str) -> str:
    """Take out what a database cannot store as text (NUL, lone surrogates); cut what no header should hold."""
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:_TEXT_LIMIT]


def _study(
    connection: Connection, received: ReceivedInstance, refusal: Refusal | None, now: datetime
) -> tuple[Row[Any], bool]:
    """Find or make the study and lock it; say whether it is new."""
    study = tables.Study.__table__
    query = (
        select(study).where(study.c.study_instance_uid == received.study_instance_uid).with_for_update(key_share=True)
    )
    row = connection.execute(query).one_or_none()
    if row is not None:
        return row, False
    statement = insert_or_ignore(connection, study).returning(study.c.id)
    new_id = connection.execute(statement, _study_values(received, refusal, now)).scalar()
    # Without an id another association has made the study since; its row is seen by now.
    return connection.execute(query).one(), new_id is not None


def _study_values(received: ReceivedInstance, refusal: Refusal | None, now: datetime) -> dict[str, Any]:
    return {
        "study_instance_uid": received.study_instance_uid,
        "patient_id": _clean(received.patient_id),
        "issuer_of_patient_id": _clean(received.issuer_of_patient_id),
        "patient_name": _clean(received.patient_name),
        "patient_birth_date": _clean(received.patient_birth_date),
        "patient_sex": _clean(received.patient_sex),
        "accession_number": _clean(received.accession_number),
        "study_date": _clean(received.study_date),
        "study_time": _clean(received.study_time),
        "study_description": _clean(received.study_description),
        "state": StudyState.OPEN,
        "stat": received.stat,
        "priority": Priority.URGENT if received.stat else Priority.ROUTINE,
        "analysis": Analysis.NOT_ANALYSED if refusal else Analysis.WAITING,
        "reason": refusal.sentence if refusal else "waiting for its analysis",
        "due_at": now + (STAT_WAIT if received.stat else ROUTINE_WAIT),
        "first_received_at": now,
        "last_activity_at": now,
    }


def _twins(connection: Connection, sop_instance_uid: str) -> list[Row[Any]]:
    instance = tables.Instance
    query = select(instance.id, instance.digest, instance.study_id).where(instance.sop_instance_uid == sop_instance_uid)
    return list(connection.execute(query))


def _open_jobs(connection: Connection, instance_id: int) -> tuple[int, ...]:
    job = tables.Job
    query = select(job.id).where(job.instance_id == instance_id, job.state.in_(_OPEN_JOBS)).order_by(job.id)
    return tuple(connection.scalars(query))


def _flag(study: Row[Any], received: ReceivedInstance, *, conflict: bool, own: bool) -> tuple[str, str]:
    """Say what is wrong with an instance: a flag for its row, and why the study must be held (or nothing)."""
    if own:
        return "own", ""
    if conflict:
        return "conflict", "an instance came again under the same SOP Instance UID with other content"
    if _differ(study.patient_id, received.patient_id) or _differ(
        study.issuer_of_patient_id, received.issuer_of_patient_id
    ):
        return "patient", "its images name different patients (Patient ID or its issuer)"
    return "", ""


def _differ(known: str, given: str) -> bool:
    """An empty value contradicts nothing; padding does not count (PS3.5 6.2)."""
    here, there = known.strip(" "), _clean(given).strip(" ")
    return bool(here and there) and here != there


def _series_id(connection: Connection, study_id: int, received: ReceivedInstance) -> int:
    series = tables.Series
    query = select(series.id).where(
        series.study_id == study_id, series.series_instance_uid == received.series_instance_uid
    )
    found = connection.execute(query).scalar()
    if found is not None:
        return int(found)
    return _insert(
        connection,
        series,
        study_id=study_id,
        series_instance_uid=received.series_instance_uid,
        modality=_clean(received.modality),
        body_part=_clean(received.body_part),
        series_description=_clean(received.series_description),
    )


def _insert(connection: Connection, mapped: type[tables.Base], **values: Any) -> int:
    """Insert one row and give its id.

    The values go beside the statement and not into it: a bind parameter made for each would cost most of the time
    that a C-STORE spends here.
    """
    table: Any = mapped.__table__
    return int(connection.execute(insert(table).returning(table.c.id), values).scalar_one())


def _insert_instance(
    connection: Connection,
    parents: tuple[int, int],
    received: ReceivedInstance,
    refusal: Refusal | None,
    flag: str,
    now: datetime,
) -> int:
    return _insert(
        connection,
        tables.Instance,
        study_id=parents[0],
        series_id=parents[1],
        sop_instance_uid=received.sop_instance_uid,
        sop_class_uid=received.sop_class_uid,
        transfer_syntax_uid=received.transfer_syntax_uid,
        digest=received.digest,
        path=received.path,
        byte_count=received.byte_count,
        patient_id=_clean(received.patient_id),
        view=_clean(received.view),
        calling_ae_title=_clean(received.calling_ae_title),
        state=InstanceState.REFUSED if refusal else InstanceState.ELIGIBLE,
        refusal_code=refusal.code if refusal else "",
        refusal_sentence=refusal.sentence if refusal else "",
        flag=flag,
        received_at=now,
    )


def _insert_job(
    connection: Connection,
    study: Row[Any],
    instance_id: int,
    received: ReceivedInstance,
    pipeline: str,
    held: bool,
    now: datetime,
) -> int:
    return _insert(
        connection,
        tables.Job,
        study_id=study.id,
        instance_id=instance_id,
        pipeline=pipeline,
        revision=1,
        state=JobState.HELD if held else JobState.QUEUED,
        stat=received.stat or study.stat,
        attempts=0,
        rung_at=now,
        timings={},
        created_at=now,
        queued_at=now,
    )


def _events(
    study: Row[Any],
    is_new: bool,
    instance_id: int,
    refusal: Refusal | None,
    job_id: int | None,
    trouble: str,
    now: datetime,
) -> list[dict[str, Any]]:
    state = InstanceState.REFUSED if refusal else InstanceState.ELIGIBLE
    cause = refusal.code if refusal else "eligible"
    events = [event(study.id, "instance", instance_id, "received", state.value, cause, _ACTOR, now)]
    if is_new:
        events.insert(0, event(study.id, "study", study.id, "", study.state.value, "first instance", _ACTOR, now))
    if job_id is not None:
        job_state = JobState.HELD if trouble else JobState.QUEUED
        events.append(event(study.id, "job", job_id, "", job_state.value, trouble or cause, _ACTOR, now))
    return events


def _update_study(
    connection: Connection, study: Row[Any], received: ReceivedInstance, refusal: Refusal | None, now: datetime
) -> None:
    """Count the instance, and let an eligible one reopen the study and wait for its analysis.

    A refused one does not reopen a settled study: its summary would go out again, and a peer that answers each summary
    with an object of its own would be answered for ever.
    """
    values: dict[str, Any] = {"images": tables.Study.images + 1}
    if refusal:
        values["refused"] = tables.Study.refused + 1
    elif study.analysis is Analysis.NOT_ANALYSED:
        values |= {"analysis": Analysis.WAITING, "reason": "waiting for its analysis"}
    if received.stat and not study.stat:
        values["stat"] = True
        values["due_at"] = min(study.due_at, now + STAT_WAIT)
        if study.priority is Priority.ROUTINE:
            values["priority"] = Priority.URGENT
    for name in ("patient_id", "issuer_of_patient_id", "accession_number"):
        if not getattr(study, name) and _clean(getattr(received, name)):
            values[name] = _clean(getattr(received, name))
    touch_study(connection, study, now, reopen="" if refusal else "an image arrived", **values)
