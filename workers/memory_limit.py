"""A limit on the memory of the process that decodes what peers have sent, so that no image takes the machine down."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

_OWN = Path("/proc/self")
_FIRST_TO_END = "500"  # proc(5): from -1000 to 1000, and 0 is what the listener, the page and the database have


def limit_memory(more_bytes: int) -> None:
    """Let this process take ``more_bytes`` more than it has; 0: as much as there is.

    Beyond that an allocation fails (:exc:`MemoryError`). Where the whole machine runs out of memory, the kernel ends
    this process first. Only Linux can do either.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError):  # /proc is read-only in some containers
        (_OWN / "oom_score_adj").write_text(_FIRST_TO_END)
    if more_bytes:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        wanted = _private_bytes() + more_bytes
        resource.setrlimit(
            resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def _private_bytes() -> int:
    """What counts to RLIMIT_DATA: private memory that may be written (getrlimit(2))."""
    lines = (_OWN / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
