"""Celery's own tools see a node: ``celery worker``, ``celery inspect`` and ``control``, Flower."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from db.states import JOBS
from tests.orthanc import wait_until
from tests.peers import skip_without
from tests.workers.conftest import Broker
from tests.workers.harness import Parts
from workers.celery import processes
from workers.enqueue import ANALYSE, message_settings

pytestmark = [pytest.mark.slow]

WORKER = ("worker", "-Q", "jobs", "-n", "jobs@here")


class CeleryTools:
    """A node's configuration, and Celery's command line on it."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._environment = os.environ | {"PLEURA_CONFIG": str(parts.config), "FLOWER_UNAUTHENTICATED_API": "true"}

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(arguments),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def inspect(self, what: str) -> dict[str, Any]:
        """What ``celery inspect`` says of each worker; nothing while no worker answers."""
        asked = self.ask("inspect", what, "--json", "--timeout", "5")
        answers: dict[str, Any] = json.loads(asked.stdout) if asked.returncode == 0 else {}
        return answers

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.parts.folder / "celery.log").open("ab") as log:
            process = subprocess.Popen(
                self._command(arguments), env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def log(self) -> str:
        return (self.parts.folder / "celery.log").read_text(errors="replace")

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-P", "-m", "celery", "-A", "workers.celery", *arguments]


@pytest.fixture
def tools(broker: Broker, tmp_path: Path) -> CeleryTools:
    return CeleryTools(Parts(tmp_path, broker, None))


@pytest.mark.campaign
def test_celery_starts_a_worker_and_its_tools_see_it_work(tools: CeleryTools, free_port: int) -> None:
    """The bundled networks, a worker that ``celery`` started, and a job whose states each tool tells."""
    if importlib.util.find_spec("flower") is None:
        skip_without("Flower is missing: pip install --group dev")
    with ExitStack() as stack:
        flower = f"http://127.0.0.1:{free_port}/api"
        stack.enter_context(tools.running("flower", "--address=127.0.0.1", f"--port={free_port}"))
        wait_until(lambda: _asked(f"{flower}/workers") is not None, "Flower")
        worker = stack.enter_context(tools.running(*WORKER))
        control = _control(tools.parts)
        wait_until(control.ping, "the worker to answer")
        tools.parts.take_in("1.2.3.100")
        tools.parts.take_in("1.2.3.101")
        wait_until(lambda: tools.parts.counts().get("jobs.done") == 2, "the jobs")

        assert tools.inspect("ping") == {"jobs@here": {"ok": "pong"}}
        inspect = control.inspect(timeout=5)
        assert inspect.active() == {"jobs@here": []}
        stats = inspect.stats()["jobs@here"]
        assert stats["total"] == {ANALYSE: 2}
        limits = Path(f"/proc/{stats['pool']['processes'][0]}/limits").read_text()
        assert re.search(r"Max data size +\d", limits), "a decoder cannot take all memory"
        assert stats["pool"]["max-concurrency"] == stats["prefetch_count"] == processes(tools.parts.settings, JOBS)
        assert [queue["name"] for queue in inspect.active_queues()["jobs@here"]] == ["jobs"]

        wait_until(lambda: "jobs@here" in (_asked(f"{flower}/workers?refresh=1") or {}), "the worker in Flower")
        tasks = wait_until(lambda: _succeeded(f"{flower}/tasks"), "the tasks in Flower")
        assert sorted((task["name"], task["args"]) for task in tasks) == [(ANALYSE, "(1,)"), (ANALYSE, "(2,)")]
        (queue,) = [each for each in _asked(f"{flower}/queues/length")["active_queues"] if each["name"] == "jobs"]
        assert queue["messages"] == 0

        control.shutdown()
        assert worker.wait(60) == 0


def test_a_worker_of_celery_that_cannot_be_set_up_ends_with_an_error(tools: CeleryTools) -> None:
    tools.parts.config.write_text(f'{tools.parts.config.read_text()}\n[models]\nactive = ["no-such-model"]\n')
    with tools.running(*WORKER) as worker:
        assert worker.wait(60) != 0
    assert "no-such-model" in tools.log()


def test_a_worker_needs_one_queue(tools: CeleryTools) -> None:
    asked = tools.ask("worker", "-Q", "jobs,deliveries")
    assert asked.returncode != 0
    assert asked.stderr == "pleura: a worker works off one queue: -Q jobs or -Q deliveries\n"


def test_wrong_settings_are_told_in_one_line(tools: CeleryTools) -> None:
    tools.parts.config.write_text("[workers]\nattempts = 0\n")
    asked = tools.ask("inspect", "ping")
    assert asked.returncode != 0
    assert "workers.attempts" in asked.stderr
    assert "Traceback" not in asked.stderr


def _control(parts: Parts) -> Any:
    """What ``celery inspect`` and ``celery control`` are made of; each of their commands takes a second to start."""
    app = Celery(set_as_current=False)
    app.conf.update(message_settings(parts.settings.broker_url))
    return app.control


def _asked(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


def _succeeded(url: str) -> list[dict[str, Any]]:
    """The tasks, once both have succeeded."""
    tasks = [task for task in (_asked(url) or {}).values() if task["state"] == "SUCCESS"]
    return tasks if len(tasks) == 2 else []
