"""How fast images are received, beside DCMTK, Orthanc and pynetdicom's own application, in one interleaved run.

    python -P -m benchmarks.ingest [--rounds 5] [--quick] [--associations 1 4 8] [--before CHECKOUT] [--table FILE]

``--before CHECKOUT`` measures another checkout of this repository in the same rounds, by this one's packages: what a
change costs or saves. ``--only Pleura "Pleura, two listeners"`` says what a second process on the same store brings.

Two senders: DCMTK's ``storescu``, as a peer in a hospital would send, gives the images per second that the ratio is
made of; a replay of messages laid out beforehand, which costs next to nothing, gives the time of each answer.

Every round sends the same number of new images to each receiver in turn, so that a noisy machine disturbs all alike;
what counts is the ratio to ``storescp --fork`` within a round. Pleura answers when the bytes are synced and the row is
committed, and so do the two bare pynetdicom servers of ``benchmarks.public_configuration``; DCMTK and pynetdicom's
application answer when the bytes are handed to the kernel; Orthanc commits to its index.

DCMTK and Orthanc run with TCP_NODELAY=1: without it each store waits 44 ms for a delayed acknowledgement on loopback.
Raw samples go to ``.benchmarks/`` as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path

from benchmarks.figures import HEAD, Figure, Measurement, spread
from benchmarks.process_tree import cpu_seconds, resident
from benchmarks.replay import Kind, jpeg_kind, send, uncompressed_kind, write_files
from node.supervisor import free_port

REFERENCE = "storescp --fork"
BEFORE = "Pleura before"
TWO = "Pleura, two listeners"
"""Two processes on one store and database; the associations are dealt out to them."""
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Sample:
    """One batch: images per second, CPU seconds per image, highest memory of the process tree (MB), answers (ms)."""

    sender: str
    receiver: str
    kind: str
    associations: int
    round: int
    images: int
    images_per_second: float
    cpu_seconds_per_image: float
    peak_megabytes: float
    milliseconds: list[float]


@dataclass
class Receiver:
    """A running receiver: its processes, and the port of each."""

    name: str
    called: str
    ports: list[int]
    pids: list[int]


@dataclass(frozen=True)
class Setup:
    """Where a receiver shall work."""

    folder: Path
    port: int
    broker: str


Command = tuple[list[str], dict[str, str]]
"""Command line and additional environment."""


def pleura(setup: Setup) -> Command:
    environment = {
        "PLEURA_STORE__FOLDER": str(setup.folder),
        "PLEURA_LISTENER__PORT": str(setup.port),
        "PLEURA_BROKER__URL": setup.broker,
        "PLEURA_LOGS__LEVEL": "WARNING",
    }
    return [sys.executable, "-P", "-m", "node.cli.main", "listen"], environment


def pleura_of(checkout: Path, setup: Setup) -> Command:
    """The listener of another checkout, older ones too."""
    module = "node.cli.main" if (checkout / "node/cli/main.py").is_file() else "node.cli"
    _, environment = pleura(setup)
    return [sys.executable, "-P", "-m", module, "listen"], environment | {"PYTHONPATH": str(checkout)}


def storescp(setup: Setup) -> Command:
    options = ["--fork", "+B", "+xa", "-pdu", "131072", "-od", str(setup.folder)]
    return ["storescp", *options, str(setup.port)], {}


def orthanc(setup: Setup) -> Command:
    configuration = {
        "StorageDirectory": str(setup.folder),
        "IndexDirectory": str(setup.folder),
        "DicomAet": "ORTHANC",
        "DicomPort": setup.port,
        "DicomCheckCalledAet": False,
        "HttpServerEnabled": False,
        "Plugins": [],
        "DicomAlwaysAllowStore": True,
    }
    path = setup.folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    return ["Orthanc", str(path)], {}


def application(setup: Setup) -> Command:
    options = ["-q", "-pdu", "131072", "-od", str(setup.folder)]
    return [sys.executable, "-m", "pynetdicom", "storescp", *options, str(setup.port)], {}


def public(setup: Setup) -> Command:
    options = ["--port", str(setup.port), "--folder", str(setup.folder)]
    return [sys.executable, "-P", "-m", "benchmarks.public_configuration", *options], {}


def stock(setup: Setup) -> Command:
    command, environment = public(setup)
    return [*command, "--stock"], environment


RECEIVERS: dict[str, tuple[str, str, Callable[[Setup], Command]]] = {
    REFERENCE: ("STORESCP", "storescp", storescp),
    "Pleura": ("PLEURA", sys.executable, pleura),
    TWO: ("PLEURA", sys.executable, pleura),
    "Orthanc": ("ORTHANC", "Orthanc", orthanc),
    "public settings, durable": ("PUBLIC", sys.executable, public),
    "stock pynetdicom, durable": ("PUBLIC", sys.executable, stock),
    "pynetdicom storescp": ("STORESCP", sys.executable, application),
}


@contextmanager
def running(name: str, folder: Path, broker: str) -> Iterator[Receiver]:
    """Start a receiver on a free port, or two, wait until it listens, and stop it at the end."""
    called, _, make = RECEIVERS[name]
    folder.mkdir(parents=True)
    receiver = Receiver(name, called, [], [])
    try:
        with ExitStack() as stack:
            for _ in range(2 if name == TWO else 1):
                port = free_port("127.0.0.1")
                receiver.pids.append(stack.enter_context(_process(make(Setup(folder, port, broker)), port, folder)))
                receiver.ports.append(port)
            yield receiver
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _process(made: Command, port: int, folder: Path) -> Iterator[int]:
    command, environment = made
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        process = subprocess.Popen(
            command, env=os.environ | {"TCP_NODELAY": "1"} | environment, cwd=REPOSITORY, stdout=log, stderr=log
        )
    try:
        _wait_for(port, process)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1800):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen")


class _MemoryWatch(threading.Thread):
    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self._pids = pids
        self._stop_monitoring = threading.Event()
        self.peak = 0

    def run(self) -> None:
        while True:
            self.peak = max(self.peak, sum(map(resident, self._pids)))
            if self._stop_monitoring.wait(0.02):
                return

    def finish(self) -> float:
        self._stop_monitoring.set()
        self.join()
        return self.peak / 1e6


Send = Callable[[Receiver], tuple[float, list[float]]]
"""Sends a batch; returns the wall time and, where known, every answer's time, in seconds."""


