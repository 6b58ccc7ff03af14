"""A fuzz campaign against a whole node: ``make fuzz COUNT=20000``, ``python -P -m tests.fuzz.campaign --count 20000``.

So many data sets by C-STORE and PDU conversations, and HL7 messages and HTTP requests, all damaged, go to ``pleura
serve`` with a small network. Whatever comes, every C-STORE and each whole HL7 message is answered, no job ends as
*failed*, no process writes a traceback, and listeners and page neither end nor grow. Of five images four say that they
show a knee, so that the listener and not the worker has most to do: then so many images with broken code streams, from
the corpus of every encoder, go the worker's way in a process of their own (:mod:`tests.fuzz.code_streams`), which also
tells how much of the modules that read bytes of peers has run.
"""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from tests.campaigns.command import Say, parser_of, run_campaign
from tests.campaigns.outcome import Outcome
from tests.fuzz.conversations import conversation, hold
from tests.fuzz.data_sets import CONTEXTS, Wire, wire
from tests.fuzz.messages import framed, hl7_message, http_request
from tests.fuzz.peer import BrokenError, Peer
from tests.integration.pleura import Pleura, handles_of, handwritten_network, status_of
from tests.node.hl7.messages import order
from tests.orthanc import wait_until
from tests.ports import free_port
from workers.hl7.mllp import END, frame

LARGEST_LISTENER = 200 * 1024 * 1024
_GROWTH = 24 * 1024 * 1024
_HANDLES = 8
_WARM_UP = 0.4
_UNDER_WAY = ("queued", "running", "retrying")
_OURS = (0x0110, 0xA700)
_WATCHED = ("listener", "hl7", "admin")
_CODE_STREAM_GROWTH = 48 * 1024
_PART, _SENDERS = 500, 6
_IDLE_SECONDS = 20.0


@dataclass
class Seen:
    """What the peers saw; the lists must be empty."""

    statuses: Counter[int] = field(default_factory=Counter)
    acknowledgements: Counter[str] = field(default_factory=Counter)
    http: Counter[str] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        """Count what another peer saw, too."""
        self.statuses += other.statuses
        self.acknowledgements += other.acknowledgements
        self.http += other.http
        self.unanswered += other.unanswered


def run(
    folder: Path,
    seed: int,
    count: int,
    patience: float,
    say: Say,
    upper_layer: str = "fast",
    others: int | None = None,
) -> Outcome:
    """Run a campaign of ``count`` data sets and conversations, and as many (or ``others``) of everything else.

    ``patience``: seconds that the jobs may take after everything was sent.
    """
    others = count if others is None else others
    outcome, seen = Outcome("fuzz", seed), Seen()
    ports = {name: free_port() for name in _WATCHED}
    node = Pleura(folder, ports["listener"], _configured(folder, ports, upper_layer))
    database = folder / "store" / "pleura.sqlite"
    node.start()
    try:
        wait_until(lambda: b"Ready: " in node.log_file.read_bytes(), "all parts", 120, alive=node.check_alive)
        memory, handles = {}, {}
        for begin, end in ((0.0, _WARM_UP), (_WARM_UP, 1.0)):
            last = int(end * count)
            numbers = range(int(begin * count), last)
            _send(ports, seed, numbers, range(int(begin * others), int(end * others)), seen, say)
            wait_until(lambda: not _under_way(database), "the end of all jobs", patience, alive=node.check_alive)
            parts = {name: node.parts()[name] for name in _WATCHED}
            memory[last] = {name: status_of(process, "VmRSS") * 1024 for name, process in parts.items()}
            handles[last] = {name: handles_of(process) for name, process in parts.items()}
        outcome.faults += _growth(memory, handles)
        peak = status_of(node.parts()["listener"], "VmHWM") * 1024
        if peak > LARGEST_LISTENER:
            outcome.faults.append(f"the listener took {peak >> 20} MiB")
        jobs, errors = _jobs(database), _errors(database)
        if _acknowledgement(ports["hl7"], frame(order("LAST"))) != "AA":
            outcome.faults.append("the HL7 listener does not take an order any more")
    finally:
        node.stop()
    log = node.log_file.read_text(encoding="utf-8", errors="replace")
    outcome.faults += errors + _faults(seen, log, forgiving=upper_layer == "stock")
    streams = _code_streams(folder, seed, others, outcome)
    outcome.figures = {
        "data sets and conversations": f"{count} of each",
        "HL7 messages, HTTP requests and code streams": f"{others} of each",
        "C-STORE": _told({f"0x{status:04X}": n for status, n in seen.statuses.items()}),
        "jobs": _told(jobs),
        "acknowledgements": _told(seen.acknowledgements),
        "HTTP": _told(seen.http),
        **streams,
        "memory": ", ".join(
            f"{name} {before >> 20} to {memory[count][name] >> 20} MiB"
            for name, before in memory[int(_WARM_UP * count)].items()
        ),
    }
    return outcome


