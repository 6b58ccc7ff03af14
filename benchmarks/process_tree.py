"""What a process and its children cost, by proc(5)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(pid: int) -> list[int]:
    """A process, its children, their children, and so on."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                found += tree(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with its children, those that have ended too."""
    total = 0.0
    for number, process in enumerate(tree(pid)):
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15] if number == 0 else fields[11:13]))
    return total / _TICKS


def resident(pid: int) -> int:
    """Bytes in memory (RSS), process by process: what parent and child share counts twice. Cheap to ask."""
    total = 0
    for process in tree(pid):
        with suppress(OSError, IndexError):
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    return total


def proportional(pid: int) -> int:
    """Bytes in memory, where each page counts once among those who share it (PSS): what the machine has to have."""
    total = 0
    for process in tree(pid):
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
