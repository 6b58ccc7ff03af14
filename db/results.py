"""Stores findings and results of a job, and a delivery for each result and each destination that takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from db import tables
from db.backfill import is_only_prior
from db.errors import DuplicateResultError
from db.holds import first_state
from db.instance_statements import KNOW_DESTINATION, inserting, or_ignore, values_of
from db.prepared_statements import Prepared, is_among
from db.records import IS_PRIOR, IS_REPORTED, FindingRecord, ResultRecord
from db.stale_objects import lock_earlier, mark_replaced
from db.states import DeliveryState
from db.transitions import event, move, write_events

_UNSENT = (
    DeliveryState.PENDING,
    DeliveryState.SENDING,
    DeliveryState.FAILED,
    DeliveryState.ON_HOLD,
    DeliveryState.RECORDED,
)


_FINDING = tuple(FindingRecord.__dataclass_fields__)
_KEPT = tuple(ResultRecord.__dataclass_fields__)

_INSERT_FINDING = Prepared(
    lambda _: insert(tables.Finding).values(
        values_of(tables.Finding.__table__, "study_id", "job_id", "revision", *_FINDING)
    )
)
_KNOW_MODEL = Prepared(
    lambda dialect: or_ignore(dialect, tables.Model.__table__).values(
        values_of(tables.Model.__table__, "name", "version", "first_used_at")
    )
)
_SAME_UIDS = Prepared(
    lambda dialect: select(tables.Result.sop_instance_uid).where(
        is_among(tables.Result.sop_instance_uid, "uids", dialect)
    )
)
_INSERT_RESULT = inserting(
    tables.Result, "study_id", "job_id", "revision", "patient_id", "created_at", "ordinal", *_KEPT
)
_INSERT_DELIVERY = inserting(
    tables.Delivery,
    *("study_id", "result_id", "destination", "state", "attempts", "dispatched_at", "error", "on_hold_with_study"),
    "created_at",
)


def keep_findings(connection: Connection, job: Row[Any], findings: Sequence[FindingRecord], now: datetime) -> None:
    """Insert the findings of a job's revision; those of earlier revisions are marked as superseded."""
    finding = tables.Finding
    if job.revision > 1:
        connection.execute(update(finding).where(finding.job_id == job.id).values(superseded=True))
    if not findings:
        return
    of_job = {"study_id": job.study_id, "job_id": job.id, "revision": job.revision}
    _INSERT_FINDING.run(
        connection, *({**of_job, **{name: getattr(each, name) for name in _FINDING}} for each in findings)
    )
    models = sorted({(record.model, record.model_version) for record in findings})
    _KNOW_MODEL.run(connection, *({"name": name, "version": version, "first_used_at": now} for name, version in models))


def keep_results(
    connection: Connection,
    study: Row[Any],
    results: Sequence[ResultRecord],
    destinations: Mapping[str, Sequence[str]],
    *,
    job_id: int | None,
    revision: int,
    patient_id: str,
    actor: str,
    now: datetime,
    recorded: str = "",
) -> tuple[int, ...]:
    """Insert ``results`` in storing order with their deliveries, and withdraw what an earlier revision never sent.

    ``recorded``: why they are kept here for the time being. Each has its deliveries all the same, so that a person can
    let them go.

    Returns:
        The deliveries to enqueue, the first for each destination; none while the study is on hold, or where they are
        recorded.

    Raises:
        DuplicateResultError: other work has left a result with the same UID.
    """
    recorded = _still(connection, recorded, study)
    if revision > 1:
        _withdraw_unsent(connection, study.id, job_id, revision, actor, now)
        if not recorded:
            mark_replaced(connection, study.id, job_id, revision, actor, now)
    _refuse_duplicates(connection, [result.sop_instance_uid for result in results])
    if not results:
        return ()
    work = {"study_id": study.id, "job_id": job_id, "revision": revision}
    ids = _insert_results(connection, results, {**work, "patient_id": patient_id, "created_at": now})
    wanted = [
        (result_id, name)
        for name, kinds in destinations.items()
        for result_id, result in zip(ids, results, strict=True)
        if result.kind in kinds
    ]
    return _insert_deliveries(connection, study, wanted, recorded, actor, now)


def _insert_results(
    connection: Connection, results: Sequence[ResultRecord], common: Mapping[str, Any]
) -> Sequence[int]:
    """Insert ``results`` in storing order, each with the columns ``common``; their rows."""
    rows = (
        {**common, "ordinal": ordinal, **{name: getattr(result, name) for name in _KEPT}}
        for ordinal, result in enumerate(results)
    )
    return [_INSERT_RESULT.insert(connection, row) for row in rows]


def _still(connection: Connection, recorded: str, study: Row[Any]) -> str:
    """The reason to record results, unless it has gone since: the report was taken back, the prior came by itself."""
    if recorded == IS_PRIOR:
        return recorded if is_only_prior(connection, study.study_instance_uid) else ""
    return "" if recorded == IS_REPORTED and study.reported_at is None else recorded


def _insert_deliveries(
    connection: Connection,
    study: Row[Any],
    wanted: Sequence[tuple[int, str]],
    recorded: str,
    actor: str,
    now: datetime,
) -> tuple[int, ...]:
    if not wanted:
        return ()
    names = sorted({name for _, name in wanted})
    KNOW_DESTINATION.run(connection, *({"name": name} for name in names))
    state, reason = (DeliveryState.RECORDED, recorded) if recorded else first_state(study)
    common = {
        "study_id": study.id,
        "state": state,
        "attempts": 0,
        "dispatched_at": now,
        "error": reason,
        "on_hold_with_study": state is DeliveryState.ON_HOLD,
        "created_at": now,
    }
    rows = ({**common, "result_id": result_id, "destination": name} for result_id, name in wanted)
    ids = tuple(_INSERT_DELIVERY.insert(connection, row) for row in rows)
    cause = reason or "result was made"
    write_events(connection, [event(study.id, "delivery", i, "", state.value, cause, actor, now) for i in ids])
    if state is not DeliveryState.PENDING:
        return ()
    # Who takes the first takes the others along: one message for all.
    first = {name: delivery_id for delivery_id, (_, name) in zip(reversed(ids), reversed(wanted), strict=True)}
    return tuple(sorted(first.values()))


def _refuse_duplicates(connection: Connection, uids: Iterable[str]) -> None:
    found = _SAME_UIDS.first(connection, {"uids": list(uids)})
    if found is not None:
        raise DuplicateResultError(found.sop_instance_uid)


def _withdraw_unsent(
    connection: Connection, study_id: int, job_id: int | None, revision: int, actor: str, now: datetime
) -> None:
    """An older revision that has not left yet must not arrive after, or beside, the one that replaces it.

    What is being sent just now may arrive: that is not ended, but nothing sends it again.
    """
    for row in lock_earlier(connection, study_id, job_id, revision, tables.Delivery.state.in_(_UNSENT)):
        cause = f"replaced by revision {revision}"
        values: dict[str, Any] = {"error": cause, "unanswered": row.unanswered or row.state is DeliveryState.SENDING}
        move(connection, "delivery", row, DeliveryState.WITHDRAWN, cause=cause, actor=actor, now=now, **values)
