"""An instance that came again in other bytes: a repeat in another encoding, or other content under a used UID.

A modality and an archive may send the same image, each in its own transfer syntax; a router adds a Retrieve AE Title.
The listener cannot tell, for it never decodes. So it keeps such an instance with the flag ``compare`` and a job, the
worker that claims the job compares what both mean (:mod:`workers.repeated_instances`), and here the answer is written.
Until then nothing of the study changes: it is neither held nor reopened, and the instance is not counted. A worker
that dies leaves a job whose lease runs out, like every other job.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from db import tables
from db.holds import hold
from db.instance_flags import COMPARE, CONFLICT, REPEAT
from db.instances import OTHER_CONTENT, state_of
from db.jobs import instance_of, lock
from db.leases import ENDED
from db.records import NotEligible
from db.states import Analysis, InstanceState, JobState
from db.study_rules import came_after_the_report
from db.study_status import return_to_list
from db.transitions import move, touch_study

SAME = "The same image came before, in another encoding or with a router's additions."


def record_comparison(connection: Connection, job_id: int, worker: str, difference: str, now: datetime) -> bool:
    """Write what the comparison of a claimed job's instance with its ``compare_with`` has shown.

    Without a ``difference`` it is a repeat, and nothing changes. With one (a few words for a person) it is kept
    apart, and the study is put on hold. False, and nothing written, where the claim is lost or there was nothing to
    compare.
    """
    study, job = lock(connection, job_id)
    instance = instance_of(connection, job.instance_id)
    if job.state is not JobState.RUNNING or job.worker != worker or instance.flag != COMPARE:
        return False
    if difference:
        _is_other_content(connection, (study, job, instance), difference, worker, now)
    else:
        values: dict[str, Any] = {"flag": REPEAT, "not_eligible_code": REPEAT, "not_eligible_reason": SAME}
        move(
            connection, "instance", instance, InstanceState.NOT_ELIGIBLE, cause=REPEAT, actor=worker, now=now, **values
        )
        _withdraw(connection, job, REPEAT, worker, now)
    return True


def _withdraw(connection: Connection, job: Row[Any], cause: str, worker: str, now: datetime) -> None:
    values: dict[str, Any] = {**ENDED, "error": "", "finished_at": now}
    move(connection, "job", job, JobState.WITHDRAWN, cause=cause, actor=worker, now=now, **values)


def _is_other_content(
    connection: Connection, rows: tuple[Row[Any], Row[Any], Row[Any]], difference: str, worker: str, now: datetime
) -> None:
    """Take the instance in like any other that comes, and hold the study for a person."""
    study, job, instance = rows
    reason = f"{OTHER_CONTENT} ({difference})"
    not_eligible = (
        NotEligible(instance.not_eligible_code, instance.not_eligible_reason) if instance.not_eligible_code else None
    )
    cause = not_eligible.code if not_eligible else "eligible"
    move(connection, "instance", instance, state_of(not_eligible), cause=cause, actor=worker, now=now, flag=CONFLICT)
    if not_eligible:
        _withdraw(connection, job, not_eligible.code, worker, now)
    else:
        values: dict[str, Any] = {**ENDED, "error": "", "attempts": 0}
        move(connection, "job", job, JobState.ON_HOLD, cause=reason, actor=worker, now=now, **values)
    values = {"images": tables.Study.images + 1}
    if not_eligible:
        values["not_eligible"] = tables.Study.not_eligible + 1
    elif study.analysis is Analysis.NOT_ANALYSED:
        values |= {"analysis": Analysis.WAITING, "reason": "waiting for its analysis"}
    touch_study(connection, study, now, reopen="" if not_eligible else "an image arrived", **values)
    if came_after_the_report(study, not_eligible):
        return_to_list(connection, study, now)
    hold(connection, study.id, reason, worker, now)