def _configured(folder: Path, ports: dict[str, int], upper_layer: str) -> Path:
    folder.mkdir(parents=True)
    models = handwritten_network(folder / "models")
    config = folder / "pleura.toml"
    config.write_text(f"""
[listener]
port = {ports["listener"]}
upper_layer = "{upper_layer}"

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
port = {ports["admin"]}

[hl7]
enabled = true
port = {ports["hl7"]}
message_timeout_seconds = 1
""")
    return config


def _send(ports: dict[str, int], seed: int, numbers: range, others: range, seen: Seen, say: Say) -> None:
    """Send everything with these numbers, the kinds beside each other, each in some parts."""
    kinds = (
        (_store, ports["listener"], numbers),
        (_converse, ports["listener"], numbers),
        (_order, ports["hl7"], others),
        (_browse, ports["admin"], others),
    )
    parts = [
        (send, port, seed, range(at, min(at + _PART, every.stop)))
        for send, port, every in kinds
        for at in range(every.start, every.stop, _PART)
    ]
    parts.sort(key=lambda part: part[3].start)
    with ThreadPoolExecutor(_SENDERS) as pool:
        sent = [pool.submit(send, port, seed, some) for send, port, seed, some in parts]
        for number, done in enumerate(as_completed(sent), 1):
            seen.add(done.result())
            say(f"{number}/{len(sent)} parts of everything sent")


def _store(port: int, seed: int, numbers: range) -> Seen:
    peer, seen, answered = None, Seen(), 0.0
    for number in numbers:
        made = wire(Random(f"data set {seed} {number}"), number)
        if number % 5:
            made = replace(made, data_set=made.data_set.replace(b"CHEST ", b"KNEE  "))
        if peer is not None and time.monotonic() - answered > _IDLE_SECONDS:
            peer.close()  # making a data set took so long that the listener may have ended an idle association
            peer = None
        try:
            peer = peer or Peer(port, CONTEXTS, calling="FUZZ", seconds=60)
            seen.statuses[_stored(peer, made)] += 1
            answered = time.monotonic()
        except BrokenError as error:
            seen.unanswered.append(f"data set {number} ({made.syntax}): {error}")
            peer = None
    if peer is not None:
        peer.close()
    return seen


def _stored(peer: Peer, made: Wire) -> int:
    context = 2 * CONTEXTS.index((made.sop_class, made.syntax)) + 1
    return peer.store(made.data_set, made.sop_instance, made.sop_class, context).status


def _converse(port: int, seed: int, numbers: range) -> Seen:
    for number in numbers:
        hold(port, conversation(Random(f"conversation {seed} {number}")))
    return Seen()


def _order(port: int, seed: int, numbers: range) -> Seen:
    """A whole message in a whole frame must be acknowledged; with anything else the connection may end."""
    seen = Seen()
    for number in numbers:
        random = Random(f"message {seed} {number}")
        made = hl7_message(random, number)
        raw = framed(random, made)
        answer = _acknowledgement(port, raw)
        seen.acknowledgements[answer] += 1
        if answer == "none" and made.startswith(b"MSH|^~\\&|") and raw == frame(made):
            seen.unanswered.append(f"HL7 message {number}")
    return seen


