"""The real workers with a made-up network, and with places where they can be killed: named points in their work.

``python -m tests.workers.fallible_worker QUEUE CONFIG``. A point is armed by a file ``kill/<point>.<number>`` in the
store folder that says whom to kill, ``child`` or ``parent``; the first process that comes by takes the file away,
writes the hit to ``hits`` and kills. So each arming hits once, and the log says that it did. With ``nobody`` it waits
there instead, until the file ``go`` is there; with ``connection`` it meets a database that does not answer.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from config.settings import Settings, load
from db import deliveries, jobs
from db.database import Database, Step
from db.engine import connect
from models.contract import Finding, ModelInput, ModelUse, Prediction
from models.model_spec import Code
from models.runtime.executor import RunsOn
from tests.fakes import OneByOne
from tests.rules import NO_RULES
from tests.workers.results.sources import lung_fields
from workers.celery import Handler, run_worker
from workers.composition import analysis_handler, delivery_handler
from workers.model_state_resolver import ModelStateResolver, ResolvedModels, States
from workers.worker_id import WorkerId

PIPELINE = "f" * 64
MODEL = ModelUse("made-up", "1", "Made up", "0" * 64, "2.25.1")
STUCK_ROWS = 33
POINTS: dict[Callable[..., Any], tuple[str, str]] = {
    jobs.claim: ("", "job-claimed"),
    jobs.finish: ("results-written", "job-finished"),
    deliveries.claim_with_group: ("", "delivery-claimed"),
    deliveries.sent: ("object-sent", "delivery-noted"),
}
"""The names of the points before and after a command."""


class Points:
    """Places where this process, or its parent, is killed if somebody has armed them."""

    def __init__(self, folder: Path) -> None:
        self._armed = folder / "kill"
        self._hits = folder / "hits"

    def reach(self, point: str) -> None:
        if not point:
            return
        for armed in sorted(self._armed.glob(f"{point}.*")):
            victim = armed.read_text()
            try:
                armed.unlink()
            except FileNotFoundError:
                continue
            with self._hits.open("a") as hits:
                hits.write(f"{point} {victim} {os.getpid()}\n")
            if victim == "connection":
                connect("postgresql://nobody@127.0.0.1:1/none").connect()
            if victim == "nobody":
                self._wait()
                continue
            os.kill(os.getppid() if victim == "parent" else os.getpid(), signal.SIGKILL)
            if victim == "parent":
                time.sleep(60)  # the kernel kills this child when its parent is gone

    def _wait(self) -> None:
        end = time.monotonic() + 60
        while not (self._armed.parent / "go").exists() and time.monotonic() < end:
            time.sleep(0.05)


class FallibleDatabase(Database):
    """The database, with a point before and after what changes it."""

    def __init__(self, settings: Settings, points: Points) -> None:
        super().__init__(connect(settings.database_url), NO_RULES)
        self._points = points

    def write(self, command: Any, *args: Any, **kwargs: Any) -> Any:
        before, after = POINTS.get(command, ("", ""))
        self._points.reach(before)
        done = super().write(command, *args, **kwargs)
        self._points.reach(after)
        return done

    def write_all(self, steps: Sequence[Step]) -> list[Any]:
        before, after = POINTS.get(steps[0][0], ("", "")) if steps else ("", "")
        self._points.reach(before)
        done = super().write_all(steps)
        self._points.reach(after)
        return done


class MadeUpNetwork(OneByOne):
    """Finds the same bright square in every image; one with STUCK_ROWS rows it never finishes."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def predict(self, model_input: ModelInput) -> Prediction:
        self._points.reach("predicting")
        rows, columns = model_input.shape
        if rows == STUCK_ROWS:
            # One call into C that holds the interpreter's lock, as a hung native kernel would.
            sum(range(10**13))
        mask = np.zeros((rows, columns), dtype=np.bool_)
        mask[rows // 4 : rows // 2, columns // 4 : columns // 2] = True
        code = Code("36118008", "SCT", "Pneumothorax")
        finding = Finding("pneumothorax", code, MODEL.name, 0.9, 0.5, mask=mask)
        return Prediction(
            shape=(rows, columns), findings=(finding,), models=(MODEL,), lung_fields=lung_fields((rows, columns))
        )


class Unswitched(ModelStateResolver):
    """Has one network, and no model that could be switched."""

    def __init__(self, points: Points) -> None:
        self._models = ResolvedModels(MadeUpNetwork(points))

    @property
    def runs_on(self) -> RunsOn:
        return "cpu"

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def other_files(self) -> dict[str, str]:
        return {}

    def resolve(self, states: States) -> ResolvedModels:
        return self._models


def compose(queue: str, settings: Settings, here: WorkerId) -> Handler:
    points = Points(settings.store.folder)
    points.reach("setting-up")
    database = FallibleDatabase(settings, points)
    if queue == "deliveries":
        return delivery_handler(settings, here, database=database)
    return analysis_handler(settings, here, database=database, load=lambda _: (Unswitched(points), PIPELINE))


def main(arguments: Sequence[str]) -> None:
    queue, config = arguments
    logging.basicConfig(level="INFO", format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    run_worker(load(Path(config)), queue, compose=partial(compose, queue))


if __name__ == "__main__":
    main(sys.argv[1:])
