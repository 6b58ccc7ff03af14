"""Plain questions that tests ask a database; the product asks them in another way, or not at all."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from db.tables import Delivery, Job, Result


def queue_counts(connection: Connection) -> dict[str, int]:
    """Count jobs and deliveries by state: ``jobs.queued``, ``deliveries.failed`` …; states without any are left out."""
    counts: dict[str, int] = {}
    for name, state in (("jobs", Job.state), ("deliveries", Delivery.state)):
        for value, number in connection.execute(select(state, func.count()).group_by(state)):
            counts[f"{name}.{value.value}"] = number
    return counts


def deliveries_of_job(connection: Connection, job_id: int) -> tuple[int, ...]:
    """Deliveries of all results of a job, oldest first."""
    query = select(Delivery.id).join(Result, Result.id == Delivery.result_id).where(Result.job_id == job_id)
    return tuple(connection.scalars(query.order_by(Delivery.id)))
