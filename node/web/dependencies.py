"""The services that the handlers of the admin page use, made once by :func:`node.web.app.create_app`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from jinja2 import Environment
from sqlalchemy import Engine

from config.settings import Destination, Settings
from db.audit import AuditTrail
from db.database import Database
from db.feedback import Feedback
from db.queries.statistics import Statistics
from db.queries.worklist import ReadingList
from db.study_status import Reporting
from db.users import Accounts
from node.monitoring.drift import Counts
from node.web.event_stream import EventStream
from node.web.rendering import Radiographs
from node.web.trials import Trials


class TaskQueue(Protocol):
    """Wakes the workers. A lost message only costs time: the scheduler enqueues again."""

    def enqueue_jobs(self, jobs: Sequence[tuple[int, bool]]) -> bool:
        """Enqueue jobs: row number, and whether the job is STAT."""
        ...

    def enqueue_deliveries(self, delivery_ids: Sequence[int]) -> bool:
        """Enqueue deliveries."""
        ...


@dataclass(frozen=True)
class Services:
    """Everything that a handler may use. ``echo`` returns a problem as text, or None if the peer answers."""

    settings: Settings
    engine: Engine
    database: Database
    accounts: Accounts
    audit: AuditTrail
    reading: ReadingList
    reporting: Reporting
    feedback: Feedback
    statistics: Statistics
    counts: Counts
    task_queue: TaskQueue
    templates: Environment
    event_stream: EventStream
    radiographs: Radiographs
    trials: Trials
    echo: Callable[[Destination], str | None]
    clock: Callable[[], datetime]