def by_replay(kind: Kind, associations: int, images: int, first: int) -> Send:
    return lambda receiver: send(receiver.ports, receiver.called, kind, associations, images, first)


def by_storescu(kind: Kind, associations: int, files: list[Path], profile: Path) -> Send:
    """Send files with DCMTK, one process for each association."""
    profile.write_text(
        f"[[TransferSyntaxes]]\n[Only]\nTransferSyntax1 = {kind.transfer_syntax}\n"
        f"[[PresentationContexts]]\n[Only]\nPresentationContext1 = {kind.sop_class}\\Only\n"
        "[[Profiles]]\n[Only]\nPresentationContexts = Only\n"
    )

    def run_storescu(receiver: Receiver) -> tuple[float, list[float]]:
        command = ["storescu", "-xf", str(profile), "Only", "-pdu", "131072", "-aec", receiver.called]
        start = time.perf_counter()
        senders = [
            subprocess.Popen(
                [*command, "127.0.0.1", str(port), *map(str, files[share::associations])],
                env=os.environ | {"TCP_NODELAY": "1"},
            )
            for port, share in zip(cycle(receiver.ports), range(associations), strict=False)
        ]
        if any(sender.wait() for sender in senders):
            raise ConnectionError(f"{receiver.name} did not take every image")
        return time.perf_counter() - start, []

    return run_storescu


