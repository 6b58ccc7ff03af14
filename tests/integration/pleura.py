"""A whole Pleura as a user runs it: ``pleura serve --config …`` as a process of its own, beside a real PACS.

The network in it is written by hand and finds a pneumothorax wherever the picture is bright, so that every frontal
image has exactly one segment and the test depends on no training.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from tests.models.samples import classifier_graph, manifest
from tests.orthanc import Orthanc, wait_until
from tests.ports import free_port

_REPOSITORY = Path(__file__).resolve().parents[2]
_PARTS = {
    "broker": "valkey",
    "listener": "listen",
    "worker": "jobs",
    "delivery": "deliveries",
    "scheduler": "scheduler",
    "hl7": "hl7",
    "admin": "admin",
}
_LABELS = """
[[labels]]
name = "pneumothorax"
code = { value = "36118008", scheme = "SCT", meaning = "Pneumothorax" }
threshold = 0.3
localised = true
map_threshold = 0.7
"""


@dataclass
class Pleura:
    """One node: its settings, its process while it runs, and every kill -9 that hit it.

    ``host`` is where its listener listens, ``prefix`` a command that runs another one elsewhere, as nsenter(1).
    """

    folder: Path
    port: int
    config: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    hits: list[str] = field(default_factory=list)
    host: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    _started_at: int = 0

    @property
    def log_file(self) -> Path:
        """What all its processes wrote."""
        return self.folder / "pleura.log"

    def start(self) -> None:
        """Start the process tree and wait until it takes associations."""
        with self.log_file.open("ab") as log:
            self._started_at = log.tell()
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "node.cli.main", "--config", str(self.config), "serve"],
                cwd=_REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TCP_NODELAY": "1", **self.environment},
            )
        wait_until(self.listens, "the listener of pleura serve", seconds=240, alive=self.check_alive)

    def listens(self) -> bool:
        """Whether the listener of this start has bound its port."""
        return f"{self.host}:{self.port}".encode() in self.log_file.read_bytes()[self._started_at :]

    def check_alive(self) -> None:
        """Raise with what this start said of itself, and the log's end, when the node has ended."""
        if self.process is None or self.process.poll() is not None:
            log = self.log_file.read_bytes()[self._started_at :].decode(errors="replace")
            said = [line for line in log.splitlines() if line.startswith(("pleura: ", "Waiting for "))]
            code = None if self.process is None else self.process.returncode
            raise AssertionError("\n".join([f"pleura serve has ended with {code}:", *said, "...", log[-4000:]]))

    def parts(self) -> dict[str, int]:
        """Process ids of the parts that run now, by name."""
        assert self.process is not None
        found = {}
        for child in children(self.process.pid):
            arguments = [word for word in command_line(child) if word != str(self.config)]
            for name, word in _PARTS.items():
                if any(word in text for text in arguments[-3:] + arguments[:1]):
                    found[name] = child
        return found

    def kill_part(self, name: str) -> None:
        """Kill -9 one part with whatever it started; ``pleura serve`` starts it again."""
        victim = wait_until(lambda: self.parts().get(name), f"the part {name}", alive=self.check_alive)
        for process in [victim, *descendants(victim)]:
            _kill(process)
        self.hits.append(name)

    def kill_everything(self) -> None:
        """Kill -9 the whole tree at once, as a machine does that loses its power."""
        assert self.process is not None
        for process in [self.process.pid, *descendants(self.process.pid)]:
            _kill(process)
        self.process.wait(30)
        self.hits.append("the whole tree")

    def stop(self) -> None:
        """End it as a service manager would."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill_everything()
            raise AssertionError("pleura serve did not stop within 60 s of SIGTERM") from None


def descendants(parent: int) -> list[int]:
    """Process ids of the children of a process, of their children, and so on."""
    found = []
    for child in children(parent):
        found += [child, *descendants(child)]
    return found


def status_of(process: int | str, key: str) -> int:
    """A number of ``/proc/PID/status`` (proc(5)): kilobytes of ``VmRSS`` or ``VmHWM``, ``Threads``."""
    found = re.search(rf"^{key}:\s+(\d+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return int(found.group(1)) if found else 0


def handles_of(process: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def children(parent: int) -> list[int]:
    """Process ids of the children of a process."""
    found = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue
    return found


def command_line(process: int) -> list[str]:
    """The words of its command; none where there is no such process, or it has ended and nobody has waited for it."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").strip("\0").split("\0")
    except OSError:
        return []


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def handwritten_network(folder: Path) -> str:
    """Settings of a node with the handwritten network alone; its files lie in ``folder``."""
    folder.mkdir()
    manifest(classifier_graph(folder / "bright.onnx", classes=1, bias=0.2), "bright", rest=_LABELS)
    return f"""
[models]
folder = "{folder}"
gate = ""
active = ["bright"]
"""


def write_config(folder: Path, **tables: Any) -> Path:
    """The configuration of a node with the handwritten network that completes a study soon.

    ``tables`` are those of the configuration; each is merged into what is here, a list of tables stands for itself.
    """
    values: dict[str, Any] = {
        "store": {"folder": str(folder / "store"), "minimum_free_bytes": 1024 * 1024},
        "triage": {"completion_seconds": 1},
        "workers": {"threads": 1},
        **tomllib.loads(handwritten_network(folder / "models")),
    }
    for name, given in tables.items():
        values[name] = {**values.get(name, {}), **given} if isinstance(given, dict) else given
    path = folder / "pleura.toml"
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


def _configure(
    folder: Path, port: int, pacs: Orthanc, sender: str, bundled: bool, verification: str, attempts: int
) -> Path:
    folder.mkdir(parents=True)
    models = "" if bundled else handwritten_network(folder / "models")
    config = folder / "pleura.toml"
    config.write_text(f"""
[listener]
ae_title = "PLEURA"
port = {port}
peers = [{{ ae_title = "{pacs.ae_title}" }}, {{ ae_title = "{sender}" }}]

[store]
folder = "{folder / "store"}"
minimum_free_bytes = 1048576
{models}
[workers]
backoff_seconds = 1
scheduler_interval_seconds = 0.5
reenqueue_after_seconds = 3
attempts = {attempts}
threads = 1

[triage]
completion_seconds = 2

[admin]
enabled = false

[[destinations]]
name = "pacs"
ae_title = "{pacs.ae_title}"
host = "127.0.0.1"
port = {pacs.dicom_port}
kinds = ["seg", "sr", "summary"]
verification = "{verification}"
verification_after_seconds = 2
""")
    return config


@contextmanager
def running_pleura(
    folder: Path,
    pacs: Orthanc,
    port: int | None = None,
    sender: str = "SENDER",
    bundled: bool = False,
    verification: str = "none",
    attempts: int = 20,
    more: str = "",
) -> Iterator[Pleura]:
    """Run a node that takes studies from ``pacs`` and ``sender`` and sends its results to ``pacs``.

    With ``bundled`` it uses Pleura's own models, as a new installation does. ``verification`` is how the PACS verifies
    what it holds. ``more`` stands at the end of the configuration.
    """
    listening = port or free_port()
    node = Pleura(folder, listening, _configure(folder, listening, pacs, sender, bundled, verification, attempts))
    node.config.write_text(node.config.read_text() + more)
    node.start()
    try:
        yield node
    finally:
        node.stop()
