"""Associations per destination, counted over all machines, and the circuit breaker of those that do not answer.

A destination that hangs takes its own share of the workers and no more. One that did not answer is called by one worker
at a time, after a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from db.deliveries import waiting_for
from db.engine import writing
from db.leases import starts_with
from db.tables import Delivery, Destination, DestinationLease


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
            row = connection.execute(
                select(Destination.__table__)
                .join(Delivery, Delivery.destination == Destination.name)
                .where(Delivery.id == delivery_id)
                .with_for_update(key_share=True, of=Destination.__table__)
            ).one_or_none()
            if row is None or (row.open_until is not None and now < row.open_until):
                return None
            limit = 1 if row.failures else limits.get(row.name, 1)
            if _in_contact(connection, row.name, worker, now) >= limit:
                return None
            values = {"worker": worker, "destination": row.name, "lease_until": now + lease}
            connection.execute(delete(DestinationLease).where(DestinationLease.worker == worker))
            connection.execute(insert(DestinationLease).values(**values))
            return Lease(row.name, row.failures)

    def release(self, worker: str) -> None:
        """The worker's association is closed."""
        with self._writer.begin() as connection:
            connection.execute(delete(DestinationLease).where(DestinationLease.worker == worker))

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
    query = select(func.count()).where(
        DestinationLease.destination == destination,
        DestinationLease.lease_until > now,
        DestinationLease.worker != worker,
    )
    return connection.scalar(query) or 0
