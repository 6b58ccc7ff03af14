"""How the node is: queues, workers, pace, disk, destinations, models and what needs a person."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta

from starlette.exceptions import HTTPException
from starlette.responses import Response

from config.settings import Destination
from db.statistics import DestinationState, FinishedJob
from models.contract import ModelSpec
from models.manifest import ManifestError
from models.registry import UnknownModel, read_registry
from node.admin.charts import latencies, per_interval
from node.admin.shell import Visit
from node.health import check_broker, check_models, check_store


@dataclass(frozen=True, slots=True)
class ShownModel:
    """A model of this node: its manifest, whether it is in use, and what it has judged here."""

    spec: ModelSpec
    use: str
    findings: int
    positives: int
    has_card: bool


def show_system(visit: Visit) -> Response:
    """The system page."""
    services, now = visit.services, visit.now
    day = now - timedelta(hours=24)
    jobs = services.statistics.finished_jobs(day)
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
        models=_models(visit),
        failures=services.statistics.failures(),
        agreement=services.feedback.agreement(now),
        device=services.settings.workers.device,
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


def show_model(visit: Visit) -> Response:
    """The card of a model, as it was written."""
    name = str(visit.request.path_params["name"])
    shown = next((model for model in _models(visit) if model.spec.name == name), None)
    if shown is None:
        raise HTTPException(404)
    card = shown.spec.card
    text = card.read_text(encoding="utf-8") if card is not None and card.is_file() else ""
    return visit.page("model.html", model=shown, card=text)


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


def _models(visit: Visit) -> list[ShownModel]:
    """Every model that could run; none where a manifest is wrong, which the checks above tell."""
    settings = visit.services.settings.models
    try:
        specs = read_registry(settings.folder, verify=False).specs
    except (ManifestError, UnknownModel, OSError):
        return []
    counted = {row.name: (row.findings, row.positives) for row in visit.services.statistics.models()}
    uses = dict.fromkeys(settings.active, "active") | dict.fromkeys(settings.shadow, "shadow")
    uses[settings.gate] = "gate"
    return [
        ShownModel(
            spec,
            uses.get(spec.name, "off"),
            *counted.get(spec.name, (0, 0)),
            has_card=spec.card is not None and spec.card.is_file(),
        )
        for spec in specs
    ]


def _existing(visit: Visit) -> str:
    folder = visit.services.settings.store.folder.absolute()
    return str(next(parent for parent in (folder, *folder.parents) if parent.exists()))