def measure(receiver: Receiver, sender: str, send_batch: Send, case: tuple[str, int, int, int]) -> Sample:
    """Send one batch: ``case`` is the kind of image, associations, images and round."""
    kind, associations, images, round_number = case
    before = sum(map(cpu_seconds, receiver.pids))
    watch = _MemoryWatch(receiver.pids)
    watch.start()
    wall, seconds = send_batch(receiver)
    peak = watch.finish()
    time.sleep(0.3)
    return Sample(
        sender,
        receiver.name,
        kind,
        associations,
        round_number,
        images,
        images / wall,
        (sum(map(cpu_seconds, receiver.pids)) - before) / images,
        peak,
        [value * 1000 for value in seconds],
    )


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A broker for Pleura to enqueue, where one is installed; otherwise it enqueues in vain, which costs more."""
    socket_path = folder / "redis.sock"
    if not shutil.which("redis-server"):
        yield f"redis+socket://{socket_path}"
        return
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(socket_path), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not socket_path.exists():
            time.sleep(0.05)
        yield f"redis+socket://{socket_path}"
    finally:
        server.terminate()
        server.wait(10)


def run(rounds: int, quick: bool, names: list[str], numbers: list[int], folder: Path) -> list[Sample]:
    """Measure every receiver with every kind of image and number of associations."""
    samples: list[Sample] = []
    kinds = ((jpeg_kind(), 60 if quick else 240), (uncompressed_kind(), 8 if quick else 24))
    with redis(folder) as broker:
        for kind, images in kinds:
            for associations in numbers:
                with ExitStack() as stack:
                    receivers = [
                        stack.enter_context(running(name, folder / f"{number}-{kind.name[:2]}-{associations}", broker))
                        for number, name in enumerate(names)
                    ]
                    for round_number in range(rounds):
                        samples += _round(receivers, kind, associations, images, round_number, folder)
    return samples


def _round(
    receivers: list[Receiver], kind: Kind, associations: int, images: int, round_number: int, folder: Path
) -> Iterator[Sample]:
    """One batch by each sender to each receiver, none of them always first; the very first one warms up."""
    outgoing = folder / "outgoing"
    first = 1 + round_number * (2 * images + associations)
    if round_number == 0:
        for receiver in receivers:
            by_replay(kind, associations, associations, 10**6)(receiver)
    files = write_files(kind, outgoing, images, first)
    senders = {
        "storescu": by_storescu(kind, associations, files, folder / "profile.cfg"),
        "replay": by_replay(kind, associations, images, first + images),
    }
    at = round_number % len(receivers)
    for receiver in receivers[at:] + receivers[:at]:
        for sender, send_batch in senders.items():
            sample = measure(receiver, sender, send_batch, (kind.name, associations, images, round_number))
            _show(sample)
            yield sample
    shutil.rmtree(outgoing)


def _show(sample: Sample) -> None:
    print(
        f"{sample.kind:14} {sample.associations} assoc. {sample.sender:9} {sample.receiver:26} "
        f"{sample.images_per_second:8.1f}/s "
        f"{sample.cpu_seconds_per_image * 1000:7.1f} ms CPU {sample.peak_megabytes:6.0f} MB",
        flush=True,
    )


def _quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def table(samples: list[Sample], load: tuple[float, float]) -> str:
    """The results as Markdown: medians over the rounds, ratios with their ranges."""
    lines = [
        "| image | associations | receiver | images/s | ratio to `storescp --fork` (range) | CPU ms/image | peak MB "
        "| p50 ms | p99 ms |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for kind, associations in dict.fromkeys((sample.kind, sample.associations) for sample in samples):
        case = [sample for sample in samples if (sample.kind, sample.associations) == (kind, associations)]
        for name in dict.fromkeys(sample.receiver for sample in samples):
            lines.append(f"| {kind} | {associations} | {name} | {_cells(case, name)} |")
    rounds = len({sample.round for sample in samples})
    note = (
        f"{rounds} interleaved rounds on {os.cpu_count()} cores; load average {load[0]:.1f} before and {load[1]:.1f} "
        "after. Images/s, ratio and CPU: sent by `storescu`; p50 and p99 of the answer: sent by replay."
    )
    return "\n".join([*lines, "", note, ""])


def _cells(case: list[Sample], name: str) -> str:
    """One receiver's cells of the table."""
    mine = [sample for sample in case if sample.receiver == name]
    sent = [sample for sample in mine if sample.sender == "storescu"]
    reference = {s.round: s.images_per_second for s in case if s.receiver == REFERENCE and s.sender == "storescu"}
    ratios = [sample.images_per_second / reference[sample.round] for sample in sent if reference]
    answers = [value for sample in mine for value in sample.milliseconds]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
    return " | ".join(
        (
            f"{statistics.median(sample.images_per_second for sample in sent):.1f}",
            ratio,
            f"{statistics.median(sample.cpu_seconds_per_image for sample in sent) * 1000:.1f}",
            f"{max(sample.peak_megabytes for sample in mine):.0f}",
            f"{_quantile(answers, 0.5):.1f}",
            f"{_quantile(answers, 0.99):.1f}",
        )
    )


