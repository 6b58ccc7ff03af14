"""A worker whose child cannot be set up: what it ends with, and what `pleura serve` does then."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from node.supervisor import Node, Part
from tests.workers.conftest import Broker
from tests.workers.harness import Parts

_FAILS = """
import sys
from pathlib import Path
from config.settings import load
from db.engine import connect
from models.runtime.executor import ModelLoadError, ModelMemoryError
from workers.celery import WorkerError, run_worker

def compose(settings, here):
    if sys.argv[2] == "database":
        connect("postgresql://nobody@127.0.0.1:1/none").connect()
    raise {"memory": ModelMemoryError, "file": ModelLoadError}[sys.argv[2]]("the network is not there")

try:
    run_worker(load(Path(sys.argv[1])), "jobs", compose=compose)
except WorkerError as error:
    sys.exit(error.code)
"""


@pytest.mark.parametrize(
    ("cause", "code"),
    [("memory", os.EX_UNAVAILABLE), ("database", os.EX_UNAVAILABLE), ("file", os.EX_CONFIG)],
)
def test_only_what_no_other_start_can_help_is_told_as_a_fault_of_the_configuration(
    broker: Broker, tmp_path: Path, cause: str, code: int
) -> None:
    config = tmp_path / "pleura.toml"
    config.write_text(f'[store]\nfolder = "{tmp_path / "store"}"\n[broker]\nurl = "{broker.url}"\n')
    command = [sys.executable, "-P", "-c", _FAILS, str(config), cause]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    assert "the jobs worker cannot be set up" in done.stderr


def test_a_worker_that_meets_no_database_when_it_is_set_up_is_started_again_and_loses_no_job(
    broker: Broker, tmp_path: Path
) -> None:
    parts = Parts(tmp_path, broker, None, processes=1)
    parts.take_in_next(2)
    for number in range(2):
        parts.arm(f"setting-up.{number}", "connection")
    worker = Part("worker", [sys.executable, "-P", "-m", "tests.workers.fallible_worker", "jobs", str(parts.config)])
    node, stop = Node(parts.settings), threading.Event()
    node._parts = [worker]
    worker.start(time.monotonic())
    supervising = threading.Thread(target=node.supervise, args=(stop,))
    supervising.start()
    parts.start("deliveries")
    try:
        parts.wait_until(lambda: parts.counts().get("jobs.done") == 2, "both images", seconds=120)
    finally:
        stop.set()
        supervising.join()
        node.stop()
        parts.stop()
    assert ("setting-up", "connection") in parts.hits()
