"""In which queue a job waits for a worker, where a site has machines with a GPU and others without (``models.gpu``).

The models that run on an image decide: if one of them needs a GPU, its job waits in ``jobs.gpu``, else in ``jobs.cpu``.
A worker takes one of the two and runs every network on its device; it never takes a job of the other queue. Where
``models.gpu`` names nothing, all jobs wait in ``jobs``.
"""

from __future__ import annotations

from config.settings import Models, Settings
from db.records import Route
from db.states import JOBS, JOBS_CPU, JOBS_GPU
from models.pipeline import Pipeline
from models.runtime.executor import has_gpu
from workers.routing import models_that_run


class WrongQueueError(ValueError):
    """No job ever waits in a queue with this configuration."""


def analysis_queues(models: Models) -> tuple[str, ...]:
    """The queues in which jobs wait."""
    return (JOBS_CPU, JOBS_GPU) if models.gpu else (JOBS,)


def queues_here(models: Models) -> tuple[str, ...]:
    """The queues that ``pleura serve`` works off on this machine: ``jobs.gpu`` only where there is a GPU."""
    return tuple(queue for queue in analysis_queues(models) if queue != JOBS_GPU or has_gpu())


def queue_of(decision: Route | None, models: Models) -> str:
    """The queue of the job of an image, by what the routing rules have decided about it."""
    if not models.gpu:
        return JOBS
    if decision is not None and decision.excluded:
        return JOBS_CPU
    runs = models_that_run(decision, (*models.active, *models.shadow))
    return JOBS_GPU if set(models.gpu) & set(runs) else JOBS_CPU


def settings_of_worker(settings: Settings, queue: str) -> Settings:
    """The settings with the device on which the worker of an analysis queue runs every network.

    Raises:
        WrongQueueError: no job waits there.
    """
    queues = analysis_queues(settings.models)
    if queue not in queues:
        why = "models.gpu says which models need a GPU" if settings.models.gpu else "models.gpu names no model"
        raise WrongQueueError(f"no job waits in {queue}: {why}, so analysis workers take {' or '.join(queues)}")
    if queue == JOBS:
        return settings
    device = "gpu" if queue == JOBS_GPU else "cpu"
    return settings.model_copy(update={"workers": settings.workers.model_copy(update={"device": device})})


def queue_of_worker(settings: Settings) -> str:
    """The queue of a worker with these settings, which :func:`settings_of_worker` has made."""
    if not settings.models.gpu:
        return JOBS
    return JOBS_GPU if settings.workers.device == "gpu" else JOBS_CPU


def pipeline_of_worker(pipeline: Pipeline, settings: Settings) -> Pipeline:
    """What a worker with these settings has to load: that of ``jobs.cpu`` no model that needs a GPU."""
    if queue_of_worker(settings) != JOBS_CPU:
        return pipeline
    return pipeline.only([spec.name for spec in pipeline.models if spec.name not in settings.models.gpu])
