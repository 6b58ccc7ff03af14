"""The queueing model beside a node that runs: images arrive at random, and the waiting is compared.

    python -P -m benchmarks.queueing_run [--processes 1] [--studies 200] [--busy 0.6] [--seed 1]

A real node (``pleura serve``, SQLite, embedded broker, a small network, no destination) first gets some images one
after the other, which say how long a job takes here, and then ``--studies`` at random (Poisson), so many a second that
its worker's processes should be busy for the given part of the time. :mod:`benchmarks.queueing` does the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.queueing import Measured, compared, read_jobs
from config.settings import load
from db.database import Database
from db.engine import connect
from tests.campaigns.images import image
from tests.db.recorded import queue_counts
from tests.fuzz.peer import CR, EXPLICIT, Peer
from tests.integration.pleura import Pleura, handwritten_network
from tests.orthanc import wait_until
from tests.ports import free_port
from tests.rules import NO_RULES

FIRST = 15


def write_config(folder: Path, port: int, processes: int) -> Path:
    """The configuration of the node."""
    config = folder / "pleura.toml"
    config.write_text(
        f"{handwritten_network(folder / 'models')}\n"
        f'[store]\nfolder = "{folder / "store"}"\nminimum_free_bytes = 1048576\n'
        f"[eligibility]\nminimum_pixels = 64\n[listener]\nport = {port}\n[admin]\nenabled = false\n"
        "[triage]\ncompletion_seconds = 3600\n"
        f"[workers]\nthreads = 1\nprocesses = {processes}\n",
        encoding="utf-8",
    )
    return config


def send(port: int, seed: int, number: int) -> None:
    """Send an image on an association of its own: one that idles is ended."""
    each = image(seed, number)
    with Peer(port, [(CR, EXPLICIT)], seconds=60) as peer:
        if status := peer.store(each.data_set, each.sop_instance).status:
            raise SystemExit(f"C-STORE was answered 0x{status:04X}")


def run(folder: Path, processes: int, studies: int, busy: float, seed: int) -> Measured:
    """What the jobs of the random arrivals took and waited."""
    chance, port = random.Random(seed), free_port()
    node = Pleura(folder, port, write_config(folder, port, processes))
    url = load(node.config).database_url
    database = Database(connect(url), NO_RULES)

    def done() -> int:
        return database.read(queue_counts).get("jobs.done", 0)

    def wait_for(count: int) -> None:
        wait_until(lambda: done() == count, "the jobs", seconds=600, alive=node.check_alive)

    try:
        node.start()
        for number in range(FIRST):
            send(port, seed, number)
            wait_for(number + 1)
        service = statistics.fmean(read_jobs(url, datetime.fromtimestamp(0, UTC)).services[FIRST // 3 :])
        rate, since = busy * processes / service, datetime.now(UTC)
        due = time.monotonic()
        for number in range(FIRST, FIRST + studies):
            due += chance.expovariate(rate)
            time.sleep(max(0.0, due - time.monotonic()))
            send(port, seed, number)
        wait_for(FIRST + studies)
    finally:
        node.stop()
    return read_jobs(url, since)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1, help="processes of the worker (default 1)")
    parser.add_argument("--studies", type=int, default=200, help="images that arrive at random (default 200)")
    parser.add_argument("--busy", type=float, default=0.6, help="how busy the processes are to be (default 0.6)")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (default 1)")
    given = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        measured = run(Path(folder), given.processes, given.studies, given.busy, given.seed)
    load_average = {"load average before": round(before, 1), "after": round(os.getloadavg()[0], 1)}
    print(json.dumps(compared(measured) | load_average, indent=1))


if __name__ == "__main__":
    main()
