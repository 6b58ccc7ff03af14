"""Metrics of the node for Prometheus, for every part: from the database, the disk, and the files of the listeners.

What the database knows is read from it at each request, so it is right after a restart and for parts on other machines.
What has ended (jobs, deliveries, arrivals) is followed: each request counts the rows that have come since. What has
no row comes from :mod:`node.listener_metrics`. Labels hold codes and configured names, never anything of a patient or
a peer.

docs/metrics.md describes every metric; a test compares it with this module.
"""

from __future__ import annotations

import logging
import shutil
import struct
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from config.notice import NOTICE
from config.settings import Settings
from db import audit_feed
from db.audit import last_verification
from db.database import Database
from db.model_states import ModelState
from db.order_tables import NotificationState
from db.queries import metrics as queries
from db.queries.statistics import TABLE_REST, Remembered, Statistics
from db.states import DeliveryState, JobState
from node.listener_metrics import read_instruments
from node.monitoring.certificates import certificates_in_use, validity
from node.monitoring.drift import Counts, DriftReport, drift_report
from node.monitoring.model_use import models_of_node
from node.monitoring.readiness import Readiness
from workers.analysis_queues import analysis_queues
from workers.notifications.channels import enabled_channels
from workers.worker_id import occupied_places

log = logging.getLogger(__name__)

# One more series for each counter, which no query here asks for, and which other processes do not have.
disable_created_metrics()  # type: ignore[no-untyped-call]

OVERLAP = timedelta(minutes=5)
"""How long after its time a row may become visible: the length of a transaction and the difference of clocks."""
_STAGES = ("read", "predict", "encode", "write")
_DRIFT_WEEKS = 2
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LONG = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class _Row(Protocol):
    @property
    def key(self) -> Hashable: ...
    @property
    def at(self) -> datetime: ...


Row = TypeVar("Row", bound=_Row)


class Follower(Generic[Row]):
    """Gives each row that ends once. ``read`` returns the rows after a time; rows of before ``since`` are not given."""

    def __init__(self, read: Callable[[Connection, datetime], Sequence[Row]], since: datetime) -> None:
        self._read = read
        self._since = since
        self._known: set[Hashable] | None = None

    def new(self, connection: Connection, now: datetime) -> list[Row]:
        """The rows that have come since the last call."""
        rows = self._read(connection, self._since - OVERLAP)
        known = {row.key for row in rows if row.at < self._since} if self._known is None else self._known
        self._known = {row.key for row in rows}
        self._since = max(self._since, now)  # a clock that is set back gives no row a second time
        return [row for row in rows if row.key not in known]


