"""The worker: the Celery application ``app`` and its two tasks, around :mod:`workers.analysis` and delivery.

``celery -A workers.celery worker -Q jobs`` starts one, as ``pleura worker --queue jobs`` does; Celery's own tools
(``celery inspect``, Flower, exporters) find the application by the same name. The settings are the node's: from
``PLEURA_CONFIG`` and the environment, or from :func:`run_worker`.

A worker is a parent that talks to the broker and children that work. Networks are loaded in the child, after the
fork: CUDA does not survive a fork, and only a child can be stopped by a time limit, or lost to a crash in native code,
without taking the worker with it. The parent opens no database and loads no network.

Each child claims work under a name of its own that begins with its place (host, queue, slot, index). A place is held
by one living child at a time, so the next child at the same place gives back what its predecessor still held.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from celery import Celery, bootsteps
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import (
    celeryd_after_setup,
    celeryd_init,
    setup_logging,
    worker_process_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from celery.utils.log import current_process_index
from celery.worker.consumer import Consumer
from celery.worker.control import inspect_command
from redis.exceptions import ResponseError

import models.own_packages  # noqa: F401 - Celery searches the working folder first: names a foreign config.py there

# isort: split
from config import logging as node_logging
from config.garbage_collection import keep_what_is_loaded
from config.private_files import keep_private, share_with_group
from config.settings import Settings, SettingsError, load
from db.ending import OF_THIS_PROCESS
from db.states import JOBS
from workers import siblings  # noqa: F401 - its memory must be there before the fork
from workers.analysis_queues import WrongQueueError, analysis_queues, settings_of_worker
from workers.audit.activity import started, stopped
from workers.delivery_worker import maximum_contact_time
from workers.enqueue import ANALYSE, DELIVER, DELIVERIES, READY, message_settings
from workers.memory_limit import limit_memory
from workers.worker_id import WorkerId, host_name, take_slot, warnings_beside, worker_id_of

log = logging.getLogger(__name__)

Handler = Callable[[int], None]
"""What a child does with a row id."""

Compose = Callable[[Settings, WorkerId], Handler]
"""Makes a child's handler: connects, loads, warms up. Called once, in the child."""

_CORES_FOR_TWO = 2
_STARTING_SECONDS = 600
_STOP_WHILE_STARTING_SECONDS = 20.0
_MARGIN_SECONDS = 30.0
_REST_SECONDS = 5.0
_READY, _FAILED, _MISCONFIGURED = b"\1", b"\2", b"\3"  # what a child tells its parent
_LOOK_SECONDS = 0.5
_EXIT_CODES = {_FAILED: os.EX_UNAVAILABLE, _MISCONFIGURED: os.EX_CONFIG}


class WorkerError(RuntimeError):
    """The worker could not work; the log says why. ``code`` is the exit code: EX_CONFIG if no other try can help."""

    def __init__(self, message: str, code: int = os.EX_UNAVAILABLE) -> None:
        super().__init__(message)
        self.code = code


app = Celery("pleura")
"""The application of a node's workers. Its settings are read when they are first needed."""


@app.task(name=ANALYSE)  # type: ignore[untyped-decorator]
def analyse(job_id: int) -> None:
    """Analyse the image of a job."""
    _process.handle(job_id)


@app.task(name=DELIVER)  # type: ignore[untyped-decorator]
def deliver(delivery_id: int) -> None:
    """Send a delivery to its destination, or ask for its verification."""
    _process.handle(delivery_id)


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's settings of a worker: late acknowledgement, one message at a time, limits that kill.

    ``worker_concurrency`` depends on the queue (:func:`processes`), so a worker sets it when it starts.
    """
    limits = {ANALYSE: time_limit(settings, JOBS), DELIVER: time_limit(settings, DELIVERIES)}
    return message_settings(settings.broker_url) | {
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "worker_consumer": f"{__name__}:{RestingConsumer.__name__}",
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_reject_on_worker_lost": True,
        "task_annotations": {name: {"time_limit": limit} for name, limit in limits.items()},
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_proc_alive_timeout": _STARTING_SECONDS,
        "worker_pool": "prefork",
        "worker_pool_start_method": "fork",
        "worker_redirect_stdouts": False,
        "worker_send_task_events": True,
    }


class RestingConsumer(Consumer):  # type: ignore[misc]
    """Rests before the next connection where the broker answers and takes nothing: it has become a replica, or is full.

    With Celery's own settings a worker ends of that (``READONLY``, ``OOM``, ``UNBLOCKED``), with what its children are
    doing; with ``broker_channel_error_retry`` alone it would ask again at once, and without end.
    """

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close the connection; the next one may lead to another server, where a name has moved."""
        super().on_connection_error_after_connected(exc)
        if isinstance(exc, ResponseError):
            time.sleep(_REST_SECONDS)


def time_limit(settings: Settings, queue: str) -> float:
    """Seconds after which a task is stopped together with its process."""
    if queue != DELIVERIES:
        return settings.workers.job_timeout_seconds
    return maximum_contact_time(settings).total_seconds() + _MARGIN_SECONDS


