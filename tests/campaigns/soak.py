"""A long, even load: ``make soak`` or ``python -P -m tests.campaigns.soak --seed 1 --studies 10000``.

PostgreSQL and Redis, two storage listeners, two workers, and a destination that is asked by C-FIND whether it holds
what it took. At the end as many studies must be received, analysed, delivered and verified as were sent; and after a
warm-up nothing may grow: memory, open files and threads of every part, the broker's memory, and what the database takes
for a study. All of it is measured twice, each time when nothing is to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.command import Say, parser_of, run_campaign
from tests.campaigns.images import image
from tests.campaigns.modality import Modalities
from tests.campaigns.outcome import Outcome
from tests.campaigns.whole_node import KINDS, WholeNode, wait_and_count, whole_node
from tests.integration.pleura import descendants, handles_of, status_of
from tests.orthanc import wait_until
from tests.ports import free_port

WARM_UP, _LONGEST_WARM_UP = 0.4, 1000
"""The share of the studies after which nothing may grow, and how many are enough."""
_ROUND, _WAITING = 200, 60
"""So many studies are sent at a time, and the next ones when so few jobs wait: an even load, without idle workers."""
_SENDERS, _ANALYSING = 4, 4
"""So many associations send, and so many processes analyse: two of each of two workers."""
_MEMORY, _MEMORY_SHARE = 8 * 1024 * 1024, 0.05
_LATE = 4
_BROKER = 1024 * 1024
_PER_STUDY_SHARE = 1.25


@dataclass(frozen=True)
class Sample:
    """What everything takes while nothing is to do. ``memory``: resident bytes by part, with its children."""

    studies: int
    memory: dict[str, int]
    handles: dict[str, int]
    threads: dict[str, int]
    processes: dict[str, int]
    broker: int
    database: int


def run(
    folder: Path, seed: int, studies: int, seconds: float, say: Say, kinds: tuple[str, ...] = tuple(KINDS)
) -> Outcome:
    """Send ``studies``, or as many as can be sent in ``seconds``, and compare what was taken after the warm-up with the
    end. The destination gets these ``kinds`` of objects.
    """
    outcome = Outcome("soak, postgresql", seed)
    verified = {"verification": "query", "verification_after_seconds": 1, "kinds": kinds}
    with whole_node(folder / "run", "postgresql", destination=verified) as whole, second_parts(whole) as (port, extra):
        begun = time.monotonic()
        samples, accepted = [], 0
        for until in rounds(studies):
            images = [image(seed, number) for number in range(accepted, until)]
            modalities = Modalities([whole.node.port, port], iter(images), _SENDERS, each=20)
            modalities.start()
            modalities.finish(600)
            accepted = until
            is_last = until == studies or time.monotonic() - begun > seconds
            may_be_warm = not samples and until >= _warm_up(studies)
            if not (is_last or may_be_warm):
                outcome.faults += _wait_for_workers(whole, until, say)
            else:
                outcome.faults += _wait(whole, len(kinds) * until, until, say)
                # The first image that a process analyses takes memory for good: what has seen none is not warm.
                if is_last or len(whole.database.analysing()) >= _ANALYSING:
                    samples.append(_sample(whole, extra, until))
            if is_last:
                break
        patients = [image(seed, number).patient for number in range(accepted)]
        held, faults = wait_and_count(whole, patients, 60, Counter(KINDS[kind] for kind in kinds))
        outcome.faults += faults + equal_counts(whole.database.counts(), accepted, len(kinds))
        outcome.faults += growth(samples[0], samples[-1]) if len(samples) > 1 else ["it ended within the warm-up"]
        took = time.monotonic() - begun
    first, last = samples[0], samples[-1]
    outcome.figures = {
        "studies sent, received, analysed, delivered, verified": accepted if not outcome.faults else "see the faults",
        "a second": f"{accepted / took:.1f}",
        "objects of each at the destination": ", ".join(kinds),
        "objects sent again": held.sent_again,
        "warm-up": f"{first.studies} studies",
        **{f"memory of {part}": _change(first.memory[part], last.memory[part]) for part in last.memory},
        "handles": f"{sum(first.handles.values())} to {sum(last.handles.values())}",
        "threads": f"{sum(first.threads.values())} to {sum(last.threads.values())}",
        "broker": _change(first.broker, last.broker),
        "database a study": f"{(last.database - first.database) / max(1, last.studies - first.studies) / 1024:.0f} KiB",
    }
    return outcome


def rounds(studies: int) -> list[int]:
    """How many studies are sent by the end of each round; one ends with the shortest warm-up."""
    warm_up = _warm_up(studies)
    return sorted(
        {*range(_ROUND, studies, _ROUND), *range(warm_up, studies, max(1, min(_ROUND, warm_up // 2))), studies}
    )


def _warm_up(studies: int) -> int:
    return min(int(WARM_UP * studies), _LONGEST_WARM_UP)


@contextmanager
def second_parts(whole: WholeNode) -> Iterator[tuple[int, dict[str, int]]]:
    """A second listener and a second worker; the listener's port, and the processes by name."""
    port = free_port()
    listening = {"PLEURA_LISTENER__PORT": str(port)}
    parts = {"second listener": (("listen",), listening), "second worker": (("worker", "--queue", "jobs"), {})}
    command = [sys.executable, "-P", "-m", "node.cli.main", "--config", str(whole.node.config)]
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with whole.node.log_file.open("ab") as log:
        for name, (arguments, environment) in parts.items():
            processes[name] = subprocess.Popen(
                [*command, *arguments], env=os.environ | environment, stdout=log, stderr=log, cwd=whole.store.parent
            )
    try:
        ready = f"listens on 127.0.0.1:{port}".encode()
        wait_until(lambda: ready in whole.node.log_file.read_bytes(), "the second listener", 120)
        yield port, {name: process.pid for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(60)


def _wait(whole: WholeNode, objects: int, seconds: float, say: Say) -> list[str]:
    """Wait until every delivery is verified."""

    def all_verified() -> bool:
        counts = whole.database.counts()
        say(f"{counts['delivery verified']} of {objects} objects verified")
        return counts["delivery verified"] >= objects

    try:
        wait_until(all_verified, "verification", 60 + seconds, 2, whole.node.check_alive)
    except AssertionError as error:
        return [str(error)]
    return []


def _wait_for_workers(whole: WholeNode, studies: int, say: Say) -> list[str]:
    """Wait until few jobs are waiting."""

    def few_wait() -> bool:
        counts = whole.database.counts()
        shown = ", ".join(f"{counts[name]} {name}" for name in ("job queued", "study open", "delivery verified"))
        say(f"{studies} accepted; {shown}")
        return counts["job queued"] <= _WAITING

    try:
        wait_until(few_wait, "the workers", 3600, 2, whole.node.check_alive)
    except AssertionError as error:
        return [str(error)]
    return []


def _sample(whole: WholeNode, extra: dict[str, int], studies: int) -> Sample:
    parts = {name: [each, *descendants(each)] for name, each in (whole.node.parts() | extra).items()}
    return Sample(
        studies,
        {name: sum(status_of(each, "VmRSS") * 1024 for each in processes) for name, processes in parts.items()},
        {name: sum(handles_of(each) for each in processes) for name, processes in parts.items()},
        {name: sum(status_of(each, "Threads") for each in processes) for name, processes in parts.items()},
        {name: len(processes) for name, processes in parts.items()},
        whole.broker.byte_count(),
        whole.database.byte_count(),
    )


def equal_counts(counts: Counter[str], studies: int, objects: int) -> list[str]:
    """What was received, analysed, delivered and verified, where it is not what was sent."""
    wanted = {
        "instance": studies,
        "job done": studies,
        "study complete": studies,
        "delivery verified": objects * studies,
    }
    return [f"{counts[name]} times {name}, not {count}" for name, count in wanted.items() if counts[name] != count]


def growth(first: Sample, last: Sample) -> list[str]:
    """What has grown between two moments at which nothing was to do."""
    found = []
    for part, before in first.memory.items():
        allowed = before * (1 + _MEMORY_SHARE) + _MEMORY
        if last.memory[part] > allowed:
            found.append(f"{part} has grown: {_change(before, last.memory[part])}")
        # A process of a part that has less to do than the others opens its connections later: so many are no leak.
        late = _LATE * last.processes[part]
        if last.handles[part] > first.handles[part] + late:
            found.append(f"{part} holds {last.handles[part]} files, {first.handles[part]} before")
        if last.threads[part] > first.threads[part] + late:
            found.append(f"{part} has {last.threads[part]} threads, {first.threads[part]} before")
    if last.broker > first.broker + _BROKER:
        found.append(f"the broker has grown: {_change(first.broker, last.broker)}")
    added = (last.database - first.database) / (last.studies - first.studies)
    if added > _PER_STUDY_SHARE * first.database / first.studies:
        found.append(f"a study takes {added / 1024:.0f} KiB in the database, more than at first")
    return found


def _change(before: int, after: int) -> str:
    return f"{before / 2**20:.1f} to {after / 2**20:.1f} MiB"


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("--studies", type=int, default=10_000, help="so many studies (default 10,000)")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="send no more studies after so long (a day)")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=tuple(KINDS), help="what the destination gets (everything)"
    )
    given = parser.parse_args()
    kinds = tuple(given.kinds)
    run_campaign(given, lambda folder, say: run(folder, given.seed, given.studies, 60 * given.minutes, say, kinds))


if __name__ == "__main__":
    main()
