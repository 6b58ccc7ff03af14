"""Recording a received instance: the one transaction that lies between a peer's C-STORE and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from db import tables
from db.accessions import keep_numbers
from db.backfill import came_by_itself
from db.holds import hold
from db.instance_flags import COMPARE, CONFLICT, OTHER_PATIENT, OWN, REPEAT
from db.instance_statements import (
    COUNT_IMAGE,
    IDENTITY,
    INSERT_EVENT,
    INSERT_INSTANCE,
    INSERT_JOB,
    INSERT_SERIES,
    INSERT_STUDY,
    KNOWN,
    LOCK_STUDY,
    OWN_RESULT,
    REJECTION,
    SAME_SOP_INSTANCE_UID,
    SERIES,
    SET_MODALITIES,
    clean,
    inserted_study,
)
from db.not_eligible_codes import FOR_A_READER
from db.orders import ACTOR, apply_on_arrival, lock_arrivals, nothing_came_before
from db.patients import (
    PatientIdentifier,
    PatientRules,
    correct_on_arrival,
    different_persons,
    identifier_of,
    same_patient,
    was_corrected,
)
from db.queries.retention import has_files_again
from db.records import Ingest, NotEligible, ReceivedInstance
from db.search_words import keep_words, study_texts
from db.states import Analysis, InstanceState, JobState, Priority, StudyState
from db.study_rules import READ_ELSEWHERE, came_after_the_report, modalities_of
from db.study_status import return_to_list
from db.transitions import event, lock_study, touch_study

STAT_WAIT = timedelta(hours=1)
ROUTINE_WAIT = timedelta(hours=8)
"""When a study is due until triage has analysed it. Triage replaces both by what the configuration says."""

REJECTED = "rejected"
"""The code, beside those of a header, of an instance that a rejection note has taken back."""

OTHER_CONTENT = "an instance came again under the same SOP Instance UID with other content"

_PATHS_AT_ONCE = 500
_ACTOR = "listener"
_OPEN_JOBS = (JobState.QUEUED, JobState.RUNNING, JobState.RETRYING)


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
    study, known, is_new = _study(connection, received, not_eligible, now)
    by_uid = {"sop_instance_uid": received.sop_instance_uid}
    earlier = SAME_SOP_INSTANCE_UID.rows(connection, by_uid) if known.came else []
    repeat = next((row for row in earlier if row.digest == received.digest), None)
    by_itself = not is_new and _came_by_itself(connection, study, not_eligible, now, again=repeat is not None)
    if repeat is not None:
        if study.files_removed_at is not None:
            has_files_again(connection, study.id)
        jobs = _open_jobs(connection, repeat.id)
        return Ingest(repeat.id, jobs, repeat=True, returned=study.id if by_itself else None)
    if by_itself:
        study = lock_study(connection, study.id)
    series_id = _series_id(connection, study, received, is_new=is_new)
    counted = is_new and _is_plain(known)  # by _study, and nothing is there that it could contradict
    seen = (
        _Classification(not_eligible)
        if counted
        else _classify(connection, study, series_id, received, not_eligible, earlier, known, rules)
    )
    instance_id = _insert_instance(connection, (study.id, series_id), received, seen, now)
    hold_reason = seen.hold_reason or study.hold_reason
    job_id = _insert_job(connection, study, instance_id, received, pipeline, seen, now) if seen.has_job else None
    INSERT_EVENT.run(connection, *_events(study, is_new, instance_id, seen, job_id, hold_reason, now))
    returned = not counted and _change_study(connection, study, received, seen, now)
    urgent = is_new and _apply_earlier_messages(connection, study, job_id, rules, now)
    if seen.hold_reason:
        for study_id in sorted({study.id, *(row.study_id for row in earlier)}):
            hold(connection, study_id, seen.hold_reason, _ACTOR, now)
    on_hold = study.on_hold or bool(seen.hold_reason)
    return Ingest(
        instance_id,
        () if job_id is None or on_hold else (job_id,),
        comparing=seen.flag == COMPARE,
        conflict=seen.flag == CONFLICT,
        pressing=urgent or seen.flag == COMPARE,
        returned=study.id if returned or by_itself else None,
    )


def _came_by_itself(
    connection: Connection, study: Any, not_eligible: NotEligible | None, now: datetime, *, again: bool
) -> bool:
    """Whether a radiograph shows that a study, which was pulled, has now come by itself as well."""
    if not_eligible is not None and not_eligible.code not in FOR_A_READER:
        return False
    # Mostly it cannot be, and then the database is not asked.
    may_be = again or study.reported_by == READ_ELSEWHERE or study.state is StudyState.COMPLETE
    return may_be and came_by_itself(connection, study, _ACTOR, now, again=again)


@dataclass(frozen=True, slots=True)
class _Classification:
    """What an instance is to its study: why it is not eligible, the flag of its row, why the study goes on hold."""

    not_eligible: NotEligible | None
    flag: str = ""
    hold_reason: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is one of our own results that came back."""
        return self.flag == OWN

    @property
    def may_be_repeat(self) -> bool:
        """Whether it may be an instance that is here, in other bytes; then it changes nothing of its study yet."""
        return self.flag in (COMPARE, REPEAT)

    @property
    def has_job(self) -> bool:
        """Whether a worker has to look at it: to analyse or to compare it."""
        return self.not_eligible is None or self.flag == COMPARE


