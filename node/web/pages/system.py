"""How the node is: queues, workers, pace, disk, destinations, models and what needs a person."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import timedelta

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from config.settings import Destination
from db.assessments import unmatched
from db.notifications import Notifications
from db.queries.statistics import DestinationState, Failure, FinishedJob
from node.monitoring.drift import watch
from node.monitoring.health import check_broker, check_models, check_store
from node.web.charts import latencies, per_interval
from node.web.dependencies import Services
from node.web.middleware import Visit
from node.web.pages.models import alike, image_trends, known_models, label_series, verdict_totals
from workers.notifications.channels import enabled_channels


def show_system(visit: Visit) -> Response:
    """The system page."""
    return _page(visit)


def _page(visit: Visit, called: Destination | None = None, problem: str | None = None) -> Response:
    """The system page; with ``called`` it tells how a C-ECHO went."""
    services, now = visit.services, visit.now
    day = now - timedelta(hours=24)
    jobs = services.statistics.finished_jobs(day)
    models, report = known_models(visit), watch(services.counts, now)
    disk = shutil.disk_usage(_existing(visit))
    return visit.page(
        "system.html",
        checks=[check_store(services.settings), check_broker(services.settings), check_models(services.settings)],
        queue=services.statistics.queue_counts(),
        oldest=services.statistics.oldest_queued(now),
        overdue=services.statistics.overdue(now),
        workers=services.statistics.workers(day),
        arrivals=per_interval(services.statistics.arrivals(day), now),
        latency=latencies(jobs, now),
        stages=mean_stages(jobs),
        disk=disk,
        destinations=_destinations(visit),
        models=models,
        failures=alike_failures(services.statistics.failures()),
        device=services.settings.workers.device,
        report=report,
        series=label_series(report, models),
        ended=sum(not job.failed for job in jobs),
        failed=sum(job.failed for job in jobs),
        totals=verdict_totals(report),
        trends=image_trends(report) if report.images else [],
        alarms=alarm_counts(services),
        assessments=unmatched(services.engine, 20),
        alike=alike,
        called=called,
        problem=problem,
    )


def send_alarms_again(visit: Visit) -> Response:
    """Try again what was parked in a channel of alarms; of studies that are reported nothing goes out."""
    name = str(visit.request.path_params["name"])
    if name not in enabled_channels(visit.services.settings):
        raise HTTPException(404)
    again = Notifications(visit.services.engine).requeue(name, visit.actor, visit.now)
    visit.audit("send alarms again", name, detail=f"{again} alarms")
    return RedirectResponse("/system#alarms", 303)


def call_destination(visit: Visit) -> Response:
    """C-ECHO to one destination, asked for by the page."""
    name = str(visit.request.path_params["name"])
    destination = visit.services.settings.destination(name)
    if destination is None:
        raise HTTPException(404)
    problem = visit.services.echo(destination)
    visit.audit("C-ECHO", name, detail=problem or "answers")
    return _page(visit, destination, problem)


def alarm_counts(services: Services) -> dict[str, dict[str, int]]:
    """How many alarms of each channel that is on are in each state."""
    return services.statistics.alarms(enabled_channels(services.settings))


def alike_failures(failures: Sequence[Failure]) -> list[tuple[Failure, list[int]]]:
    """Failures that are the same thing for a person (one study, one destination, one error) as one, with their rows."""
    found: dict[tuple[object, ...], tuple[Failure, list[int]]] = {}
    for one in failures:
        key = (one.entity, one.study_id, one.destination, one.state, one.error, one.attempts)
        found.setdefault(key, (one, []))[1].append(one.id)
    return list(found.values())


def mean_stages(jobs: tuple[FinishedJob, ...]) -> dict[str, float]:
    """Mean seconds a job has spent in each stage, in the order of the stages."""
    spent: dict[str, list[float]] = {}
    for job in jobs:
        for stage, seconds in job.timings.items():
            spent.setdefault(stage, []).append(seconds)
    return {stage: sum(seconds) / len(seconds) for stage, seconds in spent.items()}


def _destinations(visit: Visit) -> list[tuple[Destination, DestinationState]]:
    known = visit.services.statistics.destinations()
    return [
        (one, known.get(one.name, DestinationState(one.name, None, None, "", {})))
        for one in visit.services.settings.destinations
    ]


def _existing(visit: Visit) -> str:
    folder = visit.services.settings.store.folder.absolute()
    return str(next(parent for parent in (folder, *folder.parents) if parent.exists()))