class Followed:
    """Counters and histograms of what has ended since this process started."""

    def __init__(self, since: datetime) -> None:
        self.registry = registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._arrived = Follower(queries.arrived, since)
        self._jobs = Follower(queries.ended_jobs, since)
        self._sent = Follower(queries.sent_objects, since)
        self._received = Counter("pleura_instances_received_total", "Instances that were stored.", registry=registry)
        self._not_eligible = Counter(
            "pleura_instances_not_eligible_total",
            "Instances that are not analysed because of their header, by code.",
            ("code",),
            registry=registry,
        )
        self._finished = Counter(
            "pleura_jobs_finished_total",
            "Jobs that ended, by outcome: analysed, not analysed, failed.",
            ("outcome",),
            registry=registry,
        )
        self._not_analysed = Counter(
            "pleura_images_not_analysed_total",
            "Images that were not analysed because of their pixels, by code.",
            ("code",),
            registry=registry,
        )
        self._stages = Histogram(
            "pleura_job_stage_duration_seconds",
            "Time of a job in each stage: queue (until a worker took it), read, predict, encode, write.",
            ("stage",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._delivery = Histogram(
            "pleura_delivery_duration_seconds",
            "Time from a result to its acceptance by a destination, retries included.",
            ("destination",),
            registry=registry,
            buckets=_LONG,
        )

    def update(self, connection: Connection, now: datetime) -> None:
        """Count what has ended since the last call."""
        with self._lock:
            for instance in self._arrived.new(connection, now):
                self._received.inc()
                if instance.code:
                    self._not_eligible.labels(instance.code).inc()
            for job in self._jobs.new(connection, now):
                self._count_job(job)
            for sent in self._sent.new(connection, now):
                self._delivery.labels(sent.destination).observe(_between(sent.created_at, sent.at))

    def _count_job(self, job: queries.EndedJob) -> None:
        failed = job.state is JobState.FAILED
        self._finished.labels("failed" if failed else "not analysed" if job.code else "analysed").inc()
        if job.code and not failed:
            self._not_analysed.labels(job.code).inc()
        self._stages.labels("queue").observe(_between(job.queued_at, job.started_at))
        for stage in _STAGES:
            if stage in job.timings:
                self._stages.labels(stage).observe(job.timings[stage])


def _between(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds())


def gauge(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    """A gauge with its values by labels."""
    made = GaugeMetricFamily(name, text, labels=labels)
    for given, value in values:
        made.add_metric(given, value)
    return made


class NodeMetrics:
    """All metrics of a node. :meth:`write` answers a request of Prometheus."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        statistics: Statistics,
        counts: Counts,
        readiness: Readiness,
        clock: Callable[[], datetime],
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._database = database
        self._statistics = statistics
        self._readiness = readiness
        self._clock = clock
        self._followed = Followed(clock())
        self._drift = Remembered(lambda: drift_report(counts, clock(), weeks=_DRIFT_WEEKS), elapsed, rest=TABLE_REST)

    def write(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics in the format that the Accept header asks for, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self), media_type

    def collect(self) -> Iterator[Metric]:
        """Every metric; without the database those are missing that come from it, and ``pleura_part_up`` says so."""
        places = occupied_places(self._settings.store.folder)
        yield gauge("pleura_build_info", f"Version of this node. {NOTICE}", ("version",), [((version("pleura"),), 1)])
        yield self._parts(places)
        yield from self._disk()
        yield self._certificates()
        yield from _read(lambda: read_instruments(self._settings.store.folder, places))
        try:
            known = [
                *self._queues(),
                *self._audit(),
                *self._worklist(),
                *self._models(),
                *self._drifts(self._drift.get()),
            ]
            self._database.read(self._followed.update, self._clock())
        except SQLAlchemyError as error:
            log.warning("metrics of the database are missing: %s", type(error).__name__)
            return
        yield from known
        yield from self._followed.registry.collect()

    def _parts(self, places: dict[str, str]) -> Metric:
        running = set(places.values())
        parts = {part: part in running for part in self._readiness.parts}
        ready = self._readiness
        parts |= {"database": ready.database(), "broker": ready.broker(), "store": ready.store()}
        text = "1 if a part of the node runs and can be used, else 0. The store: it can be written, and has room."
        return gauge("pleura_part_up", text, ("part",), [((part,), up) for part, up in parts.items()])

    def _disk(self) -> Iterator[Metric]:
        disk = shutil.disk_usage(self._settings.store.folder)
        yield gauge("pleura_store_free_bytes", "Free space on the disk of the store.", (), [((), disk.free)])
        yield gauge("pleura_store_size_bytes", "Size of the disk of the store.", (), [((), disk.total)])
        least = self._settings.store.minimum_free_bytes
        yield gauge("pleura_store_minimum_free_bytes", "Below this free space images are refused.", (), [((), least)])

    def _certificates(self) -> Metric:
        values = []
        for key, path in certificates_in_use(self._settings).items():
            try:
                values.append(((key,), validity(path).ends.timestamp()))
            except OSError as error:
                log.warning("the metric of %s is missing: %s", key, error)
        text = "When a TLS certificate of the node, or of a CA that it trusts, ends, in seconds since 1970."
        return gauge("pleura_tls_certificate_end_timestamp_seconds", text, ("setting",), values)

    def _queues(self) -> Iterator[Metric]:
        counts = self._statistics.queue_counts()
        jobs = [((state.value,), counts.get(f"jobs.{state.value}", 0)) for state in JobState]
        yield gauge("pleura_jobs", "Jobs by state.", ("state",), jobs)
        destinations = self._statistics.destinations()
        names = {*destinations, *(one.name for one in self._settings.destinations)}
        deliveries = [
            ((name, state.value), destinations[name].counts.get(state.value, 0) if name in destinations else 0)
            for name in sorted(names)
            for state in DeliveryState
        ]
        yield gauge("pleura_deliveries", "Deliveries by destination and state.", ("destination", "state"), deliveries)
        channels = self._statistics.notifications(enabled_channels(self._settings))
        notifications = [
            ((channel, state.value), counted.get(state.value, 0))
            for channel, counted in channels.items()
            for state in NotificationState
        ]
        text = "Critical-result notifications by channel and state."
        yield gauge("pleura_notifications", text, ("channel", "state"), notifications)
        yield from self._waiting()

    def _waiting(self) -> Iterator[Metric]:
        now, waiting = self._clock(), self._database.read(queries.waiting, analysis_queues(self._settings.models))
        lengths = [((queue,), one.count) for queue, one in waiting.items()]
        yield gauge("pleura_queue_length", "Jobs, deliveries and notifications that wait.", ("queue",), lengths)
        ages = [((queue,), _between(one.oldest, now) if one.oldest else 0.0) for queue, one in waiting.items()]
        yield gauge("pleura_queue_oldest_age_seconds", "Age of the oldest that waits; 0 if none.", ("queue",), ages)
        away = self._database.read(queries.waiting_for_model_server)
        text = "Jobs that wait because the server of a network cannot be asked."
        yield gauge("pleura_jobs_waiting_for_model_server", text, (), [((), away)])

    def _audit(self) -> Iterator[Metric]:
        names = [one.name for one in self._settings.audit.repositories]
        states, now = self._database.read(audit_feed.states, names), self._clock()
        text = "Entries of the audit trail that an audit record repository has not been sent."
        yield gauge("pleura_audit_waiting", text, ("repository",), [((one.repository,), one.waiting) for one in states])
        ages = [((one.repository,), _between(one.oldest_at, now) if one.oldest_at else 0.0) for one in states]
        text = "Age of the oldest entry that a repository has not been sent; 0 if none."
        yield gauge("pleura_audit_oldest_age_seconds", text, ("repository",), ages)
        found = self._database.read(last_verification)
        intact = [] if found is None else [((), float(not found.failed))]
        text = "1 if the audit trail held at its last verification, else 0."
        yield gauge("pleura_audit_intact", text, (), intact)

    def _worklist(self) -> Iterator[Metric]:
        parts = [((p.value,), n) for p, n in self._statistics.unreported().items() if p.value != "reported"]
        text = "Unreported studies by part of the worklist; a study may be in several."
        yield gauge("pleura_studies_unreported", text, ("part",), parts)
        overdue = self._statistics.overdue(self._clock())
        yield gauge("pleura_studies_overdue", "Unreported studies whose due time has passed.", (), [((), overdue)])

    def _models(self) -> Iterator[Metric]:
        models = models_of_node(self._settings.models, self._database.engine)
        states = [
            ((one.spec.name, state.value), float(one.state == state))
            for one in models
            if one.switchable
            for state in ModelState
        ]
        yield gauge("pleura_model_state", "1 for the current state of a model, else 0.", ("model", "state"), states)

    def _drifts(self, report: DriftReport) -> Iterator[Metric]:
        # The latest week that says something: the weeks come latest first, so an earlier one is not set again.
        scores: dict[tuple[str, ...], float] = {}
        for one in report.scores:
            if one.psi is not None:
                scores.setdefault((one.model, one.version, one.label), one.psi)
        text = "Population stability index of a model's scores in the latest week with enough images; 0.25 is drift."
        yield gauge("pleura_model_drift_psi", text, ("model", "version", "label"), scores.items())
        images: dict[tuple[str, ...], float] = {}
        for week in report.images:
            for measure in week.measures:
                if measure.psi is not None:
                    images.setdefault((measure.name,), measure.psi)
        text = "Population stability index of a measure of the images in the latest week with enough of them."
        yield gauge("pleura_image_drift_psi", text, ("measure",), images.items())


def _read(read: Callable[[], Iterable[Metric]]) -> Iterable[Metric]:
    """What the files of other processes hold; nothing if one is just being made."""
    try:
        return list(read())
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        log.warning("metrics of other processes cannot be read: %s", type(error).__name__)
        return ()
