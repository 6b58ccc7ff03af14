"""Rejection notes (IHE IOCM): a hospital takes images back, and nothing that was made of them may stay unmarked.

A note may come before its image, when a PACS forwards a study out of order: it is kept, and the image is refused when
it arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from db import tables
from db.comparisons import take_back_comparisons
from db.holds import hold
from db.instance_flags import REPEAT
from db.instance_statements import insert_or_ignore
from db.instances import REJECTED
from db.records import RejectionNote
from db.states import InstanceState, JobState
from db.transitions import lock_study, move, touch_study
from db.withdrawals import withdraw_results, withdraw_summaries

ACTOR = "rejection note"

_WITH_A_PERSON = frozenset({"113037", "113038"})
"""Reasons after which a person must look at the whole study: patient safety, and another patient's worklist entry."""


def reject(connection: Connection, note: RejectionNote, now: datetime) -> tuple[int, ...]:
    """Take back the images that a rejection note names. The same note again changes nothing.

    Their jobs end and their findings no longer count. What was made of them is withdrawn where it was not sent and
    marked where it was. After a wrong worklist entry or for patient safety the study is put on hold as well. An image
    that comes after its note is not eligible.

    Returns:
        The studies in which something has changed: triage must look at them again.
    """
    if not note.sop_instance_uids:
        return ()
    connection.execute(
        insert_or_ignore(connection, tables.Rejection),
        [
            {
                "sop_instance_uid": uid,
                "note_uid": note.note_uid,
                "code": note.code,
                "sentence": note.sentence,
                "at": now,
            }
            for uid in note.sop_instance_uids
        ],
    )
    changed = []
    for study_id in _studies(connection, note.sop_instance_uids):
        study = lock_study(connection, study_id)
        instances = _instances(connection, study_id, note.sop_instance_uids)
        for instance in instances:
            _take_back(connection, instance, note, now)
        if instances:
            not_eligible = sum(instance.state is InstanceState.ELIGIBLE for instance in instances)
            touch_study(connection, study, now, reopen=ACTOR, not_eligible=tables.Study.not_eligible + not_eligible)
            withdraw_summaries(connection, study_id, note.sentence, note.code, ACTOR, now)
            take_back_comparisons(connection, study.study_instance_uid, "has been rejected", ACTOR, now)
            changed.append(study_id)
            if note.code in _WITH_A_PERSON:
                hold(connection, study_id, note.sentence, ACTOR, now)
    return tuple(changed)


def _studies(connection: Connection, uids: Sequence[str]) -> list[int]:
    instance = tables.Instance
    query = select(instance.study_id).where(instance.sop_instance_uid.in_(uids)).distinct()
    return sorted(connection.scalars(query))


def _instances(connection: Connection, study_id: int, uids: Sequence[str]) -> list[Row[Any]]:
    """Those of the instances that no note has taken back yet."""
    instance = tables.Instance.__table__
    query = select(instance).where(
        instance.c.study_id == study_id,
        instance.c.sop_instance_uid.in_(uids),
        instance.c.not_eligible_code != REJECTED,
    )
    return list(connection.execute(query.order_by(instance.c.id).with_for_update(key_share=True)))


def _take_back(connection: Connection, instance: Row[Any], note: RejectionNote, now: datetime) -> None:
    why: dict[str, Any] = {"not_eligible_code": REJECTED, "not_eligible_reason": note.sentence}
    uncompared = instance.state is InstanceState.RECEIVED
    if uncompared:
        why["flag"] = REPEAT
    if instance.state in (InstanceState.ELIGIBLE, InstanceState.RECEIVED):
        move(
            connection,
            "instance",
            instance,
            InstanceState.NOT_ELIGIBLE,
            cause=note.sentence,
            actor=ACTOR,
            now=now,
            **why,
        )
    else:
        connection.execute(update(tables.Instance).where(tables.Instance.id == instance.id).values(**why))
    job = tables.Job.__table__
    for row in connection.execute(select(job).where(job.c.instance_id == instance.id).order_by(job.c.id)).all():
        if uncompared:
            move(connection, "job", row, JobState.WITHDRAWN, cause=note.sentence, actor=ACTOR, now=now, worker="")
        elif row.state is not JobState.WITHDRAWN:
            _end_job(connection, row, note, now)
            withdraw_results(connection, row.id, note.sentence, note.code, ACTOR, now)


def _end_job(connection: Connection, job: Row[Any], note: RejectionNote, now: datetime) -> None:
    """A worker that is at it finds its claim gone, and what it has made is never written."""
    values: dict[str, Any] = {"not_analysed_code": REJECTED, "not_analysed_reason": note.sentence}
    if job.state is JobState.DONE:
        connection.execute(update(tables.Job).where(tables.Job.id == job.id).values(**values))
    else:
        values |= {"worker": "", "lease_until": None, "due_at": None, "finished_at": now}
        move(connection, "job", job, JobState.DONE, cause=note.sentence, actor=ACTOR, now=now, **values)
    connection.execute(update(tables.Finding).where(tables.Finding.job_id == job.id).values(superseded=True))
