"""The system page: queues, workers, latency, disk, destinations, models and failures that need attention."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from config.destinations import Destination
from config.reference import Difference, differences, effective_toml
from config.settings import SettingsError
from db import notifications
from db.assessments import unmatched
from db.queries.metrics import Waiting, waiting
from db.queries.problems import Selection, problems
from db.queries.statistics import DestinationState, FinishedJob, RunningWorker
from db.queries.system import DeliveryPace, DeliveryQueue, database_server, delivery_paces, delivery_queue
from db.rejected_associations import KEPT, RejectedAssociation, latest
from db.user_tables import Role
from node.dicom.association_policy import Advice, AssociationPolicy
from node.monitoring.broker_health import broker_facts, check_broker
from node.monitoring.certificates import check_certificates
from node.monitoring.check import with_effect
from node.monitoring.disk import days_left
from node.monitoring.drift import drift_report
from node.monitoring.health import check_models, check_store
from node.monitoring.parts import PartStatus, part_statuses
from node.monitoring.queue_health import check_queues, unserved_here
from node.monitoring.recent_warnings import recent_warnings
from node.web.charts import job_stages, quantile
from node.web.dependencies import Services
from node.web.middleware import RequestContext, whole_number
from node.web.pages.models import image_trends, kappa_category, known_models, label_series, verdict_totals
from node.web.trend_charts import shown_trends
from workers.analysis_queues import analysis_queues
from workers.notifications.channels import enabled_channels
from workers.worker_id import host_name

_DAY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings in force as TOML, secrets masked, and what a restart would change, or why it would fail."""

    toml: str
    waiting: tuple[Difference, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """A destination of the configuration, how it stands with it, and what went there in the last 24 hours."""

    destination: Destination
    state: DestinationState
    pace: DeliveryPace
    queue: DeliveryQueue

    @property
    def median(self) -> float:
        """Seconds from result to acceptance, of half of the objects at most."""
        return quantile(self.pace.seconds, 0.5)

    @property
    def p95(self) -> float:
        """Seconds from result to acceptance, of 95 % of the objects at most."""
        return quantile(self.pace.seconds, 0.95)


def show_system(context: RequestContext) -> Response:
    """The system page, or only what changes by the second (``part=live``).

    With ``echo`` it shows the result of the last C-ECHO to a destination, with ``tested`` that of its test object.
    """
    if context.query("part") == "live":
        return context.page("system_live.html", **_live(context))
    services, now = context.services, context.now
    called = services.settings.destination(context.query("echo"))
    called = called if called is not None and called.name in services.echoed else None
    models, report = known_models(context), drift_report(services.counts, now)
    return context.page(
        "system.html",
        **_live(context),
        models_check=check_models(services.settings),
        trend=shown_trends(context),
        stages=_stages(context),
        models=models,
        retried=whole_number(context.query("retried")),
        report=report,
        series=label_series(report, models),
        totals=verdict_totals(report),
        trends=image_trends(report) if report.images else [],
        notifications=notification_counts(services),
        assessments=unmatched(services.engine, 20),
        kappa_category=kappa_category,
        called=called,
        problem=services.echoed[called.name] if called is not None else None,
        tested=services.tested.get(context.query("tested")),
        configuration=_configuration(services) if context.who.role is Role.ADMIN else None,
        warnings=recent_warnings(services.settings.store.folder, now) if context.who.role is Role.ADMIN else None,
    )


def _live(context: RequestContext) -> dict[str, Any]:
    """What the page asks for again while it is open."""
    services, now, settings = context.services, context.now, context.services.settings
    disk, stored = shutil.disk_usage(_existing(context)), services.growth.get()
    workers = services.statistics.workers(now - _DAY)
    queues = services.database.read(waiting, analysis_queues(settings.models))
    return {
        "checks": [
            *(check_store(settings), with_effect(check_broker(settings))),
            *check_certificates(settings, now),
            *map(with_effect, check_queues(unserved_here(settings, queues, now))),
        ],
        "queue": services.statistics.queue_counts(),
        "oldest": services.statistics.oldest_queued(now),
        "overdue": services.statistics.overdue(now),
        "workers": workers,
        "statuses": _statuses(context, workers, queues),
        "this_version": version("pleura"),
        "watched_since": services.parts.since,
        "disk": disk,
        "growth": stored,
        "keep_days": settings.store.keep_days,
        "days_left": days_left(disk.free - settings.store.minimum_free_bytes, stored, settings.store.keep_days),
        "destinations": _destinations(context),
        "problems": services.database.read(problems),
        "known_destinations": {one.name: one for one in settings.destinations},
        "rejected": _rejected(context),
        "device": settings.workers.device,
    }


def _statuses(
    context: RequestContext, workers: tuple[RunningWorker, ...], queues: Mapping[str, Waiting]
) -> tuple[PartStatus, ...]:
    """Every process of the node, then broker, database and this page itself."""
    services = context.services
    running = services.parts.look()
    processes = part_statuses(services.readiness.parts, running, services.parts.last_seen(), queues, workers)
    facts, server = broker_facts(services.settings), services.database.read(database_server)
    started = context.now - timedelta(seconds=facts.seconds) if facts and facts.seconds is not None else None
    if facts is not None:
        services.parts.saw("broker")
    return (
        *processes,
        PartStatus(
            "broker",
            facts is not None,
            version=facts.version if facts else "",
            since=started,
            last_seen_at=services.parts.last_seen().get("broker"),
        ),
        PartStatus("database", True, version=server.version, since=server.started_at),
        PartStatus("admin", True, f"{host_name()}-admin-0", os.getpid(), version("pleura"), services.parts.since),
    )


def send_notifications_again(context: RequestContext) -> Response:
    """Retry the failed notifications of a channel; notifications on reported studies are not sent."""
    name = str(context.request.path_params["name"])
    if name not in enabled_channels(context.services.settings):
        raise HTTPException(404)
    again = context.services.database.write(notifications.requeue, name, context.actor, context.now)
    context.audit("retry notifications", name, detail=f"{again} notifications")
    return RedirectResponse("/system#notifications", 303)


def retry_problem(context: RequestContext) -> Response:
    """Run again and send now all that fails for one cause."""
    entity, destination, cause = (context.field(name) for name in ("entity", "destination", "cause"))
    if entity not in ("job", "delivery") or not cause:
        raise HTTPException(400, "name the problem: entity, destination and cause")
    done = context.actions.retry_all(Selection(entity, destination, cause))
    return RedirectResponse(f"/system?retried={done.jobs + done.deliveries}#problems", 303)


def call_destination(context: RequestContext) -> Response:
    """Send a C-ECHO to one destination; the system page shows the result, also when it is loaded again."""
    name = str(context.request.path_params["name"])
    destination = context.services.settings.destination(name)
    if destination is None:
        raise HTTPException(404)
    problem = context.services.echo(destination)
    context.services.echoed[name] = problem
    context.audit("C-ECHO", name, detail=problem or "answers")
    return RedirectResponse("/system?" + urlencode({"echo": name}), 303)


def send_test_object(context: RequestContext) -> Response:
    """Send the test object of this day to one destination; the system page shows the outcome."""
    destination = context.services.settings.destination(str(context.request.path_params["name"]))
    if destination is None or not destination.takes_any_object:
        raise HTTPException(404)
    sent = context.services.send_test_object(destination)
    context.services.tested[destination.name] = sent
    detail = f"{'taken' if sent.taken else 'not taken'}: {sent.sop_instance_uid} {sent.note}".rstrip()
    context.audit("send test object", destination.name, detail=detail)
    return RedirectResponse("/system?" + urlencode({"tested": destination.name}), 303)


def notification_counts(services: Services) -> dict[str, dict[str, int]]:
    """Numbers of notifications by state, for each enabled channel."""
    return services.statistics.notifications(enabled_channels(services.settings))


def _stages(context: RequestContext) -> str:
    """Mean seconds of the latest jobs in each stage, as text."""
    written, jobs = context.formatting, context.services.statistics.finished_jobs(context.now - _DAY, limit=500)
    return ", ".join(f"{written.label(stage)} {written.seconds(mean)}" for stage, mean in mean_stages(jobs).items())


def mean_stages(jobs: tuple[FinishedJob, ...]) -> dict[str, float]:
    """Mean seconds of a job in each stage, in the order of the stages."""
    spent: dict[str, list[float]] = {}
    for job in jobs:
        for stage, seconds in job_stages(job.timings).items():
            spent.setdefault(stage, []).append(seconds)
    return {stage: sum(seconds) / len(seconds) for stage, seconds in spent.items()}


def _destinations(context: RequestContext) -> list[DestinationStatus]:
    services = context.services
    known = services.statistics.destinations()
    paces = services.database.read(delivery_paces, context.now - _DAY)
    return [
        DestinationStatus(
            one,
            known.get(one.name, DestinationState(one.name, None, None, "", {})),
            paces.get(one.name, DeliveryPace(0, 0, ())),
            services.database.read(delivery_queue, one.name),
        )
        for one in services.settings.destinations
    ]


def _configuration(services: Services) -> Configuration:
    """The settings of this process, compared with what a restart would read."""
    text = effective_toml(services.settings)
    try:
        return Configuration(text, differences(services.settings, services.reload()), "")
    except (SettingsError, OSError) as error:
        return Configuration(text, (), str(error))


def _rejected(context: RequestContext) -> list[tuple[RejectedAssociation, Advice]]:
    """Callers that were rejected lately, each with what would admit it."""
    policy = AssociationPolicy(context.services.settings.listener)
    callers = context.services.database.read(latest, context.now - KEPT)
    return [(one, policy.advice(one.calling_ae_title, one.called_ae_title, one.address, one.reason)) for one in callers]


def _existing(context: RequestContext) -> str:
    folder = context.services.settings.store.folder.absolute()
    return str(next(parent for parent in (folder, *folder.parents) if parent.exists()))
