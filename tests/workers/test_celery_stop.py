"""A worker that is stopped while it, or one of its children, starts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from celery import signals

from db.ending import Ending
from tests.orthanc import wait_until
from tests.workers.conftest import Broker
from workers import celery as worker

_ONE_CHILD_STARTS_FOR_LONG = """
import sys, time
from pathlib import Path
from config.settings import load
from workers.celery import run_worker

def compose(settings, here):
    if here.index:
        time.sleep(300)
    return lambda row: None

run_worker(load(Path(sys.argv[1])), "jobs", compose=compose)
"""


def test_a_child_that_is_not_set_up_yet_holds_up_no_worker_that_is_to_end(broker: Broker, tmp_path: Path) -> None:
    """It waits for a database that hangs, or loads networks on a busy machine."""
    config, log = tmp_path / "pleura.toml", tmp_path / "log.txt"
    config.write_text(
        f'[store]\nfolder = "{tmp_path / "store"}"\n[broker]\nurl = "{broker.url}"\n[workers]\nprocesses = 2\n'
    )
    with log.open("wb") as output:
        command = [sys.executable, "-P", "-c", _ONE_CHILD_STARTS_FOR_LONG, str(config)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until(lambda: "ready." in log.read_text(), "a worker that takes messages", seconds=120)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()


@pytest.mark.parametrize("ready", [False, True])
def test_a_worker_that_never_came_to_take_messages_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch, ready: bool
) -> None:
    """What hangs is a loop of Celery that looks for no signal; a worker that has messages finishes them."""
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    monkeypatch.setattr(worker, "OF_THIS_PROCESS", Ending())
    monkeypatch.setattr(worker, "_STOP_WHILE_STARTING_SECONDS", 0.0)
    monkeypatch.setattr(worker._process, "ready", False)
    if ready:
        signals.worker_ready.send(sender=None)
    signals.worker_shutting_down.send(sender="jobs0@host", sig="SIGTERM", how="Warm", exitcode=0)
    assert ended.wait(0.3 if ready else 20) is not ready
