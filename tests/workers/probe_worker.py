"""A worker process whose work is a word: run as ``python -m tests.workers.probe_worker QUEUE FOLDER``.

Settings come from the environment as everywhere. Each event is one line, written whole, in ``FOLDER/events``:
``<time> <process> <word> <row id>``. What a row does is decided by its id: see :func:`work`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from config.settings import Settings, load
from workers.app import Handler, run_worker
from workers.place import Place

STUCK = 666
CRASHING = 667
SLOW = 668


def note(folder: Path, word: str, row_id: int) -> None:
    line = f"{time.time():.6f} {os.getpid()} {word} {row_id}\n"
    descriptor = os.open(folder / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def work(folder: Path, row_id: int) -> None:
    note(folder, "begin", row_id)
    if row_id == STUCK:
        # One call into C that never looks at signals of Python and holds the lock: what a hung native kernel does.
        sum(range(10**12))
    if row_id == CRASHING:
        os.abort()
    if row_id == SLOW:
        time.sleep(1)
    note(folder, "end", row_id)


def main() -> None:
    logging.basicConfig(level="INFO")
    queue, folder = sys.argv[1], Path(sys.argv[2])

    def compose(settings: Settings, here: Place) -> Handler:
        if (folder / "broken").exists():
            raise RuntimeError("no model")
        note(folder, here.prefix, 0)
        return lambda row_id: work(folder, row_id)

    run_worker(load(), queue, compose=compose)


if __name__ == "__main__":
    main()
