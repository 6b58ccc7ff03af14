"""The parts of a node as the system page shows them: what runs, in which version, since when, and what waits for it.

The description of a process is in the lock file that it holds (:mod:`workers.worker_id`), so parts in other containers
are seen, too, where they share the store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from config.settings import Settings
from db.queries.metrics import Waiting
from db.queries.statistics import RunningWorker
from models.runtime.executor import Device, device_name, has_gpu
from node.monitoring.check import EFFECTS, Check
from workers.analysis_queues import analysis_queues
from workers.worker_id import RunningPart, running_parts

LISTENER, DELIVERIES, SCHEDULER = "listener", "deliveries", "scheduler"

_KNOWN = {
    LISTENER: ("the listener", EFFECTS["listener"]),
    DELIVERIES: ("the delivery worker", "No result is sent; all of them wait here."),
    SCHEDULER: (
        "the scheduler",
        "Studies get no summary, what was interrupted is not tried again, and old files are not removed.",
    ),
    "hl7": ("the HL7 listener", EFFECTS["HL7 listener"]),
    "dicomweb": ("the DICOMweb server", EFFECTS["DICOMweb server"]),
}

QUEUES = {"scheduler": "notifications"}
"""The queue that a kind of process works off, where it is not called like the queue."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """How it stands with one process, or with a part that no process fills (``up`` is False).

    ``device`` is where the networks of a worker ran last, before its first job as it was set. ``last_seen_at`` is given
    for a part that is down, None if it was not seen while this process watched. ``waiting``: None without a queue.
    """

    name: str
    up: bool
    place: str = ""
    process: int | None = None
    version: str = ""
    since: datetime | None = None
    device: str = ""
    last_seen_at: datetime | None = None
    waiting: Waiting | None = None


def part_names(settings: Settings) -> tuple[str, ...]:
    """The parts of this node that are processes of their own and have a place in the store."""
    chosen = (part for part in ("hl7", "dicomweb") if getattr(settings, part).enabled)
    return (LISTENER, *analysis_queues(settings.models), DELIVERIES, SCHEDULER, *chosen)


def check_parts(settings: Settings) -> Iterator[Check]:
    """Each part that does not run while others do, on whatever machine. A node that is stopped has no fault.

    One that has never received anything is not told of.
    """
    folder, names = settings.store.folder, part_names(settings)
    running = {one.part for one in running_parts(folder)}
    if not running & set(names):
        if (folder / "instances").is_dir():
            yield Check("parts", True, "none runs: no image is received, analysed or sent", "start the node")
        return
    for name in names:
        if name not in running:
            words, effect = _KNOWN.get(name, (f"the analysis worker ({name})", EFFECTS["workers"]))
            remedy = "its last lines in the log say why; start it again, or the node"
            yield Check("parts", False, f"{words} does not run, and other parts do", remedy, effect)
    if running >= set(names):
        yield Check("parts", True, f"{', '.join(names)} run")


def check_device(device: Device, workers: Sequence[RunningWorker]) -> Iterator[Check]:
    """Where the networks of the latest jobs ran, where the configuration leaves that to what the worker finds."""
    ran = sorted({one.device for one in workers if one.device})
    if device != "auto" or not ran:
        return
    found = f"workers.device is auto, and the latest jobs ran on: {', '.join(map(device_name, ran))}"
    unused = has_gpu() and not any(one.startswith("gpu") for one in ran)
    yield Check("device", True, found, _UNUSED_GPU if unused else "")


_UNUSED_GPU = "this machine has a GPU: install what uses it (docs/install.md), or set workers.device to cpu"


class PartsWatch:
    """Looks at the places in the store ``folder`` and remembers when each part was last seen."""

    def __init__(self, folder: Path, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._clock = clock
        self._seen: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self.since = clock()
        """When the watch began: what was down before is not known."""

    def look(self) -> tuple[RunningPart, ...]:
        """The processes that run now."""
        running, now = running_parts(self._folder), self._clock()
        with self._lock:
            self._seen |= dict.fromkeys((one.part for one in running), now)
        return running

    def saw(self, part: str) -> None:
        """A part without a place in the store, such as the broker, answers now."""
        with self._lock:
            self._seen[part] = self._clock()

    def last_seen(self) -> Mapping[str, datetime]:
        """When each part was last seen running; parts that were never seen are not in it."""
        with self._lock:
            return dict(self._seen)


def part_statuses(
    names: Sequence[str],
    running: Sequence[RunningPart],
    last_seen: Mapping[str, datetime],
    waiting: Mapping[str, Waiting],
    workers: Sequence[RunningWorker],
) -> tuple[PartStatus, ...]:
    """The parts ``names`` that a node has, and all others that run beside them: one status a process."""
    found = []
    for name in dict.fromkeys((*names, *sorted(one.part for one in running))):
        queue = waiting.get(QUEUES.get(name, name))
        there = [one for one in running if one.part == name]
        found += [
            PartStatus(
                name, True, one.place, one.process, one.version, one.started_at, _device(one, workers), waiting=queue
            )
            for one in there
        ]
        if not there:
            found.append(PartStatus(name, False, last_seen_at=last_seen.get(name), waiting=queue))
    return tuple(found)


def _device(part: RunningPart, workers: Sequence[RunningWorker]) -> str:
    """Where the networks of a worker ran last; as it was set, where it has ended no job lately."""
    ended = [one for one in workers if part.claims and one.name.startswith(part.claims) and one.device]
    latest = max(ended, key=lambda one: one.last_at.timestamp() if one.last_at else 0.0, default=None)
    return latest.device if latest else part.device
