"""A worker that is stopped while it starts."""

from __future__ import annotations

import os
import threading

import pytest
from celery import signals

from workers import celery as worker


@pytest.mark.parametrize("ready", [False, True])
def test_a_worker_that_never_came_to_take_messages_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch, ready: bool
) -> None:
    """What hangs is a loop of Celery that looks for no signal; a worker that has messages finishes them."""
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    monkeypatch.setattr(worker, "_STOP_WHILE_STARTING_SECONDS", 0.0)
    monkeypatch.setattr(worker._process, "ready", False)
    if ready:
        signals.worker_ready.send(sender=None)
    signals.worker_shutting_down.send(sender="jobs0@host", sig="SIGTERM", how="Warm", exitcode=0)
    assert ended.wait(0.3 if ready else 20) is not ready
