"""The state of models: a file defines a model, a person may switch it, and the database remembers who, when and why.

A model that was never switched has the state of the configuration. A switch counts for the next job. What a model
has said before it was taken out of delivery and what has not left yet is held, with words for a person; its
notifications that have not left are withdrawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, and_, func, insert, or_, select

from db.audit import AuditEntry, write_entry
from db.engine import writing
from db.leases import ENDED
from db.order_tables import NotificationRow, NotificationState
from db.prepared_statements import Prepared
from db.records import NOTE
from db.states import DeliveryState
from db.tables import Delivery, Finding, ModelSwitch, Result
from db.transitions import move

AS_CONFIGURED = "as configured"


class ModelState(StrEnum):
    """What becomes of a model's findings.

    ``active``: delivered and counted for triage, except what the manifest itself keeps in shadow. ``shadow``: stored
    and compared. ``off``: withdrawn by a person; stored, and nothing else.
    """

    ACTIVE = "active"
    SHADOW = "shadow"
    OFF = "off"


_DONE = {ModelState.OFF: "switched off", ModelState.SHADOW: "put in shadow"}


@dataclass(frozen=True, slots=True)
class Switch:
    """One decision about a model; ``before`` is a state, or the words "as configured"."""

    model: str
    before: str
    state: ModelState
    reason: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Switched:
    """What a decision did: nothing where the model was in that state already.

    ``on_hold`` deliveries wait for a person, and ``cancelled`` notifications that had not left yet will not.
    """

    changed: bool
    on_hold: int = 0
    cancelled: int = 0


def set_model_state(
    engine: Engine, name: str, state: ModelState, *, actor: str, reason: str, now: datetime, address: str = ""
) -> Switched:
    """Switch a model for all jobs that begin from now on; deciding the same again changes nothing.

    Whether there is such a model is for the caller to know: it is defined in a file. Where its findings are not to be
    delivered any more, results that carry them and have not left yet are held. Nothing is sent by itself when it is
    switched on again: a person re-sends what is still wanted.
    """
    with writing(engine).begin() as connection:
        latest = _latest(connection).get(name)
        before = latest.state.value if latest else AS_CONFIGURED
        if before == state.value:
            return Switched(changed=False)
        reason = " ".join(reason.split())[:400]
        values = {"model": name, "from_state": before, "to_state": state.value, "reason": reason, "at": now}
        connection.execute(insert(ModelSwitch).values(**values, actor=actor[:80]))
        off = state is not ModelState.ACTIVE
        on_hold = _hold_unsent(connection, name, state, actor, now) if off else 0
        cancelled = _cancel_notifications(connection, name, state, actor, now) if off else 0
        detail = f"{before} to {state.value}: {reason}"
        write_entry(connection, AuditEntry(now, actor, "switch model", name, None, address, detail))
        return Switched(changed=True, on_hold=on_hold, cancelled=cancelled)


def latest_switches(engine: Engine) -> dict[str, Switch]:
    """The latest decision about each model that a person has ever switched."""
    with engine.connect() as connection:
        return _latest(connection)


def current_states(connection: Connection) -> dict[str, ModelState]:
    """The states that people have given to models; one that was never switched is missing."""
    return {name: switch.state for name, switch in _latest(connection).items()}


def model_history(engine: Engine, name: str, limit: int = 50) -> tuple[Switch, ...]:
    """Every decision about one model, the latest first."""
    query = select(ModelSwitch.__table__).where(ModelSwitch.model == name).order_by(ModelSwitch.id.desc()).limit(limit)
    with engine.connect() as connection:
        return tuple(_switch(row) for row in connection.execute(query))


def on_hold_by_model(connection: Connection, result_id: int) -> str | None:
    """Say why a result may not leave: a model that has a part in it has been taken out of delivery since."""
    out = {name: switch for name, switch in _latest(connection).items() if switch.state is not ModelState.ACTIVE}
    if not out:
        return None
    query = (
        select(Finding.model)
        .join(Result, _carries())
        .where(Result.id == result_id, Finding.model.in_(list(out)))
        .order_by(Finding.model)
    )
    name = connection.scalars(query).first()
    return None if name is None else _description(name, out[name].state, out[name].actor)


_NEWEST = Prepared(
    lambda _: (
        select(ModelSwitch.__table__)
        .where(ModelSwitch.id.in_(select(func.max(ModelSwitch.id)).group_by(ModelSwitch.model)))
        .order_by(ModelSwitch.model)
    )
)


def _latest(connection: Connection) -> dict[str, Switch]:
    return {row.model: _switch(row) for row in _NEWEST.rows(connection, {})}


def _switch(row: Any) -> Switch:
    return Switch(row.model, row.from_state, ModelState(row.to_state), row.reason, row.actor, row.at)


def _carries() -> Any:
    """Which findings a result tells: those of its job's revision; a study's summary, all that hold."""
    of_job = and_(Finding.job_id == Result.job_id, Finding.revision == Result.revision)
    of_study = and_(Result.job_id.is_(None), Result.kind != NOTE, Finding.superseded.is_(False))
    return and_(Finding.study_id == Result.study_id, Finding.shadow.is_(False), or_(of_job, of_study))


def _hold_unsent(connection: Connection, name: str, state: ModelState, actor: str, now: datetime) -> int:
    delivery = Delivery.__table__
    carried = select(Finding.id).where(Finding.model == name, _carries()).correlate(Result).exists()
    query = (
        select(delivery)
        .join(Result, Result.id == delivery.c.result_id)
        .where(delivery.c.state == DeliveryState.PENDING, carried)
        .order_by(delivery.c.id)
        .with_for_update(key_share=True, of=delivery)
    )
    rows = connection.execute(query).all()
    for row in rows:
        hold_back(connection, row, _description(name, state, actor), actor, now)
    return len(rows)


def _cancel_notifications(connection: Connection, name: str, state: ModelState, actor: str, now: datetime) -> int:
    """Withdraw notifications that have not left and that no other model in delivery stands for."""
    notification = NotificationRow.__table__
    stands = _stands(notification.c.study_id, notification.c.reason)
    query = (
        select(notification)
        .where(
            notification.c.state.in_((NotificationState.PENDING, NotificationState.FAILED)),
            stands.where(Finding.model == name).exists(),
            ~stands.where(Finding.model.not_in(_out_of_delivery(connection))).exists(),
        )
        .order_by(notification.c.id)
        .with_for_update(key_share=True)
    )
    rows = connection.execute(query).all()
    cause = f"the model {name} was {_DONE[state]} by {actor}"
    for row in rows:
        after = NotificationState.WITHDRAWN
        move(connection, "notification", row, after, cause=cause, actor=actor, now=now, **ENDED)
    return len(rows)


def is_reported_by_a_model(connection: Connection, study_id: int, label: str) -> bool:
    """Whether a valid finding of a study comes from a model whose findings are delivered."""
    stands = _stands(study_id, label).where(Finding.model.not_in(_out_of_delivery(connection)))
    return connection.execute(stands.limit(1)).first() is not None


def _stands(study_id: Any, label: Any) -> Any:
    """Findings that hold, of one label of one study; both may be values or columns."""
    return select(Finding.id).where(
        Finding.study_id == study_id,
        Finding.label == label,
        Finding.present.is_(True),
        Finding.shadow.is_(False),
        Finding.superseded.is_(False),
    )


def _out_of_delivery(connection: Connection) -> list[str]:
    """Models that a person has taken out of delivery."""
    return [name for name, switch in _latest(connection).items() if switch.state is not ModelState.ACTIVE]


def hold_back(connection: Connection, row: Any, reason: str, actor: str, now: datetime) -> None:
    """Move one locked pending delivery to held, for a reason that releasing its study does not lift."""
    values: dict[str, Any] = {**ENDED, "on_hold_with_study": False}
    after, before = DeliveryState.ON_HOLD, DeliveryState.PENDING
    move(connection, "delivery", row, after, cause=reason, actor=actor, now=now, before=before, error=reason, **values)


def _description(name: str, state: ModelState, actor: str) -> str:
    return (
        f"the model {name} was {_DONE[state]} by {actor} after this was made; run the job again without it, "
        "or activate the model and re-send"
    )