def _classify(
    connection: Connection,
    study: Any,
    series_id: int,
    received: ReceivedInstance,
    not_eligible: NotEligible | None,
    earlier: Sequence[Any],
    known: Any,
    rules: PatientRules,
) -> _Classification:
    """Classify an instance by the rows of ``earlier`` ones with its SOP Instance UID and by its study's patient."""
    if not_eligible is None and known.rejected:
        not_eligible = _rejection(connection, received.sop_instance_uid)
    if not_eligible is not None and known.own:
        return _Classification(not_eligible, OWN)
    if flag := _repeat_flag(earlier, received, (study.id, series_id), not_eligible):
        return _Classification(not_eligible, flag)
    if earlier:
        return _Classification(not_eligible, CONFLICT, OTHER_CONTENT)
    is_radiograph = not_eligible is None or not_eligible.code in FOR_A_READER
    hold_reason = _other_patient(connection, study, received, rules, is_radiograph=is_radiograph)
    return _Classification(not_eligible, OTHER_PATIENT if hold_reason else "", hold_reason)


def _change_study(
    connection: Connection, study: Any, received: ReceivedInstance, seen: _Classification, now: datetime
) -> bool:
    """Change the study's row by the instance; whether that brings a reported study back to the worklist."""
    if study.files_removed_at is not None:
        has_files_again(connection, study.id)
    if seen.may_be_repeat:
        _raise_to_stat(connection, study, received, now)
        return False
    if seen.is_own:
        return False
    _update_study(connection, study, received, seen.not_eligible, now)
    returned = came_after_the_report(study, seen.not_eligible)
    if returned:
        return_to_list(connection, study, now)
    return returned


def recorded_files(connection: Connection, paths: Sequence[str]) -> frozenset[str]:
    """Which of these paths, relative to the store folder, are those of recorded instances."""
    found: set[str] = set()
    for first in range(0, len(paths), _PATHS_AT_ONCE):
        some = list(paths[first : first + _PATHS_AT_ONCE])
        found.update(connection.scalars(select(tables.Instance.path).where(tables.Instance.path.in_(some))))
    return frozenset(found)


def is_any_known(connection: Connection) -> bool:
    """Whether anything was ever received and not erased."""
    return connection.execute(select(tables.Instance.id).limit(1)).first() is not None


def is_own_result(connection: Connection, sop_instance_uid: str) -> bool:
    """Say whether this node has made the object with this UID."""
    return OWN_RESULT.first(connection, {"sop_instance_uid": sop_instance_uid}) is not None


def _rejection(connection: Connection, sop_instance_uid: str) -> NotEligible | None:
    """Why the hospital has taken this instance back before it came, if it has."""
    rejection = REJECTION.first(connection, {"sop_instance_uid": sop_instance_uid})
    return None if rejection is None else NotEligible(REJECTED, rejection.sentence)


def _repeat_flag(
    earlier: Sequence[Any], received: ReceivedInstance, parents: tuple[int, int], not_eligible: NotEligible | None
) -> str:
    """Flag of an instance that may repeat one of ``earlier``: same SOP Instance UID, other bytes. Empty if it cannot.

    ``parents`` are the rows of its study and series. Pixels are never looked at here: a peer waits for its answer, and
    other peers for the database. What a rejection note has taken back is refused in every encoding alike.
    """
    if not earlier:
        return ""
    if not_eligible is not None and not_eligible.code == REJECTED:
        return REPEAT
    known = [row for row in earlier if row.flag not in (COMPARE, REPEAT)]
    return COMPARE if any(_may_be_the_same(row, received, parents) for row in known) else ""


def _may_be_the_same(earlier: Any, received: ReceivedInstance, parents: tuple[int, int]) -> bool:
    return (
        (earlier.study_id, earlier.series_id) == parents
        and earlier.sop_class_uid == received.sop_class_uid
        and earlier.patient_id.strip(" ") == clean(received.patient_id).strip(" ")
    )


