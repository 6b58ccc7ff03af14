"""Metrics of what has no row in the database: answers to C-STORE, associations, HL7 messages.

The process that sees it counts it. prometheus_client keeps the figures in files below the store folder (its
multi-process mode), from which the admin page reads those of all processes that run. They begin at zero with their
process, as counters of Prometheus may. What has a row is counted from its row: :mod:`node.monitoring.metrics`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MultiProcessValue

from workers.worker_id import occupied_places

log = logging.getLogger(__name__)

FOLDER = "metrics"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Instruments:
    """What a listener counts. Labels have few values and never come from a peer."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Count in memory, unless :func:`open_instruments` has chosen a file."""
        self._told = False
        self.registry = registry = registry or CollectorRegistry()
        self.cstore_duration = Histogram(
            "pleura_cstore_duration_seconds",
            "Time from the last byte of a data set to its C-STORE response, by status; 0x0000 is stored durably.",
            ("status",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._durations: dict[int, Histogram] = {}  # prometheus_client would look each up behind a lock
        self.associations_accepted = Counter(
            "pleura_associations_accepted_total", "Associations that were accepted.", registry=registry
        )
        self.associations_rejected = Counter(
            "pleura_associations_rejected_total",
            "Associations that were rejected, by reason.",
            ("reason",),
            registry=registry,
        )
        self.hl7_messages = Counter(
            "pleura_hl7_messages_total",
            "HL7 messages by acknowledgement code: AA, AE, AR.",
            ("acknowledgement",),
            registry=registry,
        )

    def time_cstore(self, status: int, seconds: float) -> None:
        """Note how long an answer to C-STORE took."""
        try:
            duration = self._durations.get(status)
            if duration is None:
                duration = self._durations[status] = self.cstore_duration.labels(f"0x{status:04X}")
            duration.observe(seconds)
        except Exception as error:
            self._tell(error)

    def count_accepted(self) -> None:
        """Count an association that was accepted."""
        with self._never_in_the_way():
            self.associations_accepted.inc()

    def count_rejected(self, reason: str) -> None:
        """Count an association that was rejected."""
        with self._never_in_the_way():
            self.associations_rejected.labels(reason).inc()

    def count_acknowledgement(self, code: str) -> None:
        """Count an answer to an HL7 message."""
        with self._never_in_the_way():
            self.hl7_messages.labels(code).inc()

    @contextmanager
    def _never_in_the_way(self) -> Iterator[None]:
        """Go on where the file of the figures cannot be written: the disk is read-only or full.

        Otherwise an image that is stored already would be answered with an abort.
        """
        try:
            yield
        except Exception as error:  # prometheus_client's own, where its file could not grow
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        """Tell once that metrics are not counted."""
        if not self._told:
            log.warning("metrics are not counted: %s", error)
        self._told = True


def open_instruments(folder: Path, place: str) -> Instruments:
    """Count in files of the store ``folder`` that carry the name of this process' ``place`` (:mod:`workers.worker_id`).

    Once a process, before it counts anything: prometheus_client has one way for all metrics of a process.
    """
    files = folder / FOLDER
    files.mkdir(exist_ok=True)
    _remove_files_of_the_dead(files, {*occupied_places(folder)} - {place})
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(files)
    values.ValueClass = MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]
    made = Instruments()
    made.cstore_duration.labels("0x0000")  # opens the file now, where a disk that is read-only later does no harm
    for path in files.glob(f"*_{place}.db"):
        _allocate(path)
    return made


def _allocate(path: Path) -> None:
    """Give a file that is mapped into memory its blocks: on a full disk a write to one without ends the process."""
    with path.open("r+b") as file, suppress(OSError):  # a file system that cannot
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _remove_files_of_the_dead(files: Path, living: set[str]) -> None:
    """Remove the figures of processes that have ended: a new container has another host name, and leaves others."""
    for left in files.glob("*.db"):
        if not any(left.stem.endswith(f"_{place}") for place in living):
            left.unlink(missing_ok=True)


def read_instruments(folder: Path, places: Iterable[str]) -> Iterable[Metric]:
    """The figures of the processes at these places, added up."""
    files = [str(path) for place in places for path in (folder / FOLDER).glob(f"*_{place}.db")]
    merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
    return merged
