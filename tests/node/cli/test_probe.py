"""`pleura probe`: the health check of a container follows the settings, and is about the one part in it.

tests/node/web/test_https.py asks a page with a certificate.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from node.cli.main import cli
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
# A process that is one of the parts, as others see it.
PART = """
import sys
from pathlib import Path
from workers import worker_id
if sys.argv[4]:
    worker_id.socket.gethostname = lambda: sys.argv[4]
_, lock = worker_id.take_slot(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    file = tmp_path / "pleura.toml"
    file.write_text(f'[store]\nfolder = "{tmp_path}"\n[admin]\nport = {free_port()}\n')
    return file


def _probe(configuration: Path, part: str) -> Result:
    return CliRunner().invoke(cli, ["--config", str(configuration), "probe", part])


@pytest.mark.parametrize(("part", "kind"), [("jobs", "worker"), ("scheduler", "part")])
def test_a_part_runs_where_its_process_is(configuration: Path, part: str, kind: str) -> None:
    gone = _probe(configuration, part)
    assert (gone.exit_code, gone.stderr) == (1, f"pleura: {part} does not run here\n")
    for host, healthy in (("another-container", False), ("", True)):
        with subprocess.Popen(
            [sys.executable, "-P", "-c", PART, str(configuration.parent), part, kind, host],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"held\n"
            assert (_probe(configuration, part).exit_code == 0) is healthy
            assert _probe(configuration, "hl7").exit_code == 1
            running.communicate()


@pytest.mark.parametrize("part", ["admin", "serve"])
def test_what_is_not_there_is_said(configuration: Path, part: str) -> None:
    assert _probe(configuration, part).exit_code == 1
