"""Associations per destination, counted over all machines, and the circuit breaker of those that do not answer.

A destination that hangs takes its own share of the workers and no more. One that did not answer is called by one worker
at a time, after a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, func, insert, select, update

from db.deliveries import waiting_for
from db.engine import writing
from db.instance_statements import values_of
from db.leases import starts_with
from db.prepared_statements import Prepared
from db.tables import Delivery, Destination, DestinationLease

_LEASE: Any = DestinationLease.__table__
_DESTINATION: Any = Destination.__table__

_OF_DELIVERY = Prepared(
    lambda _: (
        select(_DESTINATION)
        .join(Delivery, Delivery.destination == _DESTINATION.c.name)
        .where(Delivery.id == bindparam("delivery_id"))
        .with_for_update(key_share=True, of=_DESTINATION)
    )
)
_IN_CONTACT = Prepared(
    lambda _: select(func.count().label("number")).where(
        _LEASE.c.destination == bindparam("destination"),
        _LEASE.c.lease_until > bindparam("now", type_=_LEASE.c.lease_until.type),
        _LEASE.c.worker != bindparam("worker"),
    )
)
_RELEASE = Prepared(lambda _: delete(_LEASE).where(_LEASE.c.worker == bindparam("worker")))
_TAKE = Prepared(lambda _: insert(_LEASE).values(values_of(_LEASE, "worker", "destination", "lease_until")))


@dataclass(frozen=True, slots=True)
class Lease:
    """An association that a worker may open. ``failures``: calls in a row that the destination has not answered."""

    destination: str
    failures: int


class DestinationLeases:
    """The associations of a node with its destinations. Each method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)

    def acquire(
        self, delivery_id: int, limits: Mapping[str, int], worker: str, now: datetime, lease: timedelta
    ) -> Lease | None:
        """Let ``worker`` call the destination of a delivery until ``now + lease``.

        None: as many workers as ``limits`` allow are in contact with it, or it may not be called yet. After a call
        that it did not answer one worker at a time tries it, whatever the limit.
        """
        with self._writer.begin() as connection:
            row = _OF_DELIVERY.first(connection, {"delivery_id": delivery_id})
            if row is None or (row.open_until is not None and now < row.open_until):
                return None
            limit = 1 if row.failures else limits.get(row.name, 1)
            if _in_contact(connection, row.name, worker, now) >= limit:
                return None
            _RELEASE.run(connection, {"worker": worker})
            _TAKE.run(connection, {"worker": worker, "destination": row.name, "lease_until": now + lease})
            return Lease(row.name, row.failures)

    def release(self, worker: str) -> None:
        """The worker's association is closed."""
        with self._writer.begin() as connection:
            _RELEASE.run(connection, {"worker": worker})

    def release_workers(self, worker_prefix: str) -> None:
        """The associations of all workers whose name starts so are closed: they have died."""
        with self._writer.begin() as connection:
            connection.execute(delete(DestinationLease).where(starts_with(DestinationLease.worker, worker_prefix)))

    def record_answer(self, destination: str) -> None:
        """The destination has answered: it may be called as usual."""
        with self._writer.begin() as connection:
            connection.execute(
                update(Destination)
                .where(Destination.name == destination, Destination.failures > 0)
                .values(failures=0, open_until=None)
            )

    def record_no_answer(self, destination: str, until: datetime) -> None:
        """The destination has not answered: it is not called before ``until``."""
        with self._writer.begin() as connection:
            connection.execute(
                update(Destination)
                .where(Destination.name == destination)
                .values(failures=Destination.failures + 1, open_until=until)
            )

    def waiting(self, destination: str, now: datetime, limit: int = 50) -> tuple[int, ...]:
        """Deliveries that may be sent to the destination now, the oldest first."""
        with self._engine.connect() as connection:
            return waiting_for(connection, destination, now, limit)


def _in_contact(connection: Connection, destination: str, worker: str, now: datetime) -> int:
    """How many other workers are in contact with a destination; those whose lease is over have died."""
    found = _IN_CONTACT.first(connection, {"destination": destination, "worker": worker, "now": now})
    return int(found.number)
