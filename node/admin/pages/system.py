"""How the node is: queues, workers, pace, disk, destinations, models and what needs a person."""

from __future__ import annotations

import shutil
from datetime import timedelta

from starlette.exceptions import HTTPException
from starlette.responses import Response

from config.settings import Destination
from db.assessments import unmatched
from db.statistics import DestinationState, FinishedJob
from node.admin.charts import latencies, per_interval
from node.admin.pages.models import alike, known_models, label_series, verdict_totals
from node.admin.shell import Visit
from node.health import check_broker, check_models, check_store
from node.watching.report import watch


def show_system(visit: Visit) -> Response:
    """The system page."""
    services, now = visit.services, visit.now
    day = now - timedelta(hours=24)
    jobs = services.statistics.finished_jobs(day)
    models, report = known_models(visit), watch(services.watching, now)
    disk = shutil.disk_usage(_existing(visit))
    return visit.page(
        "system.html",
        checks=[check_store(services.settings), check_broker(services.settings), check_models(services.settings)],
        queue=services.worklist.queue_counts(),
        oldest=services.statistics.oldest_queued(now),
        overdue=services.statistics.overdue(now),
        workers=services.statistics.workers(day),
        arrivals=per_interval(services.statistics.arrivals(day), now),
        latency=latencies(jobs, now),
        stages=mean_stages(jobs),
        disk=disk,
        destinations=_destinations(visit),
        models=models,
        failures=services.statistics.failures(),
        device=services.settings.workers.device,
        report=report,
        series=label_series(report, models),
        ended=sum(not job.failed for job in jobs),
        failed=sum(job.failed for job in jobs),
        totals=verdict_totals(report),
        assessments=unmatched(services.engine, 20),
        alike=alike,
    )


def call_destination(visit: Visit) -> Response:
    """C-ECHO to one destination, asked for by the page."""
    name = str(visit.request.path_params["name"])
    destination = next((one for one in visit.services.settings.destinations if one.name == name), None)
    if destination is None:
        raise HTTPException(404)
    problem = visit.services.echo(destination)
    visit.audit("C-ECHO", name, detail=problem or "answers")
    return visit.page("echo.html", destination=destination, problem=problem)


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
