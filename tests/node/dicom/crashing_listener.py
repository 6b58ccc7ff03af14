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
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from config.listener import Listener
from config.settings import Eligibility
from db import instances
from db.engine import connect, migrate
from db.group_commit import GroupCommit
from node.dicom.association_policy import AssociationPolicy
from node.dicom.instance_store import InstanceStore, SpoolFile
from node.dicom.receiving import InstanceReceiver, Policy
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
    "dispatched",
    "completed",
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


class TrappedSpoolFile(SpoolFile):
    """A data set that may not be whole when the process dies."""

    trap: Trap

    def write(self, data: bytes | memoryview) -> None:
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

    def temporary(self, preface: bytes = b"") -> SpoolFile:
        spool = TrappedSpoolFile(self, preface)
        spool.trap = self._trap
        return spool

    def keep(self, spool: SpoolFile) -> str:
        path = super().keep(spool)
        self._trap.pass_by("kept")
        return path

    def complete(self, spool: SpoolFile) -> None:
        super().complete(spool)
        self._trap.pass_by("completed")

    def _link(self, source: Path | str, target: Path | str) -> None:
        self._trap.pass_by("synced")
        super()._link(source, target)
        self._trap.pass_by("linked")


class TrappedDatabase(GroupCommit):
    """A database that the process outlives by a moment."""

    def __init__(self, engine: Engine, trap: Trap) -> None:
        super().__init__(engine, NO_RULES)
        self._trap = trap

    def write(self, command: Any, *args: Any, **kwargs: Any) -> Any:
        done = super().write(command, *args, **kwargs)
        if command is instances.record_instance:
            self._trap.pass_by("recorded")
        return done


def main(folder: Path, point: str, passage: int) -> None:
    trap = Trap(folder, point, passage)
    listener = Listener(port=0)
    store = TrappedStore(folder, trap)
    store.prepare()
    engine = connect(f"sqlite:///{folder / 'test.sqlite'}")
    migrate(engine)

    def enqueue(jobs: Sequence[tuple[int, bool]], queue: str) -> None:
        trap.pass_by("dispatched")

    association_policy = AssociationPolicy(listener)
    policy = Policy(Eligibility(), association_policy, (), "2.25", "0" * 64)
    receiver = InstanceReceiver(store, TrappedDatabase(engine, trap), enqueue, policy, utc_now)
    receiver.recover()
    event.listen(engine, "commit", lambda connection: trap.pass_by("committing"))
    scp = StorageScp(listener, store, receiver, association_policy)
    print(scp.start(), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
