"""Claims of workers that died are found by the lock files that no process holds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tests.workers.builders import NOON
from tests.workers.test_worker_id import holding
from workers.dead_workers import DeadWorkers
from workers.worker_id import at_place, host_name, running_parts, take_slot, worker_id_of

# Another process: a lock of POSIX is one process's own. It says when it holds the place, and ends with its input.
_WORKER = """
import pathlib, sys, workers.worker_id as places
places.host_name = lambda: sys.argv[2]
slot, lock = places.take_slot(pathlib.Path(sys.argv[1]), "jobs")
print(slot, flush=True)
sys.stdin.read()
"""


@contextmanager
def a_worker(folder: Path, host: str) -> Iterator[int]:
    command = [sys.executable, "-P", "-c", _WORKER, str(folder), host]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


class Watch:
    """A clock that stands until it is set, and what was released."""

    def __init__(self, folder: Path) -> None:
        self.seconds = 0.0
        self.released: list[str] = []
        self.dead = DeadWorkers(folder, self._release, lambda: self.seconds)

    def _release(self, prefix: str, now: datetime) -> None:
        self.released.append(prefix)

    def at(self, seconds: float) -> list[str]:
        self.seconds = seconds
        self.dead.step(NOON)
        return self.released


def test_a_killed_container_is_released_although_its_host_name_never_comes_back(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    with a_worker(tmp_path, "4f1c"):
        assert watch.at(0) == watch.at(100) == []
    with a_worker(tmp_path, "9a2b") as slot:
        assert slot == 0
        assert watch.at(101) == []
        assert watch.at(116) == ["4f1c/jobs/0/"]
        assert watch.at(200) == ["4f1c/jobs/0/"]
    assert not list(tmp_path.glob("worker-4f1c*"))


def test_a_worker_that_comes_back_in_time_keeps_its_place(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    with a_worker(tmp_path, "host"):
        pass
    assert watch.at(0) == watch.at(14) == []
    with a_worker(tmp_path, "host") as slot:
        assert slot == 0
        assert watch.at(20) == watch.at(40) == []
    assert watch.at(41) == []


def test_the_prefix_covers_the_claims_of_one_place(tmp_path: Path) -> None:
    with take_slot(tmp_path, "jobs")[1] as lock:
        lock.seek(0)
        prefix = lock.readline().rstrip("\n")
    assert worker_id_of("jobs", 0, 3).name.startswith(prefix)
    assert not any(worker_id_of("jobs", slot, 3).name.startswith(prefix) for slot in range(1, 12))
    assert prefix.startswith(f"{host_name()}/")


def test_lock_files_of_other_parts_do_not_pile_up_and_what_a_scheduler_was_sending_is_free(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    with at_place(tmp_path, "scheduler") as place:
        assert [one.place for one in running_parts(tmp_path)] == [place]
        with holding(tmp_path, "scheduler") as other, holding(tmp_path, "listener"):
            assert watch.at(0) == watch.at(100) == []
            other.kill()
            other.wait()
            assert watch.at(101) == watch.at(115) == []
            assert watch.at(117) == [f"{host_name()}/scheduler/1/"]
        watch.at(118)
        assert watch.at(134) == [f"{host_name()}/scheduler/1/", f"{host_name()}/listener/0/"]
        # To look at its own lock file did not let its own lock go.
        with holding(tmp_path, "scheduler"):
            assert sorted(one.place for one in running_parts(tmp_path)) == [place, f"{host_name()}-scheduler-1"]
    assert [path.name for path in tmp_path.glob("*.lock")] == [f"part-{host_name()}-scheduler-1.lock"]


def test_a_lock_file_without_a_name_releases_nothing(tmp_path: Path) -> None:
    (tmp_path / "worker-host-jobs-0.lock").touch()
    watch = Watch(tmp_path)
    assert watch.at(0) == watch.at(60) == []
    assert not list(tmp_path.iterdir())
