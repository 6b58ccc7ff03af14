"""The start of ``pleura serve``: what can never work ends it with one sentence, what will pass is waited for and said.

*Ready* means that the parts have answered: the listener a C-ECHO, the page a request, the workers Celery's remote
control, with their networks loaded.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from config.settings import Settings
from db.states import JOBS
from node.dicom.storage_scu import FailedTlsError, RejectedError, SendError, echo
from node.monitoring.check import Check
from node.monitoring.extras import missing_extras
from node.monitoring.health import check_models
from node.monitoring.page_port import page_answers, reached
from node.monitoring.port_health import own_listener, ports_that_cannot_be_bound, unusable_certificates
from node.opening import ServeError, ShowMessage
from workers.analysis_queues import queues_here
from workers.enqueue import DELIVERIES, TaskQueue
from workers.worker_id import host_name

_PORT_SECONDS = 5.0
_PATIENCE_SECONDS = 20.0
_ANSWER_SECONDS = 3.0
_WORKERS = {JOBS: "the analysis worker", DELIVERIES: "the delivery worker"}


def _workers(settings: Settings) -> dict[str, str]:
    """The workers of this machine in words, by their queues."""
    queues = (*queues_here(settings.models), DELIVERIES)
    return {queue: _WORKERS.get(queue, f"the worker of {queue}") for queue in queues}


def check_configuration(settings: Settings, stop: threading.Event) -> None:
    """Look for what waiting cannot fix: models, libraries or certificates that are not there, ports that others have.

    Raises:
        ServeError: the node cannot run with these settings on this machine.
    """
    _demand(check_models(settings))
    for missing in missing_extras(settings):
        _demand(missing)
    for unusable in unusable_certificates(settings):
        _demand(unusable)
    end = time.monotonic() + _PORT_SECONDS
    while (found := next(ports_that_cannot_be_bound(settings), None)) is not None:
        problem, passing = found
        # The parts of a node that has just been killed may hold their ports for a moment, and a machine that starts, or
        # stands by for another one, gets its address later.
        if not passing or time.monotonic() > end or stop.wait(0.2):
            _demand(problem, passing=passing)


def wait_until_ready(settings: Settings, stop: threading.Event, show: ShowMessage) -> bool:
    """Wait until every part has answered, and say what is waited for; False where ``stop`` was set before.

    ``settings`` have the ports in use.
    """
    parts = Parts(settings)
    begun, last_message = time.monotonic(), ""
    try:
        while not stop.is_set():
            missing = list(parts.missing())
            if not missing:
                return True
            sentence = f"Waiting for {', '.join(missing)}; the log says more"
            if sentence != last_message and time.monotonic() - begun > _PATIENCE_SECONDS:
                last_message = sentence
                show(sentence)
            stop.wait(0.5)
        return False
    finally:
        parts.close()


@dataclass
class Parts:
    """The parts of a node on this machine, as a client sees them."""

    settings: Settings

    def __post_init__(self) -> None:
        self._task_queue = TaskQueue(self.settings.broker_url)

    def missing(self) -> Iterator[str]:
        """Each part that does not answer now."""
        settings = self.settings
        if not listener_answers(settings):
            yield "the listener"
        if settings.admin.enabled and not page_answers(settings.admin):
            yield "the admin page"
        if settings.hl7.enabled and not _connects(reached(settings.hl7.host), settings.hl7.port):
            yield "the HL7 listener"
        if settings.dicomweb.enabled and not _connects(reached(settings.dicomweb.host), settings.dicomweb.port):
            yield "the DICOMweb server"
        ready = self._task_queue.ready_workers()
        if ready is None:
            yield "the broker"
        else:
            here = {node.partition("@")[0].rstrip("0123456789") for node in ready if node.endswith(f"@{host_name()}")}
            yield from (name for queue, name in _workers(settings).items() if queue not in here)

    def close(self) -> None:
        """Close the connection to the broker."""
        self._task_queue.close()


def listener_answers(settings: Settings) -> bool:
    """Whether the listener of this node answers a C-ECHO, or refuses it."""
    listener = settings.listener
    # The library would log each connection that is refused.
    [port, *_] = listener.ports.values()
    if not _connects(reached(listener.host), port):
        return False
    try:
        echo(own_listener(settings, _ANSWER_SECONDS))
    except (RejectedError, FailedTlsError):
        return True  # it has no room for us, or asks for another certificate, and so it listens
    except (SendError, OSError):
        return False
    return True


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _demand(check: Check, *, passing: bool = False) -> None:
    if not check.ok:
        raise ServeError(f"{check.part}: {check.found}; {check.remedy}", passing=passing)