def processes(settings: Settings, queue: str) -> int:
    """Two children for the networks, where they share CPUs (one reads, encodes and records while the other predicts),
    or one; for deliveries so many for each destination as it takes associations.

    So a destination that hangs holds those that are there for it, and no other.
    """
    if queue != DELIVERIES:
        return settings.workers.processes or _analysing(
            settings_of_worker(settings, queue), len(os.sched_getaffinity(0))
        )
    return max(1, sum(each.associations for each in settings.destinations))


def _analysing(settings: Settings, cores: int) -> int:
    from models.runtime.executor import has_gpu

    on_gpu = settings.workers.device == "gpu" or (settings.workers.device == "auto" and has_gpu())
    return 1 if on_gpu or cores < _CORES_FOR_TWO else 2


def run_worker(settings: Settings, queue: str, *, compose: Compose | None = None) -> None:
    """Work off ``queue`` ("deliveries", or one in which jobs wait) until SIGTERM; what runs then is finished first.

    ``compose`` replaces the real models and destinations, in tests.

    Raises:
        WorkerError: nothing waits in this queue, or a child could not be set up (no database, a model that does not
            load); the log says why.
    """
    _process.settings, _process.compose = settings, compose
    try:
        slot = _process.take(queue)
    except WrongQueueError as error:
        raise WorkerError(str(error), os.EX_CONFIG) from error
    worker = app.Worker(
        hostname=f"{queue}{slot}@{host_name()}",
        queues=[queue],
        # They let workers find each other, which costs a second at the start; ours need nothing of each other.
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    if worker.exitcode:
        raise WorkerError(f"the {queue} worker has ended ({worker.exitcode}); the log says why", worker.exitcode)


def _composer(queue: str) -> Compose:
    """The real composition; it is imported in the child, with all that it carries."""
    from workers.composition import analysis_handler, delivery_handler

    return delivery_handler if queue == DELIVERIES else analysis_handler


def _is_misconfigured(error: Exception) -> bool:
    """Whether an error lasts until the configuration is changed. Its classes are known to the child alone."""
    from models.manifest import ManifestError
    from models.model_registry import UnknownModel
    from models.runtime.executor import ModelLoadError, ModelMemoryError

    return isinstance(error, (ManifestError, UnknownModel, ModelLoadError)) and not isinstance(error, ModelMemoryError)


@dataclass
class _WorkerProcess:
    """What this process is, if it is a worker: a parent with its place, and after the fork a child with its handler."""

    settings: Settings | None = None
    compose: Compose | None = None
    queue: str = ""
    slot: int = 0
    lock: IO[str] | None = None
    shared_state: mmap.mmap | None = None
    handler: Handler | None = None
    ready: bool = False

    def known_settings(self) -> Settings:
        """The settings that :func:`run_worker` was given, or those of the environment."""
        if self.settings is None:
            self.settings = load()
        return self.settings

    def settings_for(self, queue: str) -> Settings:
        """The same, with the device that the queue demands.

        Raises:
            WrongQueueError: with this configuration nothing ever waits there.
        """
        known = self.known_settings()
        return known if queue == DELIVERIES else settings_of_worker(known, queue)

    def take(self, queue: str) -> int:
        """Take a place in ``queue``, once, until this process ends; the slot.

        Raises:
            WrongQueueError: with this configuration nothing ever waits there.
        """
        if self.lock is None:
            settings = self.settings_for(queue)
            folder, device = settings.store.folder, settings.workers.device if queue != DELIVERIES else ""
            folder.mkdir(parents=True, exist_ok=True)
            self.queue, (self.slot, self.lock) = queue, take_slot(folder, queue, device=device)
            node_logging.keep_warnings(warnings_beside(self.lock))
            # Shared with the children: what they tell, and whether the worker is to end.
            self.shared_state = mmap.mmap(-1, len(_READY) + 1)
        return self.slot

    def start_child(self) -> None:
        """Set this child up. A child that cannot be set up stops the whole worker, so that it is noticed."""
        threading.Thread(target=self._watch_for_the_end, name="end of the worker", daemon=True).start()
        try:
            here = worker_id_of(self.queue, self.slot, current_process_index(base=0) or 0)
            compose = self.compose or _composer(self.queue)
            settings = self.settings_for(self.queue)
            self.handler = compose(settings, here)
            if self.queue != DELIVERIES:
                limit_memory(settings.workers.job_memory_bytes)  # its networks are loaded
            keep_what_is_loaded()
        except Exception as error:
            misconfigured = _is_misconfigured(error)
            log.critical("the %s worker cannot be set up: %s", self.queue, error, exc_info=not misconfigured)
            self._set_state(_MISCONFIGURED if misconfigured else _FAILED)
            # The parent ends in good order; its process is looked after by `pleura serve` or the container engine.
            os.kill(os.getppid(), signal.SIGTERM)
        else:
            self._set_state(_READY)

    @property
    def state(self) -> bytes:
        """What the children have told: a failure counts more than that others are ready."""
        return b"" if self.shared_state is None else self.shared_state[:1]

    def _set_state(self, state: bytes) -> None:
        assert self.shared_state is not None
        self.shared_state[:1] = max(state, self.shared_state[:1])

    def end(self) -> None:
        """The worker is to end: tell the children."""
        OF_THIS_PROCESS.begin()
        if self.shared_state is not None:
            self.shared_state[1:] = b"\1"

    def _watch_for_the_end(self) -> None:
        """End this child where the worker is to end before it is set up: it has no work, and the pool waits for it.

        It may wait for a database that hangs, or load networks on a busy machine, for longer than its worker is given
        to end. One that works is to wait for its database for less time.
        """
        assert self.shared_state is not None
        while not self.shared_state[1]:
            time.sleep(_LOOK_SECONDS)
        if self.handler is None:
            os._exit(os.EX_OK)
        OF_THIS_PROCESS.begin()

    def handle(self, row_id: int) -> None:
        """Work on one row.

        Raises:
            WorkerError: this process is not the child of a worker, or could not be set up.
        """
        if self.handler is None:
            raise WorkerError("this process was never set up; the pool must be prefork")
        self.handler(row_id)


_process = _WorkerProcess()


def _settings_of_node() -> dict[str, Any]:
    try:
        return celery_settings(_process.known_settings())
    except SettingsError as error:
        raise SystemExit(f"pleura: {error}") from error


app.add_defaults(_settings_of_node)


class _LeaveUnacknowledged(bootsteps.StartStopStep):  # type: ignore[misc]
    """Put nothing back when a connection is closed: the scheduler finds in the database what a worker has lost.

    Where the broker has died while a task runs, kombu would try it on the connection that is broken, and then dump the
    message to a file (https://github.com/celery/kombu/issues/582 is of the same kind).
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """At each new connection; its default channel is the one that takes messages."""
        consumer.connection.default_channel.do_restore = False


app.steps["consumer"].add(_LeaveUnacknowledged)


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _become_worker(conf: Any, options: dict[str, Any], **_signal: Any) -> None:
    """Take a place for the queue that ``-Q`` names, and as many children as the queue is to have."""
    queues = (*analysis_queues(_process.known_settings().models), DELIVERIES)
    queue = _only_queue(queues, options.get("queues"), options.get("exclude_queues"))
    keep_private()
    share_with_group(_process.known_settings().store.folder)
    _process.take(queue)
    if not options.get("concurrency"):
        conf.worker_concurrency = processes(_process.known_settings(), queue)
    started(_process.known_settings(), f"{queue} worker")


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _warn_of_no_choice(**_signal: Any) -> None:
    """At each lost connection Celery warns that it does not kill running tasks; that is meant so."""
    warnings.simplefilter("ignore", CPendingDeprecationWarning)


def _only_queue(queues: Sequence[str], chosen: Iterable[str] | str | None, excluded: Iterable[str] | str | None) -> str:
    """The one queue of a worker, of those that this node has: its children are made for it."""
    left = (_names(chosen) or set(queues)) - _names(excluded)
    if len(left) != 1 or not left <= set(queues):
        raise SystemExit(f"pleura: a worker works off one queue: {' or '.join(f'-Q {name}' for name in queues)}")
    return left.pop()


def _names(queues: Iterable[str] | str | None) -> set[str]:
    return set(queues.split(",")) if isinstance(queues, str) else set(queues or ())


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _become_child(**_signal: Any) -> None:
    _process.start_child()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _say_that_it_failed(sender: Any, **_signal: Any) -> None:
    """A worker whose child could not be set up ends with an error, however it was stopped."""
    sender.exitcode = _EXIT_CODES.get(_process.state, sender.exitcode)
    stopped(_process.known_settings(), f"{_process.queue} worker")


@worker_ready.connect  # type: ignore[untyped-decorator]
def _note_that_it_takes_messages(**_signal: Any) -> None:
    _process.ready = True


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _end_though_it_starts(**_signal: Any) -> None:
    """Tell the children; and end a worker that is stopped before it takes messages: it has none, and may never come to
    look at the signal.

    Where the broker ends just then, Celery tries without end to tell it that the worker is online
    (``celery.worker.heartbeat.Heart``), and looks for no signal between.
    """
    _process.end()
    if not _process.ready:
        end = threading.Timer(_STOP_WHILE_STARTING_SECONDS, lambda: os._exit(_EXIT_CODES.get(_process.state, 0)))
        end.daemon = True
        end.start()


@inspect_command(name=READY)  # type: ignore[untyped-decorator]
def _is_ready(_state: Any) -> bool:
    """Whether a child is set up: its networks are loaded, its database answers."""
    return _process.state == _READY


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log_as_the_node_does(**_signal: Any) -> None:
    """With a receiver here, Celery leaves logging alone."""
    node_logging.configure(_process.known_settings().logs)
