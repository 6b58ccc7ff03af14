"""A newer instance under a used SOP Instance UID, once a person has let it go on: what came before it counts no more.

A hospital corrects an image (its patient, its orientation) and sends it again under the same UID. Its older version was
analysed, perhaps delivered. From the release on there is one image again: findings and jobs of the older version count
no more, what was made of it and has not left stays here, and what has left is marked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from db import tables
from db.instance_flags import CONFLICT, NOT_COUNTED, REPLACED
from db.records import FOR_SAFETY
from db.states import InstanceState, JobState
from db.transitions import move
from db.withdrawals import withdraw_results, withdraw_summaries

NEWER = "A newer image came under the same SOP Instance UID."


def replace_older(connection: Connection, study_id: int, actor: str, now: datetime) -> None:
    """Let the newest of each SOP Instance UID of a locked study count alone, if a person has looked at the conflict."""
    instance = tables.Instance.__table__
    query = (
        select(instance)
        .where(instance.c.study_id == study_id, instance.c.flag.not_in(NOT_COUNTED))
        .order_by(instance.c.id.desc())
        .with_for_update(key_share=True)
    )
    newest: dict[str, Any] = {}
    for row in connection.execute(query).all():
        first = newest.setdefault(row.sop_instance_uid, row)
        if first.id != row.id and first.flag == CONFLICT:
            _replace(connection, row, actor, now)


def _replace(connection: Connection, instance: Row[Any], actor: str, now: datetime) -> None:
    values: dict[str, Any] = {"flag": REPLACED, "not_eligible_code": REPLACED, "not_eligible_reason": NEWER}
    not_eligible = instance.state is InstanceState.NOT_ELIGIBLE
    if not_eligible:
        connection.execute(update(tables.Instance).where(tables.Instance.id == instance.id).values(**values))
    else:
        after = InstanceState.NOT_ELIGIBLE
        move(connection, "instance", instance, after, cause=REPLACED, actor=actor, now=now, **values)
    study = tables.Study
    counts = {"images": study.images - 1, "not_eligible": study.not_eligible - int(not_eligible)}
    connection.execute(update(study).where(study.id == instance.study_id).values(**counts))
    job = tables.Job.__table__
    for row in connection.execute(select(job).where(job.c.instance_id == instance.id)).all():
        if row.state is not JobState.WITHDRAWN:
            move(connection, "job", row, JobState.WITHDRAWN, cause=NEWER, actor=actor, now=now, worker="", due_at=None)
        connection.execute(update(tables.Finding).where(tables.Finding.job_id == row.id).values(superseded=True))
        withdraw_results(connection, row.id, NEWER, FOR_SAFETY, actor, now)
    withdraw_summaries(connection, instance.study_id, NEWER, FOR_SAFETY, actor, now)
