"""The worker processes: Celery around :mod:`workers.analysis` and :mod:`workers.delivery`.

A worker is a parent that talks to the broker and children that work. Networks are loaded in the child, after the
fork: CUDA does not survive a fork, and only a child can be stopped by a time limit, or lost to a crash in native code,
without taking the worker with it. The parent opens no database and loads no network.

Each child claims work under a name of its own that begins with its place (host, queue, slot, index). A place is held
by one living child at a time, so the next child at the same place gives back what its predecessor still held.
"""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable
from typing import Any

import billiard
import billiard.pool
from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import setup_logging, worker_process_init

from config.settings import Settings
from workers.delivery_worker import longest_stay
from workers.enqueue import ANALYSE, DELIVER, DELIVERIES, JOBS, celery_app
from workers.worker_id import WorkerId, host_name, take_slot, worker_id_of

log = logging.getLogger(__name__)

Handler = Callable[[int], None]
"""What a child does with a row id."""

Compose = Callable[[Settings, WorkerId], Handler]
"""Makes a child's handler: connects, loads, warms up. Called once, in the child."""

_STARTING_SECONDS = 600
_MARGIN_SECONDS = 30.0
_LAST_WORDS_RETRIES = 10  # of 0.1 s


class WorkerError(RuntimeError):
    """The worker could not work; the log says why."""


def run_worker(settings: Settings, queue: str, *, compose: Compose | None = None) -> None:
    """Work off ``queue`` ("jobs" or "deliveries") until SIGTERM; what runs then is finished first.

    ``compose`` replaces the real models and destinations, in tests.

    Raises:
        WorkerError: a child could not be set up (no database, a model that does not load); the log says why.
    """
    # Celery warns at each lost connection that it does not kill running jobs; that is meant so.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    # A child that ends waits until its parent has read every answer, 30 s if the parent has stopped reading. Our tasks
    # answer nothing and the database knows what was done, so a stop need not take that long.
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = _LAST_WORDS_RETRIES
    settings.store.folder.mkdir(parents=True, exist_ok=True)
    slot, lock = take_slot(settings.store.folder, queue)
    with lock:
        failed = billiard.Value("b", 0)
        app = worker_app(settings, queue)
        child = _Child(settings, queue, slot, compose or _composer(queue), failed)
        _register(app, queue, child)
        worker = app.Worker(
            hostname=f"{queue}{slot}@{host_name()}",
            queues=[queue],
            pool="prefork",
            concurrency=processes(settings, queue),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        worker.start()
        if failed.value:
            raise WorkerError(f"the {queue} worker could not be set up; the log says why")
        if worker.exitcode:
            raise WorkerError(f"the {queue} worker ended with exit code {worker.exitcode}")


def worker_app(settings: Settings, queue: str) -> Celery:
    """The Celery application of a worker: late acknowledgement, one message at a time, a limit that kills."""
    limit = time_limit(settings, queue)
    app = celery_app(settings.broker_url, visibility_seconds=max(3600.0, 4 * limit))
    app.conf.update(
        task_default_queue=queue,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,
        task_reject_on_worker_lost=True,
        task_time_limit=limit,
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_proc_alive_timeout=_STARTING_SECONDS,
        worker_pool_start_method="fork",
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
    )
    return app


def time_limit(settings: Settings, queue: str) -> float:
    """Seconds after which a task is stopped together with its process."""
    if queue == JOBS:
        return settings.workers.job_seconds
    return longest_stay(settings).total_seconds() + _MARGIN_SECONDS


def processes(settings: Settings, queue: str) -> int:
    """One child for the networks; for deliveries so many for each destination as it takes associations.

    So a destination that hangs holds those that are there for it, and no other.
    """
    return 1 if queue == JOBS else max(1, sum(each.associations for each in settings.destinations))


class _Child:
    """What a child process holds after the fork."""

    def __init__(self, settings: Settings, queue: str, slot: int, compose: Compose, failed: Any) -> None:
        self._settings = settings
        self._queue = queue
        self._slot = slot
        self._compose = compose
        self._failed = failed
        self._handler: Handler | None = None

    def start(self, **_signal: Any) -> None:
        """Set this child up. A child that cannot be set up stops the whole worker, so that somebody notices."""
        try:
            here = worker_id_of(self._queue, self._slot, getattr(billiard.current_process(), "index", 0))
            self._handler = self._compose(self._settings, here)
        except Exception:
            log.critical("the %s worker cannot be set up", self._queue, exc_info=True)
            self._failed.value = 1
            # The parent ends in good order; its process is looked after by `pleura serve` or the container engine.
            os.kill(os.getppid(), signal.SIGTERM)

    def handle(self, row_id: int) -> None:
        """Work on one row."""
        if self._handler is None:
            raise WorkerError("this process was never set up")
        self._handler(row_id)


def _register(app: Celery, queue: str, child: _Child) -> None:
    """Give the application its one task, and its children their set-up."""
    app.task(child.handle, name=ANALYSE if queue == JOBS else DELIVER, shared=False)
    worker_process_init.connect(child.start, weak=False)
    # Logging is the composition root's; with a receiver here Celery leaves it alone.
    setup_logging.connect(_keep_logging, weak=False)


def _keep_logging(**_signal: Any) -> None:
    """Leave logging as it is."""


def _composer(queue: str) -> Compose:
    """The real composition; it is imported in the child, with all that it carries."""
    if queue == JOBS:
        return _compose_jobs
    if queue == DELIVERIES:
        return _compose_deliveries
    raise WorkerError(f"there is no queue {queue!r}: use {JOBS!r} or {DELIVERIES!r}")


def _compose_jobs(settings: Settings, here: WorkerId) -> Handler:
    from workers.composition import analysis_handler

    return analysis_handler(settings, here)


def _compose_deliveries(settings: Settings, here: WorkerId) -> Handler:
    from workers.composition import delivery_handler

    return delivery_handler(settings, here)
