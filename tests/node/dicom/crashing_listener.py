"""A listener that kills itself with SIGKILL at a named point: run as ``python -m tests.node.dicom.crashing_listener``.

The points lie in subclasses and wrappers here, so that nothing in the product knows how to crash. Each hit is written
to ``hits`` in the store folder before the process dies.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import event

from config.settings import Eligibility, Listener
from db.engine import connect, migrate
from db.records import Ingest, ReceivedInstance, Refusal
from db.worklist import Worklist
from node.dicom.association_policy import Admission
from node.dicom.instance_store import Incoming, InstanceStore
from node.dicom.receiving import Intake, Policy
from node.dicom.storage_scp import StorageScp
from tests.rules import NO_RULES
from workers.clock import utc_now

POINTS = (
    "writing",
    "whole",
    "synced",
    "linked",
    "kept",
    "committing",
    "recorded",
    "rung",
    "settled",
)


class Trap:
    """Kills the process at the n-th passage of one point; any number of threads may pass."""

    def __init__(self, folder: Path, point: str, passage: int) -> None:
        self._folder = folder
        self._point = point
        self._left = passage
        self._lock = threading.Lock()

    def pass_by(self, point: str) -> None:
        """Pass ``point``."""
        if point != self._point:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                with (self._folder / "hits").open("a") as hits:
                    hits.write(f"{point}\n")
                    hits.flush()
                    os.kill(os.getpid(), signal.SIGKILL)


class TrappedIncoming(Incoming):
    """A data set that may not be whole when the process dies."""

    trap: Trap

    def write(self, data: bytes) -> None:
        super().write(data)
        self.trap.pass_by("writing")

    def sync(self) -> None:
        self.trap.pass_by("whole")
        super().sync()


class TrappedStore(InstanceStore):
    """A store that dies between the steps of keeping."""

    def __init__(self, folder: Path, trap: Trap) -> None:
        super().__init__(folder)
        self._trap = trap

    def temporary(self, preface: bytes = b"") -> Incoming:
        incoming = TrappedIncoming(self, preface)
        incoming.trap = self._trap
        return incoming

    def keep(self, incoming: Incoming) -> str:
        path = super().keep(incoming)
        self._trap.pass_by("kept")
        return path

    def settle(self, incoming: Incoming) -> None:
        super().settle(incoming)
        self._trap.pass_by("settled")

    def _link(self, source: Path, target: Path) -> None:
        self._trap.pass_by("synced")
        super()._link(source, target)
        self._trap.pass_by("linked")


class TrappedWorklist:
    """A database that the process outlives by a moment."""

    def __init__(self, worklist: Worklist, trap: Trap) -> None:
        self._worklist = worklist
        self._trap = trap

    def record_instance(
        self, received: ReceivedInstance, refusal: Refusal | None, pipeline: str, now: datetime
    ) -> Ingest:
        ingest = self._worklist.record_instance(received, refusal, pipeline, now)
        self._trap.pass_by("recorded")
        return ingest

    def is_own_result(self, sop_instance_uid: str) -> bool:
        return self._worklist.is_own_result(sop_instance_uid)


def main(folder: Path, point: str, passage: int) -> None:
    trap = Trap(folder, point, passage)
    listener = Listener(port=0)
    store = TrappedStore(folder, trap)
    store.prepare()
    engine = connect(f"sqlite:///{folder / 'test.sqlite'}")
    migrate(engine)

    def ring(jobs: Sequence[tuple[int, bool]]) -> None:
        trap.pass_by("rung")

    admission = Admission(listener)
    policy = Policy(Eligibility(), admission, (), "2.25", "0" * 64)
    intake = Intake(store, TrappedWorklist(Worklist(engine, NO_RULES), trap), ring, policy, utc_now)
    intake.recover()
    event.listen(engine, "commit", lambda connection: trap.pass_by("committing"))
    scp = StorageScp(listener, store, intake, admission)
    print(scp.start(), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
