"""What a process says of itself in the lock file that it holds, and what others read there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from workers.worker_id import free_places, host_name, occupied_places, running_parts

_HOLDER = """
import sys
from pathlib import Path
from workers.worker_id import at_place, take_slot

folder, part, device = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def hold():
    print("held", flush=True)
    sys.stdin.read()

if part in ("jobs", "deliveries"):
    held = take_slot(folder, part, device=device)
    hold()
else:
    with at_place(folder, part):
        hold()
"""


@contextmanager
def holding(folder: Path, part: str, device: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a place of ``part``, until it is killed."""
    command = [sys.executable, "-P", "-c", _HOLDER, str(folder), part, device]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_who_holds_a_place_says_version_process_start_and_device(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    with holding(tmp_path, "jobs", "gpu") as worker, holding(tmp_path, "listener") as listener:
        parts = {one.part: one for one in running_parts(tmp_path)}
        assert (parts["jobs"].process, parts["listener"].process) == (worker.pid, listener.pid)
    assert set(parts) == {"jobs", "listener"}
    assert {one.version for one in parts.values()} == {version("pleura")}
    assert (parts["jobs"].device, parts["listener"].device) == ("gpu", "")
    assert (parts["jobs"].host, parts["jobs"].claims) == (host_name(), f"{host_name()}/jobs/0/")
    assert all(one.started_at and before <= one.started_at < before + timedelta(minutes=1) for one in parts.values())
    assert running_parts(tmp_path) == ()


def test_the_claims_of_a_dead_worker_are_found_by_the_first_line_alone(tmp_path: Path) -> None:
    with holding(tmp_path, "deliveries"):
        assert free_places(tmp_path) == {}
    assert list(free_places(tmp_path).values()) == [f"{host_name()}/deliveries/0/"]


def test_a_part_of_an_older_version_is_seen_without_details(tmp_path: Path) -> None:
    with holding(tmp_path, "listener"):
        [path] = tmp_path.glob("*.lock")
        for text in (
            "reader-1/listener/0/",
            "",
            'reader-1/listener/0/\n{"version": "1.0',
            "reader-1/listener/0/\n[]\n",
        ):
            path.write_text(text)
            [one] = running_parts(tmp_path)
            assert (one.part, one.version, one.process, one.started_at) == ("listener", "", None, None)


def test_looking_makes_no_file(tmp_path: Path) -> None:
    """A file that is removed while others look at it must not come back without a name in it."""
    path = tmp_path / f"part-{host_name()}-listener-0.lock"
    path.symlink_to(tmp_path / "removed")
    assert occupied_places(tmp_path) == {} == free_places(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
