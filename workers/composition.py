"""Composition root of workers and scheduler: from settings to connected parts and loaded networks.

Imported in the process that uses it, for it brings networks and encoders along.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path

from config.settings import Settings
from db import deliveries, jobs, scheduler_lease
from db.clock_correction import LongestWaits, pull_back
from db.database import Database
from db.destinations import DestinationLeases
from db.instances import ROUTINE_WAIT, STAT_WAIT
from db.leases import LEASE
from db.states import Priority
from models.predictor import BATCH, load_predictor
from models.runtime.executor import device_name
from workers.analysis_queues import pipeline_of_worker, queue_of_worker
from workers.analysis_tools import AnalysisTools
from workers.audit.feed import keeping_audit
from workers.backfill_schedule import start_schedule
from workers.clock import utc_now
from workers.clock_watch import ClockWatch
from workers.dead_workers import DeadWorkers, release_claims
from workers.delivery import DeliveryTools, deliver
from workers.delivery_worker import DeliveryWorkerTools, run_delivery
from workers.destinations.destination_kinds import destination_kinds
from workers.destinations.dimse import Dimse
from workers.enqueue import TaskQueue
from workers.erasing import start_erasing
from workers.heartbeat import Heartbeat, beating
from workers.job_handler import JobHandler
from workers.leadership import Leadership
from workers.model_state_resolver import ModelStateResolver
from workers.notifications.sending import notifying
from workers.open_database import database_of
from workers.pipeline_digest import activated_pipeline, active_pipeline, digest_of, rule_digests, run_otherwise
from workers.prior_search import start_prior_search
from workers.repeat import repeat_until
from workers.repeated_instances import difference
from workers.results.encoder import Equipment
from workers.results.encoders import ENCODERS, encode_in_order, load_encoders
from workers.results.source_image import SourceImage, read_source
from workers.retention import Retention
from workers.scheduler import Scheduler, enqueue_deliveries, enqueue_jobs
from workers.siblings import OF_THIS_WORKER, Siblings, have_cores_of_their_own
from workers.stale_objects import RejectionNotes
from workers.study_summary import Summariser
from workers.verification import LONGEST_WAIT_SECONDS, verification_tools, verify_storage
from workers.worker_id import WorkerId, at_place, claims_at

log = logging.getLogger(__name__)

# What a released claim leaves has never been enqueued, and is found whatever the quiet time.
_RELEASED = timedelta(days=365)


Load = Callable[[Settings], tuple[ModelStateResolver, str]]
"""Gives loaded networks, and the digest of the pipeline that the configuration makes of them."""


def load_active(settings: Settings) -> tuple[ModelStateResolver, str]:
    """Load and warm the models that a worker with these settings runs; with them the digest of its pipeline."""
    started = time.monotonic()
    pipeline = pipeline_of_worker(active_pipeline(settings, verify=True), settings)
    workers = settings.workers
    predictor = load_predictor(pipeline, device=workers.device, threads=workers.threads, batch=workers.batch or BATCH)
    seconds = time.monotonic() - started
    log.info("%d models loaded and warm in %.1f s, on %s", len(tuple(pipeline)), seconds, device_name(predictor.device))
    return ModelStateResolver(predictor, activated_pipeline(settings)), digest_of(pipeline, settings)


def analysis_handler(
    settings: Settings, here: WorkerId, *, database: Database | None = None, load: Load = load_active
) -> Callable[[int], None]:
    """Connect, load the models, take over what the last process at this place left, and handle jobs.

    ``settings`` are those of a worker of one queue (:func:`workers.analysis_queues.settings_of_worker`).
    """
    # The database first: TensorFlow has a TLS library of its own inside, and psycopg, imported after it, takes some of
    # that one's symbols and ends the process at its first connection by TLS.
    database = database or database_of(settings)
    task_queue = TaskQueue(settings.broker_url)
    database.write(jobs.release, here.prefix, utc_now())
    # Before the networks are loaded: the others need not rest for an image whose process has died.
    siblings = Siblings(OF_THIS_WORKER, here.index)
    heartbeat = Heartbeat(database, here.name, utc_now)
    resolver, pipeline_digest = load(settings)
    load_encoders()
    if resolver.runs_on == "cpu" and have_cores_of_their_own(settings.workers):
        siblings.longest = 0.0
    queue = queue_of_worker(settings)
    enqueue_jobs(database, task_queue, _RELEASED, utc_now(), queue)
    tools = AnalysisTools(
        settings=settings,
        database=database,
        read_source=source_reader(settings),
        difference=partial(
            difference, threads=max(settings.workers.threads, 1), maximum_pixels=settings.workers.maximum_pixels
        ),
        predictor=resolver.resolve({}).predictor,
        encode=partial(encode_in_order, ENCODERS),
        equipment=equipment_of(settings),
        pipeline=pipeline_digest,
        task_queue=task_queue,
        clock=utc_now,
        elapsed=time.monotonic,
        worker=here.name,
        run_otherwise=run_otherwise(settings, resolver.runs_on, resolver.other_files),
        device=resolver.device,
        batch=settings.workers.batch or (BATCH if resolver.runs_on == "gpu" else 1),
        rule_digests=rule_digests(settings, active_pipeline(settings)) if settings.routing else {},
        queue=queue,
        siblings=siblings,
    )

    return beating(heartbeat, JobHandler(tools, resolver, heartbeat).handle)


def delivery_handler(settings: Settings, here: WorkerId, *, database: Database | None = None) -> Callable[[int], None]:
    """Connect, take over what the last process at this place left, and handle deliveries."""
    database = database or database_of(settings)
    leases = DestinationLeases(database.engine)
    task_queue = TaskQueue(settings.broker_url)
    leases.release_workers(here.prefix)
    database.write(deliveries.release, here.prefix, utc_now())
    enqueue_deliveries(database, task_queue, _RELEASED, utc_now())
    dimse = Dimse(settings.tls, keep=True)
    sending = DeliveryTools(settings, database, {**destination_kinds(settings), "dimse": dimse}, utc_now, here.name)
    tools = DeliveryWorkerTools(
        settings=settings,
        leases=leases,
        task_queue=task_queue,
        deliver=partial(deliver, tools=sending),
        verify_storage=partial(verify_storage, tools=verification_tools(settings, database)),
        clock=utc_now,
        elapsed=time.monotonic,
        worker=here.name,
        hang_up=dimse.hang_up,
    )
    return beating(Heartbeat(database, here.name, utc_now), partial(run_delivery, tools=tools))


def scheduler_of(settings: Settings, task_queue: TaskQueue, may_act: Callable[[], bool] = lambda: True) -> Scheduler:
    """The scheduler of a node."""
    database = database_of(settings)
    pipeline = active_pipeline(settings)
    equipment = equipment_of(settings)
    return Scheduler(
        settings=settings,
        database=database,
        task_queue=task_queue,
        clock=utc_now,
        summarise=Summariser(settings, database, pipeline, digest_of(pipeline, settings), equipment),
        retention=Retention(settings.store.folder, settings.store.keep_days, database),
        take_back=RejectionNotes(settings, database, equipment, task_queue.enqueue_deliveries).step,
        release_dead=DeadWorkers(
            settings.store.folder, partial(release_claims, database, DestinationLeases(database.engine)), time.monotonic
        ).step,
        pull_back=lambda now: pull_back(database.engine, now, longest_waits(settings)),
        may_act=may_act,
    )


def longest_waits(settings: Settings) -> LongestWaits:
    """The longest times ahead that this node writes, with a minute or two for clocks that differ."""
    margin, workers = timedelta(minutes=2), settings.workers
    verification = max([LONGEST_WAIT_SECONDS, *(each.verification_after_seconds for each in settings.destinations)])
    return LongestWaits(
        attempt=timedelta(seconds=workers.maximum_backoff_seconds) + margin,
        verification=timedelta(seconds=verification) + margin,
        job_lease=LEASE + margin,
        delivery_lease=LEASE + margin,
        session=timedelta(hours=settings.admin.session_hours) + margin,
        due={priority: (farthest + margin, soonest) for priority, (soonest, farthest) in due_times(settings).items()},
    )


def due_times(settings: Settings) -> Mapping[Priority, tuple[timedelta, timedelta]]:
    """Within which time a study of each priority is due, at the earliest and at the latest, counted from now."""
    rules = settings.triage
    minutes = {
        Priority.CRITICAL: (rules.critical_minutes,),
        Priority.URGENT: (rules.urgent_minutes, rules.urgent_finding_minutes),
        Priority.ROUTINE: (rules.routine_minutes,),
    }
    # What an image's arrival says holds until triage has decided.
    arrival = {Priority.CRITICAL: STAT_WAIT, Priority.URGENT: STAT_WAIT, Priority.ROUTINE: ROUTINE_WAIT}
    return {
        priority: (timedelta(minutes=min(some)), max(timedelta(minutes=max(some)), arrival[priority]))
        for priority, some in minutes.items()
    }


def source_reader(settings: Settings) -> Callable[[Path], SourceImage]:
    """A reader of received files within the limits of the configuration."""
    workers = settings.workers
    return partial(read_source, threads=max(workers.threads, 1), maximum_pixels=workers.maximum_pixels)


def equipment_of(settings: Settings) -> Equipment:
    """Who makes our objects."""
    return Equipment(
        manufacturer="Pleura",
        manufacturer_model_name="Pleura",
        software_versions=(version("pleura"),),
        station_name=settings.site.station_name,
        device_serial_number=settings.site.station_name,
        institution_name=settings.site.name,
    )


def run_scheduler(settings: Settings, stop: threading.Event) -> None:
    """Run the scheduler, and send notifications, until ``stop`` is set."""
    settings.store.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as parts:
        place = parts.enter_context(at_place(settings.store.folder, "scheduler"))
        leadership = leadership_of(settings, place)
        parts.callback(leadership.release)
        parts.enter_context(notifying(settings, database_of(settings), stop, place))
        parts.enter_context(keeping_audit(settings, stop, lambda: leadership.acts))
        if settings.traces.enabled:
            from workers.traces.exporting import sending_traces  # its libraries are an extra

            parts.enter_context(sending_traces(settings, stop, lambda: leadership.acts))
        start_schedule(settings, database_of(settings), utc_now, stop)
        start_prior_search(settings, database_of(settings), utc_now, stop)
        start_erasing(settings, database_of(settings), utc_now, stop)
        task_queue = TaskQueue(settings.broker_url)
        # Between two steps, too: with a database that hangs each one takes seconds.
        scheduler = scheduler_of(settings, task_queue, lambda: not stop.is_set() and leadership.hold())
        clock_watch = ClockWatch(leadership.database.engine, utc_now, time.monotonic)

        def once() -> None:
            clock_watch.look()
            scheduler.once()
            if task_queue.silent:
                leadership.give_up()

        repeat_until(stop, once, settings.workers.scheduler_interval_seconds, "the scheduler")


def leadership_of(settings: Settings, place: str) -> Leadership:
    """Whether this scheduler acts; what its predecessor at the same ``place`` held is free at once."""
    database, prefix = database_of(settings), claims_at(place)
    database.write(scheduler_lease.release, prefix)
    return Leadership(database, f"{prefix}{secrets.token_hex(4)}", utc_now, time.monotonic)
