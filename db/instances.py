"""Recording a received instance: the one transaction that lies between a peer's C-STORE and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, insert, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from db import tables
from db.accessions import keep_numbers
from db.holds import hold
from db.instance_flags import COMPARE, CONFLICT, OWN, REPEAT
from db.not_eligible_codes import FOR_A_READER
from db.orders import ACTOR, AHEAD, apply_on_arrival, lock_arrivals
from db.patients import (
    PatientIdentifier,
    PatientRules,
    correct_on_arrival,
    different_persons,
    identifier_of,
    same_patient,
    was_corrected,
)
from db.prepared_statements import Prepared
from db.queries.retention import has_files_again
from db.records import Analysis, Ingest, InstanceState, JobState, NotEligible, Priority, ReceivedInstance, StudyState
from db.search_words import keep_words, study_texts
from db.study_status import REPORT_OBJECT, return_to_list
from db.transitions import event, lock_study, touch_study

STAT_WAIT = timedelta(hours=1)
ROUTINE_WAIT = timedelta(hours=8)
"""When a study is due until triage has analysed it. Triage replaces both by what the configuration says."""

REJECTED = "rejected"
"""The code, beside those of a header, of an instance that a rejection note has taken back."""

OTHER_CONTENT = "an instance came again under the same SOP Instance UID with other content"

_PATHS_AT_ONCE = 500
_TEXT_LIMIT = 256
_ACTOR = "listener"
_OPEN_JOBS = (JobState.QUEUED, JobState.RUNNING, JobState.RETRYING)


_STUDY: Any = tables.Study.__table__
_IDENTITY = ("patient_id", "issuer_of_patient_id", "accession_number")


def insert_or_ignore(connection: Connection, table: Any) -> Any:
    """Give an INSERT for ``table`` that leaves a row which is there already as it is."""
    return _or_ignore(connection.dialect.name, table)


def _or_ignore(dialect: str, table: Any) -> Any:
    make: Any = postgresql_insert if dialect == "postgresql" else sqlite_insert
    return make(table).on_conflict_do_nothing()


def _values(table: Any, *names: str) -> dict[str, Any]:
    return {name: bindparam(name, type_=table.c[name].type) for name in names}


def _inserting(mapped: type[tables.Base], *names: str) -> Prepared:
    """INSERT with these columns, giving the id."""
    table: Any = mapped.__table__
    return Prepared(lambda _: insert(table).values(_values(table, *names)).returning(table.c.id))


_LOCK_STUDY = Prepared(
    lambda _: (
        select(_STUDY)
        .where(_STUDY.c.study_instance_uid == bindparam("study_instance_uid"))
        .with_for_update(key_share=True)
    )
)
_INSERT_STUDY = Prepared(
    lambda dialect: (
        _or_ignore(dialect, _STUDY)
        .values(
            _values(
                _STUDY,
                *("study_instance_uid", *_IDENTITY, "patient_name", "patient_birth_date", "patient_sex"),
                *("study_date", "study_time", "study_description", "state", "stat", "priority", "analysis", "reason"),
                *("due_at", "first_received_at", "last_activity_at"),
            )
        )
        .returning(_STUDY)
    )
)
_COUNT_IMAGE = Prepared(
    lambda _: (
        update(_STUDY)
        .where(_STUDY.c.id == bindparam("study_id"))
        .values(
            images=_STUDY.c.images + literal_column("1"),
            not_eligible=_STUDY.c.not_eligible + bindparam("not_eligible_increment"),
            activity=_STUDY.c.activity + literal_column("1"),
            last_activity_at=bindparam("now", type_=_STUDY.c.last_activity_at.type),
        )
    )
)
_TWINS = Prepared(
    lambda _: select(
        tables.Instance.id,
        tables.Instance.digest,
        tables.Instance.study_id,
        tables.Instance.series_id,
        tables.Instance.sop_class_uid,
        tables.Instance.patient_id,
        tables.Instance.flag,
    ).where(tables.Instance.sop_instance_uid == bindparam("sop_instance_uid"))
)
_OWN_RESULT = Prepared(
    lambda _: select(tables.Result.id).where(tables.Result.sop_instance_uid == bindparam("sop_instance_uid"))
)
_REJECTION = Prepared(
    lambda _: (
        select(tables.Rejection.sentence)
        .where(tables.Rejection.sop_instance_uid == bindparam("sop_instance_uid"))
        .order_by(tables.Rejection.id)
    )
)
_SERIES = Prepared(
    lambda _: select(tables.Series.id).where(
        tables.Series.study_id == bindparam("study_id"),
        tables.Series.series_instance_uid == bindparam("series_instance_uid"),
    )
)
_INSERT_SERIES = _inserting(
    tables.Series, "study_id", "series_instance_uid", "modality", "body_part", "series_description", "station_name"
)
_INSERT_INSTANCE = _inserting(
    tables.Instance,
    *("study_id", "series_id", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "digest", "path"),
    *(
        "byte_count",
        "patient_id",
        "view",
        "calling_ae_title",
        "state",
        "not_eligible_code",
        "not_eligible_reason",
        "flag",
    ),
    "received_at",
)
_INSERT_JOB = _inserting(
    tables.Job,
    *("study_id", "instance_id", "pipeline", "revision", "state", "stat", "attempts", "dispatched_at", "timings"),
    *("created_at", "queued_at"),
)
_INSERT_EVENT = _inserting(
    tables.Event, "study_id", "entity", "entity_id", "from_state", "to_state", "cause", "actor", "at"
)


def record_instance(
    connection: Connection,
    received: ReceivedInstance,
    not_eligible: NotEligible | None,
    pipeline: str,
    rules: PatientRules,
    now: datetime,
) -> Ingest:
    """Record a received instance with its study and series and, where it is eligible, the job for it.

    The same UID and digest again changes nothing and gives the jobs that are still open. The same UID in other bytes
    gets a job that compares it (:func:`db.repeated_instances.record_comparison`). Where it came for another patient,
    study or series, or where another patient is in the same study, the study is put on hold for a person. An eligible
    instance opens a complete study again; one that is not eligible does not. One of our own results that comes back
    is recorded and changes nothing of the study.

    The study's row stays locked, so two associations that bring the same instance at once come one after the other.
    """
    study, is_new = _study(connection, received, not_eligible, now)
    twins = _TWINS.rows(connection, {"sop_instance_uid": received.sop_instance_uid})
    repeat = next((twin for twin in twins if twin.digest == received.digest), None)
    if repeat is not None:
        return Ingest(repeat.id, _open_jobs(connection, repeat.id), repeat=True)

    not_eligible = not_eligible or _rejection(connection, received.sop_instance_uid)
    own = not_eligible is not None and is_own_result(connection, received.sop_instance_uid)
    series_id = _series_id(connection, study.id, received)
    again = "" if own else _again(twins, received, (study.id, series_id), not_eligible)
    is_radiograph = not_eligible is None or not_eligible.code in FOR_A_READER
    flag, trouble = again, ""
    if not again:
        flag, trouble = _flag(
            connection, study, received, rules, conflict=bool(twins), own=own, is_radiograph=is_radiograph
        )
    instance_id = _insert_instance(connection, (study.id, series_id), received, not_eligible, flag, now)
    if study.files_removed_at is not None:
        has_files_again(connection, study.id)
    on_hold = study.on_hold or bool(trouble)
    has_job = not_eligible is None or flag == COMPARE
    job_id = _insert_job(connection, study, instance_id, received, pipeline, on_hold, now) if has_job else None
    state = state_of(not_eligible, flag)
    events = _events(study, is_new, instance_id, state, not_eligible, job_id, trouble or study.hold_reason, now)
    _INSERT_EVENT.run(connection, *events)
    if again:
        _raise_to_stat(connection, study, received, now)
    elif not own:
        _update_study(connection, study, received, not_eligible, now)
    returned = not own and not again and came_after_the_report(study, not_eligible)
    if returned:
        return_to_list(connection, study, now)
    pressing = is_new and _apply_what_was_said(connection, study, job_id, rules, now)
    if trouble:
        for study_id in sorted({study.id, *(twin.study_id for twin in twins)}):
            hold(connection, study_id, trouble, _ACTOR, now)
    job_ids = () if job_id is None or on_hold else (job_id,)
    return Ingest(
        instance_id,
        job_ids,
        comparing=flag == COMPARE,
        conflict=flag == CONFLICT,
        pressing=pressing or flag == COMPARE,
        returned=study.id if returned else None,
    )


def recorded_files(connection: Connection, paths: Sequence[str]) -> frozenset[str]:
    """Which of these paths, relative to the store folder, are those of recorded instances."""
    found: set[str] = set()
    for first in range(0, len(paths), _PATHS_AT_ONCE):
        some = list(paths[first : first + _PATHS_AT_ONCE])
        found.update(connection.scalars(select(tables.Instance.path).where(tables.Instance.path.in_(some))))
    return frozenset(found)


def is_own_result(connection: Connection, sop_instance_uid: str) -> bool:
    """Say whether this node has made the object with this UID."""
    return _OWN_RESULT.first(connection, {"sop_instance_uid": sop_instance_uid}) is not None


def _rejection(connection: Connection, sop_instance_uid: str) -> NotEligible | None:
    """Why the hospital has taken this instance back before it came, if it has."""
    rejection = _REJECTION.first(connection, {"sop_instance_uid": sop_instance_uid})
    return None if rejection is None else NotEligible(REJECTED, rejection.sentence)


def _again(
    twins: Sequence[Any], received: ReceivedInstance, parents: tuple[int, int], not_eligible: NotEligible | None
) -> str:
    """Flag of an instance that may repeat one of its ``twins``: same SOP Instance UID, other bytes. Empty if it cannot.

    ``parents`` are the rows of its study and series. Pixels are never looked at here: a peer waits for its answer, and
    other peers for the database. What a rejection note has taken back is refused in every encoding alike.
    """
    if not twins:
        return ""
    if not_eligible is not None and not_eligible.code == REJECTED:
        return REPEAT
    known = [twin for twin in twins if twin.flag not in (COMPARE, REPEAT)]
    return COMPARE if any(_may_be_the_same(twin, received, parents) for twin in known) else ""


def _may_be_the_same(twin: Any, received: ReceivedInstance, parents: tuple[int, int]) -> bool:
    return (
        (twin.study_id, twin.series_id) == parents
        and twin.sop_class_uid == received.sop_class_uid
        and twin.patient_id.strip(" ") == _clean(received.patient_id).strip(" ")
    )


def state_of(not_eligible: NotEligible | None, flag: str = "") -> InstanceState:
    """State of an instance that was just received, or just compared."""
    if flag == COMPARE:
        return InstanceState.RECEIVED
    return InstanceState.NOT_ELIGIBLE if not_eligible else InstanceState.ELIGIBLE


def _clean(value: str) -> str:
    """Take out what a database cannot store as text (NUL, lone surrogates); cut what no header should hold."""
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:_TEXT_LIMIT]


def _study(
    connection: Connection, received: ReceivedInstance, not_eligible: NotEligible | None, now: datetime
) -> tuple[Any, bool]:
    """Find or make the study and lock it; say whether it is new."""
    by_uid = {"study_instance_uid": received.study_instance_uid}
    row = _LOCK_STUDY.first(connection, by_uid)
    if row is not None:
        return row, False
    values = _study_values(received, not_eligible, now)
    made = _INSERT_STUDY.first(connection, values)
    if made is not None:
        keep_numbers(connection, made.id, values["accession_number"])
        keep_words(connection, made.id, study_texts(values))
    # Without a row another association has made the study since; it is seen by now.
    return (made, True) if made is not None else (_LOCK_STUDY.rows(connection, by_uid)[0], False)


def _study_values(received: ReceivedInstance, not_eligible: NotEligible | None, now: datetime) -> dict[str, Any]:
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
        "analysis": Analysis.NOT_ANALYSED if not_eligible else Analysis.WAITING,
        "reason": not_eligible.sentence if not_eligible else "waiting for its analysis",
        "due_at": now + (STAT_WAIT if received.stat else ROUTINE_WAIT),
        "first_received_at": now,
        "last_activity_at": now,
    }


def _open_jobs(connection: Connection, instance_id: int) -> tuple[int, ...]:
    job = tables.Job
    query = select(job.id).where(job.instance_id == instance_id, job.state.in_(_OPEN_JOBS)).order_by(job.id)
    return tuple(connection.scalars(query))


def _flag(
    connection: Connection,
    study: Any,
    received: ReceivedInstance,
    rules: PatientRules,
    *,
    conflict: bool,
    own: bool,
    is_radiograph: bool,
) -> tuple[str, str]:
    """Say what is wrong with an instance: a flag for its row, and why the study must be held (or nothing)."""
    if own:
        return OWN, ""
    if conflict:
        return CONFLICT, OTHER_CONTENT
    known = identifier_of(study)
    given = PatientIdentifier(_clean(received.patient_id), _clean(received.issuer_of_patient_id))
    if rules.contradict(given, known) and not same_patient(connection, (given,), (known,), rules):
        return "patient", "its images name different patients (Patient ID or its issuer)"
    person = [_clean(received.patient_name), _clean(received.patient_birth_date)]
    differs = different_persons(person, (study.patient_name, study.patient_birth_date)) if is_radiograph else ""
    if differs and not was_corrected(connection, study.id):
        return "patient", f"its images name different patients ({differs})"
    return "", ""


def _apply_what_was_said(
    connection: Connection, study: Any, job_id: int | None, rules: PatientRules, now: datetime
) -> bool:
    """Apply to a new study what the hospital has said by HL7 before it came; whether it is urgent."""
    lock_arrivals(connection, shared=True)
    if correct_on_arrival(connection, study, rules, ACTOR, now):
        study = lock_study(connection, study.id)
    wanted = apply_on_arrival(connection, study, rules, now)
    if wanted not in (Priority.URGENT, Priority.CRITICAL):
        return False
    values = {"priority": wanted, "due_at": min(study.due_at, now + STAT_WAIT)}
    connection.execute(update(tables.Study).where(tables.Study.id == study.id).values(**values))
    connection.execute(update(tables.Job).where(tables.Job.id == job_id).values(stat=True))
    return True


def _series_id(connection: Connection, study_id: int, received: ReceivedInstance) -> int:
    values = {"study_id": study_id, "series_instance_uid": received.series_instance_uid}
    found = _SERIES.first(connection, values)
    if found is None:
        station_name = _clean(received.station_name)
        values |= {
            "modality": _clean(received.modality),
            "body_part": _clean(received.body_part),
            "series_description": _clean(received.series_description),
            "station_name": station_name,
        }
        keep_words(connection, study_id, (station_name,))
        found = _INSERT_SERIES.first(connection, values)
    return int(found.id)


def _insert_instance(
    connection: Connection,
    parents: tuple[int, int],
    received: ReceivedInstance,
    not_eligible: NotEligible | None,
    flag: str,
    now: datetime,
) -> int:
    values = {
        "study_id": parents[0],
        "series_id": parents[1],
        "sop_instance_uid": received.sop_instance_uid,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "digest": received.digest,
        "path": received.path,
        "byte_count": received.byte_count,
        "patient_id": _clean(received.patient_id),
        "view": _clean(received.view),
        "calling_ae_title": _clean(received.calling_ae_title),
        "state": state_of(not_eligible, flag),
        "not_eligible_code": not_eligible.code if not_eligible else "",
        "not_eligible_reason": not_eligible.sentence if not_eligible else "",
        "flag": flag,
        "received_at": now,
    }
    return int(_INSERT_INSTANCE.first(connection, values).id)


def _insert_job(
    connection: Connection,
    study: Any,
    instance_id: int,
    received: ReceivedInstance,
    pipeline: str,
    on_hold: bool,
    now: datetime,
) -> int:
    values = {
        "study_id": study.id,
        "instance_id": instance_id,
        "pipeline": pipeline,
        "revision": 1,
        "state": JobState.ON_HOLD if on_hold else JobState.QUEUED,
        "stat": received.stat or study.stat,
        "attempts": 0,
        "dispatched_at": now,
        "timings": {},
        "created_at": now,
        "queued_at": now,
    }
    return int(_INSERT_JOB.first(connection, values).id)


def _events(
    study: Any,
    is_new: bool,
    instance_id: int,
    state: InstanceState,
    not_eligible: NotEligible | None,
    job_id: int | None,
    trouble: str,
    now: datetime,
) -> list[dict[str, Any]]:
    cause = not_eligible.code if not_eligible else "eligible"
    before = "received"
    if state is InstanceState.RECEIVED:
        before, cause = "", "its SOP Instance UID was here already: it will be compared"
    events = [event(study.id, "instance", instance_id, before, state.value, cause, _ACTOR, now)]
    if is_new:
        events.insert(0, event(study.id, "study", study.id, "", study.state.value, "first instance", _ACTOR, now))
    if job_id is not None:
        job_state = JobState.ON_HOLD if trouble else JobState.QUEUED
        events.append(event(study.id, "job", job_id, "", job_state.value, trouble or cause, _ACTOR, now))
    return events


def _update_study(
    connection: Connection, study: Any, received: ReceivedInstance, not_eligible: NotEligible | None, now: datetime
) -> None:
    """Count the instance, and let an eligible one reopen the study and wait for its analysis.

    A refused one does not reopen a complete study: its summary would go out again, and a peer that answers each summary
    with an object of its own would be answered for ever.
    """
    values = _study_changes(study, received, not_eligible, now)
    if not values and (not_eligible or study.state is StudyState.OPEN):
        _COUNT_IMAGE.run(
            connection, {"study_id": study.id, "not_eligible_increment": 1 if not_eligible else 0, "now": now}
        )
        return
    if "accession_number" in values:
        keep_numbers(connection, study.id, values["accession_number"])
    keep_words(connection, study.id, [values[name] for name in ("accession_number", "patient_id") if name in values])
    values["images"] = tables.Study.images + 1
    if not_eligible:
        values["not_eligible"] = tables.Study.not_eligible + 1
    touch_study(connection, study, now, reopen="" if not_eligible else "an image arrived", **values)


def _raise_to_stat(connection: Connection, study: Any, received: ReceivedInstance, now: datetime) -> None:
    """Let a repeat change nothing of its study but the urgency that its sender asks for."""
    values = _stat_changes(study, received, now)
    if values:
        connection.execute(update(tables.Study).where(tables.Study.id == study.id).values(**values))


def came_after_the_report(study: Any, not_eligible: NotEligible | None) -> bool:
    """Whether a reader has not seen what came: an image of a study that is reported.

    A report that came as an object may overtake images of its own study, and one that was announced before the first
    image has overtaken them all, so both cover what comes until the study is quiet. Other objects, such as reports and
    presentation states, are no images to be read.
    """
    if study.reported_at is None or (not_eligible is not None and not_eligible.code not in FOR_A_READER):
        return False
    return study.state is StudyState.COMPLETE or not study.reported_by.startswith((REPORT_OBJECT, AHEAD))


def _study_changes(
    study: Any, received: ReceivedInstance, not_eligible: NotEligible | None, now: datetime
) -> dict[str, Any]:
    """What an instance changes of its study's row, beside what is counted: mostly nothing."""
    values: dict[str, Any] = {}
    if not not_eligible and study.analysis is Analysis.NOT_ANALYSED:
        values |= {"analysis": Analysis.WAITING, "reason": "waiting for its analysis"}
    values |= _stat_changes(study, received, now)
    for name in _IDENTITY:
        if not getattr(study, name) and _clean(getattr(received, name)):
            values[name] = _clean(getattr(received, name))
    return values


def _stat_changes(study: Any, received: ReceivedInstance, now: datetime) -> dict[str, Any]:
    if not received.stat or study.stat:
        return {}
    values: dict[str, Any] = {"stat": True, "due_at": min(study.due_at, now + STAT_WAIT)}
    return values | {"priority": Priority.URGENT} if study.priority is Priority.ROUTINE else values
