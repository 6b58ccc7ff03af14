"""Start-up and memory of each part of a node: ``python -P -m benchmarks.processes [--runs 5] [--images 40]``.

Each part is started alone, several times, as ``pleura serve`` starts it (SQLite, embedded broker, bundled networks),
and stopped when it is ready: listener and scheduler hold their places, the page answers, a worker's processes have
their networks and connections. Then a whole node gets radiographs of 7 MB, one after the other.

*Ready* is the time on the clock, *CPU* that of the part's processes alone. Where others need the same cores, run it as
``chrt -r 1 python …``, or compare CPU. *Memory* is PSS, where a page that parent and child share counts once; the
*highest* is RSS, where it counts twice. Medians, and the range. Ends with 1 where a median misses its aim.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from pydicom import dcmread

from benchmarks.end_to_end import with_new_uids
from benchmarks.process_tree import cpu_seconds, proportional, resident
from config.settings import Settings, load
from db.states import JOBS
from node.demo import ResultReceiver, bundled_radiographs, running_node, wait_for_results, write_configuration
from node.dicom.storage_scu import Peer, find_files, send_files
from node.embedded_broker import wait_until_ready
from node.monitoring.page_port import page_answers
from node.opening import open_database
from node.supervisor import Part, free_port, parts_of
from workers.enqueue import DELIVERIES, READY, message_settings
from workers.worker_id import running_parts

AIMS = {"worker": (5.0, 450), "listener": (None, 150)}
"""Seconds to be ready and megabytes then, where there is an aim."""


@dataclass(frozen=True)
class Start:
    """One start: seconds on the clock and of CPU until the part was ready, and its memory (PSS, MB) then."""

    seconds: float
    cpu: float
    memory: float


def _answers(control: Celery, queue: str) -> bool:
    replies = control.control.broadcast(READY, reply=True, timeout=0.5, limit=1) or ()
    return any(ready and name.startswith(queue) for reply in replies for name, ready in reply.items())


def readiness(settings: Settings, control: Celery) -> dict[str, Callable[[], bool]]:
    """Whether a part is ready, by its name."""

    def runs(part: str) -> bool:
        return any(each.part == part for each in running_parts(settings.store.folder))

    return {
        "listener": lambda: runs("listener"),
        "worker": lambda: _answers(control, JOBS),
        "delivery": lambda: _answers(control, DELIVERIES),
        "scheduler": lambda: runs("scheduler"),
        "admin": lambda: page_answers(settings.admin),
    }


def start(part: Part, ready: Callable[[], bool]) -> Start:
    """Start a part, wait until it is ready, and stop it."""
    began = time.monotonic()
    part.start(began)
    assert part.process is not None
    try:
        while not ready():
            if part.process.poll() is not None or time.monotonic() - began > 120:
                raise SystemExit(f"the {part.name} did not start; see {part.log}")
            time.sleep(0.005)
        seconds, cpu = time.monotonic() - began, cpu_seconds(part.process.pid)
        time.sleep(0.5)  # what it still does for itself after its start
        return Start(seconds, cpu, proportional(part.process.pid) / 1e6)
    finally:
        part.process.terminate()
        part.process.wait(60)


def starts(settings: Settings, config: Path, runs: int) -> dict[str, list[Start]]:
    """Every part, started alone ``runs`` times."""
    open_database(settings, threading.Event(), print)
    broker, *parts = parts_of(settings, config, {})
    for part in (broker, *parts):
        part.log = config.with_name("parts.log")
    broker.start(time.monotonic())
    assert broker.process is not None
    control = Celery("pleura-benchmark")
    control.conf.update(message_settings(settings.broker_url))
    try:
        wait_until_ready(broker.process, settings.broker_socket)
        ready = readiness(settings, control)
        return {part.name: [start(part, ready[part.name]) for _ in range(runs)] for part in parts}
    finally:
        control.close()
        broker.process.terminate()
        broker.process.wait(30)


def studies(folder: Path, count: int) -> Iterator[Path]:
    """``count`` studies of one radiograph each: NEMA's RG1, 1955 x 1841 of 16 bit."""
    image = dcmread(bundled_radiographs()[0])
    for number in range(count):
        yield with_new_uids(image, folder / f"{number:04d}.dcm")


@contextmanager
def watched(processes: Callable[[], dict[str, int]]) -> Iterator[dict[str, int]]:
    """The highest RSS of each part while the block runs."""
    highest: dict[str, int] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            for name, pid in processes().items():
                highest[name] = max(highest.get(name, 0), resident(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        stop.set()
        thread.join()


def at_work(folder: Path, config: Path, port: int, images: int) -> dict[str, tuple[float, float]]:
    """Memory of each part after ``images`` radiographs (PSS) and at most (RSS), in MB."""
    (folder / "images").mkdir()
    (folder / "received").mkdir()
    files, _ = find_files(list(studies(folder / "images", images)))
    receiver = ResultReceiver(folder / "received", port)
    with receiver.running(), running_node(config) as (node, settings), watched(node.processes) as highest:
        peer = Peer("127.0.0.1", node.port, settings.listener.ae_title, "BENCHSCU")
        assert all(sent.accepted for sent in send_files(files, peer))
        for _ in wait_for_results(settings, images, 60 + 5.0 * images):
            pass
        return {name: (proportional(pid) / 1e6, highest.get(name, 0) / 1e6) for name, pid in node.processes().items()}


def _median_and_range(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def missed(name: str, done: list[Start]) -> bool:
    """Whether the median of a part misses its aim."""
    seconds, megabytes = AIMS.get(name, (None, None))
    return (seconds is not None and statistics.median(one.seconds for one in done) > seconds) or (
        megabytes is not None and statistics.median(one.memory for one in done) > megabytes
    )


def main() -> None:
    # The aim is that of a worker that analyses in one process; set the variable to see what more of them take.
    os.environ.setdefault("PLEURA_WORKERS__PROCESSES", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=40)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port("127.0.0.1")
        config = write_configuration(folder, port)
        done = starts(load(config), config, chosen.runs)
        work = at_work(folder, config, port, chosen.images)
    print("| part | ready, s | CPU until then, s | memory then, MB | after the images, MB | highest, MB |")
    print("|---|--:|--:|--:|--:|--:|")
    for part, (after, highest) in work.items():
        figures = ("", "", "")
        if part in done:
            figures = (
                _median_and_range([one.seconds for one in done[part]], 1),
                _median_and_range([one.cpu for one in done[part]], 1),
                _median_and_range([one.memory for one in done[part]], 0),
            )
        print(f"| {part} | {' | '.join(figures)} | {after:.0f} | {highest:.0f} |")
    print(f"\n{os.cpu_count()} cores, load average {os.getloadavg()[0]:.0f}")
    late = [part for part in done if missed(part, done[part])]
    sys.exit(f"misses its aim: {', '.join(late)}" if late else 0)


if __name__ == "__main__":
    main()
