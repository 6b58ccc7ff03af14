"""The services that the handlers of the admin page use, made once by :func:`node.web.app.create_services`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from config.destinations import Destination
from config.settings import Settings
from db.audit import AuditTrail
from db.database import Database
from db.queries.statistics import Remembered, Statistics
from db.queries.system import Growth
from db.queries.worklist import Worklist
from db.users import Accounts
from node.monitoring.drift import Counts
from node.monitoring.metrics import NodeMetrics
from node.monitoring.parts import PartsWatch
from node.monitoring.queue_health import UnservedQueue
from node.monitoring.readiness import Readiness
from node.web.event_stream import EventStream
from node.web.page_templates import PageTemplates
from node.web.recent_views import RecentViews
from node.web.rendering import Radiographs
from node.web.trend_cache import TrendCache
from node.web.trials import Trials
from workers.enqueue import TaskQueue
from workers.services.trial_delivery import TrialDelivery

if TYPE_CHECKING:
    from node.openid import Provider


@dataclass(frozen=True)
class Services:
    """Everything that a handler may use. ``echo`` returns a problem as text, or None if the peer answers; ``echoed``
    and ``tested`` keep the last result of each for each destination, until the process ends. ``reload`` reads the
    settings again, as a restart would. ``unserved``: the queues that no worker takes.
    ``openid`` is the provider of log-ins, where one is configured.
    """

    settings: Settings
    reload: Callable[[], Settings]
    engine: Engine
    database: Database
    accounts: Accounts
    audit: AuditTrail
    worklist: Worklist
    statistics: Statistics
    counts: Counts
    metrics: NodeMetrics
    readiness: Readiness
    parts: PartsWatch
    growth: Remembered[Growth]
    unserved: Remembered[tuple[UnservedQueue, ...]]
    trends: TrendCache
    task_queue: TaskQueue
    templates: PageTemplates
    event_stream: EventStream
    radiographs: Radiographs
    trials: Trials
    echo: Callable[[Destination], str | None]
    send_test_object: Callable[[Destination], TrialDelivery]
    clock: Callable[[], datetime]
    openid: Provider | None = None
    echoed: dict[str, str | None] = field(default_factory=dict)
    tested: dict[str, TrialDelivery] = field(default_factory=dict)
    views: RecentViews = field(default_factory=RecentViews)
