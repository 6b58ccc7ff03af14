"""The process tree of ``pleura serve``: supervises broker, listener, workers, scheduler and admin page.

Each part is the same command that runs alone in a distributed set-up, so that there is one way to start a listener. A
part that dies is started again. The store folder is locked while database or broker are the node's own, so that two
trees never share those. Nodes on several machines may share a store where both are servers.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from config.settings import Settings
from db.engine import connect
from db.states import JOBS
from node.embedded_broker import BrokerError, prepare_socket, server_binary, server_command, wait_until_ready
from node.opening import ServeError, ShowMessage, demand_own_store, open_database, store_problem
from node.startup import check_configuration
from node.startup import wait_until_ready as wait_for_parts
from workers.analysis_queues import analysis_queues, queues_here

log = logging.getLogger("pleura.serve")

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 20.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_TRIES = 3


@dataclass
class Part:
    """One child process: how to start it, and its state."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] | None = None
    log: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    pause: float = _FIRST_PAUSE
    start_at: float = 0.0
    misconfigured: int = 0
    """So many of its latest ends in a row were for its configuration, as it said."""

    def start(self, now: float) -> None:
        """Start the process; it gets SIGTERM when this one dies for any reason."""
        if self.prepare is not None:
            self.prepare()
        with self.log.open("ab") if self.log is not None else nullcontext() as output:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_parent,
            )
        self.started_at = now
        log.info("started %s (process %d)", self.name, self.process.pid)

    def start_again(self, now: float) -> None:
        """Start it once more; where the machine cannot just now (memory, processes, a full disk), later."""
        try:
            self.start(now)
        except (OSError, subprocess.SubprocessError, BrokerError) as error:
            self._plan(now, f"cannot be started: {error}")

    def ended(self) -> bool:
        """Whether the process has ended and no restart is planned yet."""
        return self.process is not None and self.process.poll() is not None

    def plan_restart(self, now: float) -> None:
        """Note the end of the process and when to start it again; the pause grows if it ended soon after its start."""
        assert self.process is not None
        lived = now - self.started_at
        self.misconfigured = self.misconfigured + 1 if self.process.returncode == os.EX_CONFIG else 0
        if lived > _LONGEST_PAUSE:
            self.pause = _FIRST_PAUSE / 2
        self._plan(now, f"ended with status {self.process.returncode} after {lived:.1f} s")
        self.process = None

    def _plan(self, now: float, what: str) -> None:
        self.pause = min(self.pause * 2, _LONGEST_PAUSE)
        self.start_at = now + self.pause
        log.error("%s %s; starting it again in %.1f s", self.name, what, self.pause)


