"""An image that takes too much memory costs its job, and neither the worker's child nor the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits private memory")

CODE = """
from pathlib import Path
from workers.memory_limit import limit_memory

held = bytes(200 << 20)
limit_memory(LIMIT)
kept = bytes(50 << 20)
try:
    bytes(300 << 20)
except MemoryError:
    print("too much")
else:
    print("enough")
again = bytes(50 << 20)
print(Path("/proc/self/oom_score_adj").read_text().strip())
"""


@pytest.mark.parametrize(("limit", "answer"), [("200 << 20", "too much"), ("0", "enough")])
def test_a_process_may_take_so_much_more_and_is_the_first_to_end(limit: str, answer: str) -> None:
    command = [sys.executable, "-c", CODE.replace("LIMIT", limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [answer, "500"]