def state_of(not_eligible: NotEligible | None, flag: str = "") -> InstanceState:
    """State of an instance that was just received, or just compared."""
    if flag == COMPARE:
        return InstanceState.RECEIVED
    return InstanceState.NOT_ELIGIBLE if not_eligible else InstanceState.ELIGIBLE


def _is_plain(known: Any) -> bool:
    """Whether the node knows nothing of an instance: it is not here, was not taken back and is no result of ours."""
    return not (known.came or known.rejected or known.own)


def _study(
    connection: Connection, received: ReceivedInstance, not_eligible: NotEligible | None, now: datetime
) -> tuple[Any, Any, bool]:
    """Find or make the study and lock it, and look what is known of the instance; say whether the study is new.

    An instance of which nothing is known is counted in a new study at once.
    """
    by_uid = {"study_instance_uid": received.study_instance_uid}
    instance = {"sop_instance_uid": received.sop_instance_uid}
    row = LOCK_STUDY.first(connection, by_uid)
    known = KNOWN.first(connection, instance)
    if row is not None:
        return row, known, False
    values = _study_values(received, not_eligible, now, counted=_is_plain(known))
    study_id = INSERT_STUDY.insert(connection, values)
    if not study_id:
        # Another association has made the study since; it is seen by now, and so is what it has brought.
        return LOCK_STUDY.rows(connection, by_uid)[0], KNOWN.first(connection, instance), False
    keep_numbers(connection, study_id, values["accession_number"])
    keep_words(connection, study_id, study_texts(values))
    return inserted_study(study_id, values), known, True


def _study_values(
    received: ReceivedInstance, not_eligible: NotEligible | None, now: datetime, *, counted: bool
) -> dict[str, Any]:
    return {
        "study_instance_uid": received.study_instance_uid,
        "patient_id": clean(received.patient_id),
        "issuer_of_patient_id": clean(received.issuer_of_patient_id),
        "patient_name": clean(received.patient_name),
        "patient_birth_date": clean(received.patient_birth_date),
        "patient_sex": clean(received.patient_sex),
        "accession_number": clean(received.accession_number),
        "study_date": clean(received.study_date),
        "study_time": clean(received.study_time),
        "study_description": clean(received.study_description),
        "modalities": clean(received.modality),
        "state": StudyState.OPEN,
        "stat": received.stat,
        "priority": Priority.URGENT if received.stat else Priority.ROUTINE,
        "analysis": Analysis.NOT_ANALYSED if not_eligible else Analysis.WAITING,
        "reason": not_eligible.sentence if not_eligible else "waiting for its analysis",
        "due_at": now + (STAT_WAIT if received.stat else ROUTINE_WAIT),
        "first_received_at": now,
        "last_activity_at": now,
        "images": int(counted),
        "not_eligible": int(counted and not_eligible is not None),
        "activity": int(counted),
    }


def _open_jobs(connection: Connection, instance_id: int) -> tuple[int, ...]:
    job = tables.Job
    query = select(job.id).where(job.instance_id == instance_id, job.state.in_(_OPEN_JOBS)).order_by(job.id)
    return tuple(connection.scalars(query))


def _other_patient(
    connection: Connection, study: Any, received: ReceivedInstance, rules: PatientRules, *, is_radiograph: bool
) -> str:
    """Why an instance seems to be of another patient than its study; empty if it does not."""
    known = identifier_of(study)
    given = PatientIdentifier(clean(received.patient_id), clean(received.issuer_of_patient_id))
    if rules.contradict(given, known) and not same_patient(connection, (given,), (known,), rules):
        return "its images name different patients (Patient ID or its issuer)"
    person = [clean(received.patient_name), clean(received.patient_birth_date)]
    differs = different_persons(person, (study.patient_name, study.patient_birth_date)) if is_radiograph else ""
    if differs and not was_corrected(connection, study.id):
        return f"its images name different patients ({differs})"
    return ""


def _apply_earlier_messages(
    connection: Connection, study: Any, job_id: int | None, rules: PatientRules, now: datetime
) -> bool:
    """Apply to a new study what the hospital has said by HL7 before it came; whether it is urgent."""
    lock_arrivals(connection, shared=True)
    if nothing_came_before(connection, study):
        return False
    if correct_on_arrival(connection, study, rules, ACTOR, now):
        study = lock_study(connection, study.id)
    wanted = apply_on_arrival(connection, study, rules, now)
    if wanted not in (Priority.URGENT, Priority.CRITICAL):
        return False
    values = {"priority": wanted, "due_at": min(study.due_at, now + STAT_WAIT)}
    connection.execute(update(tables.Study).where(tables.Study.id == study.id).values(**values))
    connection.execute(update(tables.Job).where(tables.Job.id == job_id).values(stat=True))
    return True