def _die_with_parent() -> None:
    """Let the kernel end this child with its parent (prctl(2)); a new session shields it from a terminal's Ctrl-C."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def pleura_command(config: Path | None, *arguments: str) -> list[str]:
    """Command line of a part. ``-P`` prevents a folder ``config/`` in the working directory from shadowing ours."""
    options = ["--config", str(config.absolute())] if config is not None else []
    return [sys.executable, "-P", "-m", "node.cli.main", *options, *arguments]


def free_ports(host: str, count: int) -> tuple[int, ...]:
    """Different free TCP ports of ``host``; requested one after the other, a port could come twice."""
    with ExitStack() as probes:
        servers = [probes.enter_context(socket.create_server((host, 0))) for _ in range(count)]
        return tuple(int(server.getsockname()[1]) for server in servers)


def free_port(host: str) -> int:
    """A TCP port of ``host`` that is free now."""
    return free_ports(host, 1)[0]


def lock_store(folder: Path) -> IO[str]:
    """Lock the store folder for this process tree; the lock ends with the process.

    Raises:
        ServeError: another node has locked it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "pleura.lock").open("a+", encoding="ascii")
    except OSError as error:
        raise store_problem(folder, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ServeError(f"another node is running on {folder}; stop it, or set store.folder", passing=True) from error
    return lock


def parts_of(settings: Settings, config: Path | None, environment: dict[str, str]) -> list[Part]:
    """The parts of a node in the order of starting; a broker only if ``broker.url`` is not set."""
    parts = []
    if settings.broker.url is None:
        socket_path = settings.broker_socket
        command = server_command(server_binary(settings.broker.server), socket_path)
        parts.append(Part("broker", command, prepare=lambda: prepare_socket(socket_path, settings.store.folder)))
    commands = {
        "listener": ("listen",),
        **{queue.replace(JOBS, "worker"): ("worker", "--queue", queue) for queue in queues_here(settings.models)},
        "delivery": ("worker", "--queue", "deliveries"),
        "scheduler": ("scheduler",),
        "admin": ("admin",),
        "hl7": ("hl7",),
        "dicomweb": ("dicomweb",),
    }
    for name in ("admin", "hl7", "dicomweb"):
        if not getattr(settings, name).enabled:
            del commands[name]
    for name, arguments in commands.items():
        parts.append(Part(name, pleura_command(config, *arguments), environment))
    return parts


_PORTS = (("listener", "port"), ("listener", "tls_port"), ("admin", "port"), ("hl7", "port"), ("dicomweb", "port"))


def with_ports(settings: Settings) -> Settings:
    """The settings with a free port in place of each 0."""
    ports = iter(free_ports(settings.listener.host, len(_PORTS)))
    for part, key in _PORTS:
        section, port = getattr(settings, part), next(ports)
        if getattr(section, key) == 0:
            settings = settings.model_copy(update={part: section.model_copy(update={key: port})})
    return settings


class Node:
    """A running process tree."""

    def __init__(self, settings: Settings, config: Path | None = None, log: Path | None = None) -> None:
        """Prepare a node; nothing is started yet. A port of 0 is replaced by a free one in ``settings``.

        The output of the parts goes to this process' own output, or is appended to the file ``log``.
        """
        settings = self.settings = with_ports(settings)
        self.port = next(iter(settings.listener.ports.values()))
        self.admin_port, self.hl7_port = settings.admin.port, settings.hl7.port
        environment = {
            f"PLEURA_{part.upper()}__{key.upper()}": str(getattr(getattr(settings, part), key)) for part, key in _PORTS
        }
        self._parts = parts_of(settings, config, environment)
        for part in self._parts:
            part.log = log
        self._lock: IO[str] | None = None
        self._ready = False

    def start(self, stop: threading.Event | None = None, show: ShowMessage = log.warning) -> bool:
        """Lock the store, wait for the database and migrate it, and start every part; False if ``stop`` came before.

        Raises:
            ServeError: the store is in use by a node with a database or broker of its own, or cannot be written, or
                something is wrong that waiting cannot fix.
            BrokerError: the embedded broker does not start.
        """
        stop = stop or threading.Event()
        if self.settings.broker.url is None or self.settings.database_url.startswith("sqlite"):
            self._lock = lock_store(self.settings.store.folder)
        check_configuration(self.settings, stop)
        for queue in set(analysis_queues(self.settings.models)).difference(queues_here(self.settings.models)):
            show(f"No GPU here: {queue} is left to workers on other machines")
        if not open_database(self.settings, stop, show):
            return False
        self._demand_own_store()
        for part in self._parts:
            part.start(time.monotonic())
            if part.name == "broker" and part.process is not None:
                wait_until_ready(part.process, self.settings.broker_socket)
        return True

    def _demand_own_store(self) -> None:
        engine = connect(self.settings.database_url)
        try:
            demand_own_store(self.settings.store.folder, engine)
        finally:
            engine.dispose()

    def wait_until_ready(self, stop: threading.Event, show: ShowMessage = log.warning) -> bool:
        """Wait until each part has answered; False if ``stop`` came before."""
        self._ready = wait_for_parts(self.settings, stop, show)
        return self._ready

    def wait_for_listener(self, seconds: float = 30) -> bool:
        """Wait until the listener accepts connections; False after ``seconds``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                socket.create_connection((self.settings.listener.host, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return True
        return False

    def supervise(self, stop: threading.Event) -> None:
        """Restart parts that end, until ``stop`` is set.

        What a part takes for its configuration may be something that passes after all, and a node that has ended for it
        stays away: only one that is not ready yet ends, and only after the same of the next starts.

        Raises:
            ServeError: a part has ended for its configuration again and again before the node was ready; it has said
                why.
        """
        while not stop.wait(0.2):
            now = time.monotonic()
            for part in self._parts:
                if part.ended():
                    part.plan_restart(now)
                    if part.misconfigured >= _TRIES and not self._ready:
                        raise ServeError(f"the {part.name} cannot run with this configuration; see above")
                elif part.process is None and now >= part.start_at:
                    part.start_again(now)

    def processes(self) -> dict[str, int]:
        """Process identifiers of the parts that run, by name."""
        return {part.name: part.process.pid for part in self._parts if part.process is not None}

    def stop(self) -> None:
        """Stop the parts, the broker last, and unlock the store."""
        for part in [part for part in self._parts if part.name != "broker"]:
            _signal(part)
        for part in [part for part in self._parts if part.name != "broker"]:
            _end(part)
        for part in [part for part in self._parts if part.name == "broker"]:
            _signal(part)
            _end(part)
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        log.info("stopped")


def _signal(part: Part) -> None:
    if part.process is not None and part.process.poll() is None:
        part.process.terminate()


def _end(part: Part) -> None:
    if part.process is None:
        return
    try:
        part.process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        log.error("%s did not stop within %.0f s and was killed", part.name, _GRACE_SECONDS)
        # The whole session: a stuck pool process must not outlive its worker.
        os.killpg(part.process.pid, signal.SIGKILL)
        part.process.wait()
    part.process = None
