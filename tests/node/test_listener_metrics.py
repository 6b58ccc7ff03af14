"""Figures never stand in the way of an answer: their files may vanish, and may not grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# A process of its own: prometheus_client has one way for all metrics of a process.
_SCRIPT = """
import logging, resource, shutil, sys
from pathlib import Path
from node.listener_metrics import open_instruments
logging.basicConfig()
folder = Path(sys.argv[1])
instruments = open_instruments(folder, "host-listener-0")
for path in folder.glob("metrics/*.db"):
    found = path.stat()
    assert found.st_blocks * 512 >= found.st_size, "it has its blocks"
if sys.argv[2] == "gone":
    shutil.rmtree(folder / "metrics")
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
for number in range(5000):
    instruments.time_cstore(number, 0.1)
    instruments.count_rejected(f"reason {number}")
instruments.count_accepted()
instruments.count_acknowledgement("AA")
"""


def _run(folder: Path, what: str) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", _SCRIPT, folder, what], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_disk_that_takes_no_more_is_told_of_once(tmp_path: Path) -> None:
    assert _run(tmp_path, "full").count("metrics are not counted: [Errno 27] File too large") == 1


def test_files_that_are_gone_keep_nobody(tmp_path: Path) -> None:
    assert _run(tmp_path, "gone") == ""
