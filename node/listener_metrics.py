"""Metrics of what has no row in the database: answers to C-STORE, associations, HL7 messages.

The process that sees it counts it. prometheus_client keeps the figures in files below the store folder (its
multi-process mode), from which the admin page reads those of all processes that run. They begin at zero with their
process, as counters of Prometheus may. What has a row is counted from its row: :mod:`node.monitoring.metrics`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MultiProcessValue

from workers.worker_id import occupied_places

FOLDER = "metrics"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Instruments:
    """What a listener counts. Labels have few values and never come from a peer."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Count in memory, unless :func:`open_instruments` has chosen a file."""
        self.registry = registry = registry or CollectorRegistry()
        self.cstore_duration = Histogram(
            "pleura_cstore_duration_seconds",
            "Time from the last byte of a data set to its C-STORE response, by status; 0x0000 is stored durably.",
            ("status",),
            registry=registry,
            buckets=_SECONDS,
        )
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

    def count_acknowledgement(self, code: str) -> None:
        """Count an answer to an HL7 message."""
        self.hl7_messages.labels(code).inc()


def open_instruments(folder: Path, place: str) -> Instruments:
    """Count in files of the store ``folder`` that carry the name of this process' ``place`` (:mod:`workers.worker_id`).

    Once a process, before it counts anything: prometheus_client has one way for all metrics of a process.
    """
    files = folder / FOLDER
    files.mkdir(exist_ok=True)
    _remove_files_of_the_dead(files, {*occupied_places(folder)} - {place})
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(files)
    values.ValueClass = MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]
    return Instruments()


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