def measurement(samples: list[Sample], load: tuple[float, float], command: str) -> Measurement:
    """What Pleura receives beside each other receiver, in images a second of ``storescu``."""
    sent = [sample for sample in samples if sample.sender == "storescu"]
    rate = {(one.kind, one.associations, one.round, one.receiver): one.images_per_second for one in sent}
    figures = []
    for kind, associations in dict.fromkeys((one.kind, one.associations) for one in sent):
        for peer in dict.fromkeys(one.receiver for one in sent if one.receiver != "Pleura"):
            rounds = sorted({one.round for one in sent})
            pairs = [[rate[kind, associations, number, name] for name in ("Pleura", peer)] for number in rounds]
            ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
            plural = "association" if associations == 1 else "associations"
            what = f"receiving {kind}, durable, {associations} {plural}"
            figures.append(Figure(what, "/s", ours, peer, theirs, spread([own / other for own, other in pairs])))
    return Measurement("ingest", command, tuple(figures), len({one.round for one in sent}), load)


def measure_all(rounds: int, quick: bool, names: list[str], associations: list[int]) -> Measurement:
    """The table's figures of the receivers that are installed."""
    before, folder = os.getloadavg()[0], Path(tempfile.mkdtemp(prefix="ingest-"))
    there = [name for name in names if shutil.which(RECEIVERS[name][1])]
    try:
        samples = run(rounds, quick, there, associations, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    only = " ".join(f'"{name}"' for name in there)
    numbers = " ".join(map(str, associations))
    command = (
        f"python -P -m benchmarks.ingest{' --quick' * quick} --rounds {rounds} --associations {numbers} --only {only}"
    )
    return measurement(samples, (before, os.getloadavg()[0]), command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="fewer images in a batch")
    parser.add_argument("--only", nargs="*", choices=sorted(RECEIVERS), help="these receivers")
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4, 8], help="so many at once")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="Pleura of another checkout beside this one")
    parser.add_argument("--table", type=Path, help="write the table to this file")
    parser.add_argument("--folder", type=Path, help="where to receive; the disk to measure")
    arguments = parser.parse_args()
    wanted = arguments.only or [name for name in RECEIVERS if name != TWO]
    names = [name for name in RECEIVERS if name in wanted and shutil.which(RECEIVERS[name][1])]
    if arguments.before:
        RECEIVERS[BEFORE] = ("PLEURA", sys.executable, partial(pleura_of, arguments.before.resolve()))
        names.append(BEFORE)
    load = os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix="ingest-", dir=arguments.folder))
    try:
        samples = run(arguments.rounds, arguments.quick, names, arguments.associations, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = table(samples, (load, os.getloadavg()[0]))
    raw = REPOSITORY / ".benchmarks" / f"ingest-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    raw.parent.mkdir(exist_ok=True)
    raw.write_text(json.dumps([asdict(sample) for sample in samples]))
    print(text)
    if "Pleura" in names:
        print("\n".join([HEAD, *(figure.row() for figure in measurement(samples, (load, load), "").figures)]))
    print(f"raw samples: {raw}")
    if arguments.table:
        arguments.table.parent.mkdir(parents=True, exist_ok=True)
        arguments.table.write_text(text)


if __name__ == "__main__":
    main()