def _acknowledgement(port: int, raw: bytes) -> str:
    """The code in MSA-1, or *none*."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.settimeout(10)
        answer = b""
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while END not in answer and (chunk := connection.recv(65536)):
                answer += chunk
        except OSError:
            pass
    found = re.search(rb"MSA\|(\w\w)", answer)
    return found.group(1).decode() if found else "none"


def _browse(port: int, seed: int, numbers: range) -> Seen:
    seen = Seen()
    for number in numbers:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.settimeout(10)
            try:
                connection.sendall(http_request(Random(f"request {seed} {number}")))
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
            except OSError:
                answer = b""
        found = re.match(rb"HTTP/1\.1 (\d)\d\d", answer)
        seen.http[f"{found.group(1).decode()}xx" if found else "closed"] += 1
        if found and found.group(1) == b"5" and not answer.startswith((b"HTTP/1.1 501", b"HTTP/1.1 505")):
            seen.unanswered.append(f"HTTP request {number}, but with {answer[:40]!r},")
    return seen


def _jobs(database: Path) -> Counter[str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return Counter(dict(connection.execute("select state, count(*) from jobs group by state").fetchall()))


def _errors(database: Path) -> list[str]:
    """Why jobs have failed."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        failed = connection.execute("select id, error from jobs where state = 'failed' order by id").fetchall()
    return [f"job {number} failed: {error}" for number, error in failed]


def _under_way(database: Path) -> int:
    jobs = _jobs(database)
    return sum(jobs[state] for state in _UNDER_WAY)


def _faults(seen: Seen, log: str, forgiving: bool) -> list[str]:
    """What is wrong. ``forgiving``: an error in a thread of pynetdicom, with nothing of ours in it, ends one
    association alone. A line of another process may divide its traceback, so the pieces need not name pynetdicom.
    """
    found = [f"{what} was not answered" for what in seen.unanswered]
    tracebacks = [each.group() for each in re.finditer(r"Traceback[^\n]*\n(?:[ \t].*\n)*.*", log)]
    found += [f"traceback: {each[-1500:]}" for each in tracebacks if not (forgiving and _foreign(each))]
    found += [f"a process ended: {line}" for line in re.findall(r".*ended with status.*", log)]
    for status in _OURS:
        if seen.statuses[status]:
            found.append(f"{seen.statuses[status]} C-STORE were answered with 0x{status:04X}, a fault of ours")
    return found


def _foreign(traceback: str) -> bool:
    return not re.search(r"(?<!site-packages)/(?:node|workers|db|models)/\w+", traceback)


def _growth(memory: dict[int, dict[str, int]], handles: dict[int, dict[str, int]]) -> list[str]:
    """What has grown between the warm-up and the end."""
    (before, after), (held, holds) = memory.values(), handles.values()
    found = [
        f"{part} has grown by {after[part] - before[part] >> 20} MiB"
        for part in before
        if after[part] > before[part] + _GROWTH
    ]
    return found + [
        f"{part} holds {holds[part]} files, {held[part]} before" for part in held if holds[part] > held[part] + _HANDLES
    ]


def _code_streams(folder: Path, seed: int, count: int, outcome: Outcome) -> dict[str, str]:
    """Run the broken code streams in a process of their own: a decoder that ends it is a fault."""
    answer = folder / "code-streams.json"
    command = [sys.executable, "-P", "-m", "tests.fuzz.code_streams", "--json", str(answer)]
    done = subprocess.run(
        [*command, "--seed", str(seed), "--count", str(count)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        outcome.faults.append(f"code streams ended their process with {done.returncode}: {done.stderr[-1500:]}")
        return {}
    result = json.loads(answer.read_text())
    outcome.faults += result["faults"]
    if result["grown"] > _CODE_STREAM_GROWTH:
        outcome.faults.append(f"broken code streams let a worker grow by {result['grown'] >> 10} MiB")
    ends = Counter[str]()
    for name, number in result["ends"].items():
        ends["analysed" if name.endswith("analysed") else "not analysed"] += number
    seen = {Path(name).stem: f"{100 * share:.0f} %" for name, share in result["seen"].items()}
    return {"broken code streams": _told(ends), "statements that ran": _told(seen)}


def _told(counts: dict[str, int] | dict[str, str] | Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="so many data sets and conversations (20,000)")
    parser.add_argument("--others", type=int, help="so many of everything else (as many)")
    parser.add_argument("--upper-layer", choices=("fast", "stock"), default="fast", help="listener.upper_layer")
    given = parser.parse_args()
    day, layer = 24 * 3600, given.upper_layer
    run_campaign(
        given, lambda folder, say: run(folder / "node", given.seed, given.count, day, say, layer, given.others)
    )


if __name__ == "__main__":
    main()
