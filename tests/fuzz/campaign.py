"""A fuzz campaign against a whole node: ``python -P -m tests.fuzz.campaign --seed 1 --count 20000``.

So many data sets by C-STORE and so many PDU conversations go to ``pleura serve`` with a small network. Whatever comes,
every C-STORE is answered, no job ends as *failed*, no process writes a traceback, and the listener neither ends nor
grows.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.conversations import conversation, hold
from tests.fuzz.data_sets import CONTEXTS, Wire, wire
from tests.fuzz.peer import BrokenError, Peer
from tests.integration.pleura import Pleura, handwritten_network
from tests.orthanc import wait_until
from tests.ports import free_port

LARGEST_LISTENER = 200 * 1024 * 1024
_UNDER_WAY = ("queued", "running", "retrying")


@dataclass
class Outcome:
    """What a campaign found: ``statuses`` of C-STORE by count, and everything that must be nothing."""

    statuses: Counter[int] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    listener_bytes: int = 0

    @property
    def faults(self) -> list[str]:
        """What is wrong, one sentence each."""
        found = [f"{what} was not answered" for what in self.unanswered]
        found += [f"traceback: {text}" for text in self.tracebacks]
        found += [f"a process ended: {line}" for line in self.ends]
        if self.jobs["failed"]:
            found.append(f"{self.jobs['failed']} jobs failed")
        for status in (0x0110, 0xA700):
            if self.statuses[status]:
                found.append(f"{self.statuses[status]} C-STORE were answered with 0x{status:04X}, a fault of ours")
        if self.listener_bytes > LARGEST_LISTENER:
            found.append(f"the listener took {self.listener_bytes >> 20} MiB")
        return found


def run(folder: Path, seed: int, data_sets: int, conversations: int, patience: float) -> Outcome:
    """Run a campaign; ``patience`` is how many seconds the jobs may take after everything was sent."""
    port, outcome = free_port(), Outcome()
    node = Pleura(folder, port, _configured(folder, port))
    node.start()
    try:
        talking = threading.Thread(target=_converse, args=(port, seed, conversations))
        talking.start()
        _store(port, seed, data_sets, outcome)
        talking.join()
        outcome.listener_bytes = _peak(node.parts()["listener"])
        database = folder / "store" / "pleura.sqlite"
        wait_until(lambda: not _under_way(database), "the end of all jobs", patience, alive=node.check_alive)
        outcome.jobs = _jobs(database)
    finally:
        node.stop()
    log = node.log_file.read_text(encoding="utf-8", errors="replace")
    outcome.tracebacks = [match.group()[-1500:] for match in re.finditer(r"Traceback[^\n]*\n(?:[ \t].*\n)*.*", log)]
    outcome.ends = re.findall(r".*ended with status.*", log)
    return outcome


def _configured(folder: Path, port: int) -> Path:
    folder.mkdir(parents=True)
    models = handwritten_network(folder / "models")
    config = folder / "pleura.toml"
    config.write_text(f"""
[listener]
port = {port}

[store]
folder = "{folder / "store"}"
minimum_free_bytes = 1048576

[eligibility]
minimum_pixels = 64
{models}
[workers]
attempts = 1
threads = 1
scheduler_interval_seconds = 1

[admin]
enabled = false
""")
    return config


def _store(port: int, seed: int, count: int, outcome: Outcome) -> None:
    random = Random(f"data sets {seed}")
    peer: Peer | None = None
    for number in range(count):
        made = wire(random, number)
        try:
            peer = peer or Peer(port, CONTEXTS, calling="FUZZ", seconds=60)
            context = 2 * CONTEXTS.index((made.sop_class, made.syntax)) + 1
            outcome.statuses[_stored(peer, made, context)] += 1
        except BrokenError as error:
            outcome.unanswered.append(f"data set {number} ({made.syntax}): {error}")
            peer = None
    if peer is not None:
        peer.close()


def _stored(peer: Peer, made: Wire, context: int) -> int:
    return peer.store(made.data_set, made.sop_instance, made.sop_class, context).status


def _converse(port: int, seed: int, count: int) -> None:
    random = Random(f"conversations {seed}")
    for _ in range(count):
        hold(port, conversation(random))


def _peak(process: int) -> int:
    """Largest resident set of a process (proc(5), VmHWM)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found.group(1)) * 1024 if found else 0


def _jobs(database: Path) -> Counter[str]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return Counter(dict(connection.execute("select state, count(*) from jobs group by state")))


def _under_way(database: Path) -> int:
    jobs = _jobs(database)
    return sum(jobs[state] for state in _UNDER_WAY)


def main() -> None:
    """Run the long form and say what it found; the exit status is 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20_000, help="so many data sets and so many conversations")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pleura-fuzz-") as folder:
        outcome = run(Path(folder) / "node", arguments.seed, arguments.count, arguments.count, 24 * 3600)
    print(f"seed {arguments.seed}: C-STORE", {f"0x{status:04X}": n for status, n in outcome.statuses.items()})
    print("jobs", dict(outcome.jobs), f"listener {outcome.listener_bytes >> 20} MiB at most")
    for fault in outcome.faults[:50]:
        print(fault)
    print(f"{len(outcome.faults)} faults")
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()