def _series_id(connection: Connection, study: Any, received: ReceivedInstance, *, is_new: bool) -> int:
    """Find or make the series; a study that is new in this transaction has none."""
    values = {"study_id": study.id, "series_instance_uid": received.series_instance_uid}
    found = None if is_new else SERIES.first(connection, values)
    if found is not None:
        return int(found.id)
    station_name = clean(received.station_name)
    values |= {
        "modality": clean(received.modality),
        "body_part": clean(received.body_part),
        "series_description": clean(received.series_description),
        "station_name": station_name,
    }
    keep_words(connection, study.id, (station_name,))
    _keep_modality(connection, study, values["modality"])
    return INSERT_SERIES.insert(connection, values)


def _keep_modality(connection: Connection, study: Any, modality: str) -> None:
    """Add the modality of a new series to those of its study, which is locked."""
    together = "\\".join(modalities_of(f"{study.modalities}\\{modality}"))
    if together != study.modalities:
        SET_MODALITIES.run(connection, {"study_id": study.id, "text_of_modalities": together})


def _insert_instance(
    connection: Connection,
    parents: tuple[int, int],
    received: ReceivedInstance,
    seen: _Classification,
    now: datetime,
) -> int:
    reason = seen.not_eligible
    values = {
        "study_id": parents[0],
        "series_id": parents[1],
        "sop_instance_uid": received.sop_instance_uid,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "digest": received.digest,
        "path": received.path,
        "byte_count": received.byte_count,
        "patient_id": clean(received.patient_id),
        "view": clean(received.view),
        "calling_ae_title": clean(received.calling_ae_title),
        "state": state_of(reason, seen.flag),
        "not_eligible_code": reason.code if reason else "",
        "not_eligible_reason": reason.sentence if reason else "",
        "flag": seen.flag,
        "route": received.route,
        "received_at": now,
    }
    return INSERT_INSTANCE.insert(connection, values)


def _insert_job(
    connection: Connection,
    study: Any,
    instance_id: int,
    received: ReceivedInstance,
    pipeline: str,
    seen: _Classification,
    now: datetime,
) -> int:
    on_hold = study.on_hold or bool(seen.hold_reason)
    values = {
        "study_id": study.id,
        "instance_id": instance_id,
        "pipeline": pipeline,
        "revision": 1,
        "state": JobState.ON_HOLD if on_hold else JobState.QUEUED,
        "stat": received.stat or study.stat,
        "attempts": 0,
        "dispatched_at": now,
        "queue": received.queue,
        "timings": {},
        "created_at": now,
        "queued_at": now,
    }
    return INSERT_JOB.insert(connection, values)


def _events(
    study: Any,
    is_new: bool,
    instance_id: int,
    seen: _Classification,
    job_id: int | None,
    hold_reason: str,
    now: datetime,
) -> list[dict[str, Any]]:
    cause = seen.not_eligible.code if seen.not_eligible else "eligible"
    before, state = "received", state_of(seen.not_eligible, seen.flag)
    if state is InstanceState.RECEIVED:
        before, cause = "", "its SOP Instance UID was here already: it will be compared"
    events = [event(study.id, "instance", instance_id, before, state.value, cause, _ACTOR, now)]
    if is_new:
        events.insert(0, event(study.id, "study", study.id, "", study.state.value, "first instance", _ACTOR, now))
    if job_id is not None:
        job_state = JobState.ON_HOLD if hold_reason else JobState.QUEUED
        events.append(event(study.id, "job", job_id, "", job_state.value, hold_reason or cause, _ACTOR, now))
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
        COUNT_IMAGE.run(
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


def _study_changes(
    study: Any, received: ReceivedInstance, not_eligible: NotEligible | None, now: datetime
) -> dict[str, Any]:
    """What an instance changes of its study's row, beside what is counted: mostly nothing."""
    values: dict[str, Any] = {}
    if not not_eligible and study.analysis is Analysis.NOT_ANALYSED:
        values |= {"analysis": Analysis.WAITING, "reason": "waiting for its analysis"}
    values |= _stat_changes(study, received, now)
    for name in IDENTITY:
        if not getattr(study, name) and clean(getattr(received, name)):
            values[name] = clean(getattr(received, name))
    return values


def _stat_changes(study: Any, received: ReceivedInstance, now: datetime) -> dict[str, Any]:
    if not received.stat or study.stat:
        return {}
    values: dict[str, Any] = {"stat": True, "due_at": min(study.due_at, now + STAT_WAIT)}
    return values | {"priority": Priority.URGENT} if study.priority is Priority.ROUTINE else values
