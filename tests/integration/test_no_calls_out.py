"""A node contacts what is configured and nobody else, and what it keeps is closed to others.

A whole node runs in a network that leads nowhere, where each packet that is not for loopback and each name that is
looked up is written down.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.studies import STUDY_KEYWORDS, frontal
from tests.peers import skip_without

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.peer("unshare"), pytest.mark.peer("ip")]

ROOT = Path(__file__).resolve().parents[2]
CALLS_OUT = """
import socket
for address in (("198.51.100.7", 443), ("2001:db8:1::7", 443)):
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        probe.settimeout(0.5)
        probe.connect_ex(address)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.sendto(b"x", ("198.51.100.8", 514))
try:
    socket.getaddrinfo("telemetry.example.org", 443)
except socket.gaierror:
    pass
"""


def watched(folder: Path, *command: str | Path) -> set[str]:
    """What a command tries to reach; the command must succeed."""
    if os.getuid() != 0 or not Path("/dev/net/tun").exists():
        skip_without("a network namespace that is watched needs root and /dev/net/tun")
    report = folder / "attempts"
    watch = ["unshare", "--net", "--mount", sys.executable, "-m", "tests.integration.watched_network", str(report)]
    hidden = {"ORT_DISABLE_TELEMETRY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [*watch, *map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return set(report.read_text(encoding="utf-8").splitlines())


def test_the_watch_sees_who_calls_out(tmp_path: Path) -> None:
    assert watched(tmp_path, sys.executable, "-c", CALLS_OUT) == {
        "tcp 198.51.100.7:443",
        "tcp 2001:db8:1::7:443",
        "udp 198.51.100.8:514",
        "name telemetry.example.org",
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], dict[str, Any]]:
    """What a whole node tried to reach, and what was seen of it."""
    folder = tmp_path_factory.mktemp("node")
    attempts = watched(folder, sys.executable, "-m", "tests.integration.one_radiograph", folder)
    return attempts, json.loads((folder / "seen.json").read_text(encoding="utf-8"))


def test_a_whole_node_calls_nobody(run: tuple[set[str], dict[str, Any]]) -> None:
    attempts, seen = run
    assert len(set(seen["got"])) >= 4, "results went out on loopback: the node did its work"
    assert set(seen["pages"].values()) == {200}
    assert attempts == set()


def test_the_processes_of_a_node_make_one_trace_of_an_image_without_its_patient(
    run: tuple[set[str], dict[str, Any]],
) -> None:
    spans = run[1]["spans"]
    assert len({trace for trace, _ in spans}) == 1
    names = Counter(name for _, name in spans)
    assert set(names) == {"instance", "queue", "analyse", "read", "predict", "encode", "write", "deliver", "send"}
    assert names["instance"] == names["analyse"] == 1
    assert names["deliver"] == names["send"] >= 3
    image, sent = frontal(), bytes.fromhex(run[1]["traced"])
    words = {str(image[keyword].value) for keyword in STUDY_KEYWORDS if keyword in image}
    for word in {part for value in words for part in value.split("^") if len(part) > 3}:
        assert word.encode() not in sent


def test_a_whole_node_keeps_its_files_to_itself(run: tuple[set[str], dict[str, Any]]) -> None:
    """It was started with a umask of 0."""
    permissions = run[1]["permissions"]
    kinds = {Path(path).parts[0].rpartition(".")[2] for path in permissions if path != "."}
    assert {"instances", "results", "sqlite", "sqlite-wal", "sqlite-shm", "lock", "sock"} <= kinds
    assert {path: mode for path, mode in permissions.items() if int(mode, 8) & 0o077} == {}
