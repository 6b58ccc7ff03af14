"""The commands of docker-compose.yml as processes, on a real PostgreSQL and a real Redis, beside a real Orthanc.

No Docker engine is needed: each service's own command runs in its own environment, with addresses of this machine.
A study goes into Orthanc, which routes it by the very script of the profile ``demo``, and comes back with its overlay.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.pleura import handwritten_network
from tests.integration.studies import frontal
from tests.orthanc import Orthanc, running_orthanc, wait_until
from tests.ports import free_port
from tests.postgres import PostgresServer, postgres_server  # noqa: F401 - a fixture
from tests.viewers.phantoms import as_bytes

pytestmark = [
    pytest.mark.image,
    pytest.mark.timeout(1500),
    pytest.mark.peer("Orthanc"),
    pytest.mark.peer("postgres"),
    pytest.mark.peer("redis-server"),
]

ROOT = Path(__file__).resolve().parents[2]
# Where a variable has a default, the default.
TEXT = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
ALWAYS = [
    name for name, service in SERVICES.items() if service["image"].startswith("pleura:") and "profiles" not in service
]
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"


@contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as written:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=written, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


@contextmanager
def _redis(port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [*SERVICES["broker"]["command"], "--port", str(port), "--bind", "127.0.0.1"]
    with _process(command, dict(os.environ), log) as process:
        yield process


def _environment(folder: Path, database: str, ports: dict[str, int], pacs: Orthanc) -> dict[str, str]:
    """What Compose would set, with this machine's addresses, and the handwritten network instead of the bundled one."""
    handwritten_network(folder / "models")
    text = (ROOT / "config" / "demo" / "pleura.toml").read_text(encoding="utf-8")
    text = text.replace('host = "orthanc"', 'host = "127.0.0.1"').replace("port = 4242", f"port = {pacs.dicom_port}")
    (folder / "pleura.toml").write_text(text, encoding="utf-8")
    values = dict(SERVICES["listener"]["environment"]) | {
        "PLEURA_CONFIG": str(folder / "pleura.toml"),
        "PLEURA_STORE__FOLDER": str(folder / "store"),
        "PLEURA_DATABASE__URL": database,
        "PLEURA_BROKER__URL": f"redis://127.0.0.1:{ports['broker']}/0",
        "PLEURA_LISTENER__PORT": str(ports["listener"]),
        "PLEURA_ADMIN__PORT": str(ports["admin"]),
        "PLEURA_MODELS__FOLDER": str(folder / "models"),
        "PLEURA_MODELS__GATE": "",
        "PLEURA_MODELS__ACTIVE": '["bright"]',
    }
    for part in ("LISTENER", "HL7", "DICOMWEB", "ADMIN"):
        values[f"PLEURA_{part}__HOST"] = "127.0.0.1"
    return {**os.environ, **values, "TCP_NODELAY": "1"}


def _checked(service: str, environment: dict[str, str]) -> bool:
    """Whether the service's own health check succeeds."""
    words = SERVICES[service]["healthcheck"]["test"][2:]
    command = [sys.executable, "-m", "node.cli.main", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode == 0


def test_a_study_sent_into_the_pacs_comes_back_with_its_overlay(
    tmp_path: Path,
    postgres_server: PostgresServer,  # noqa: F811 - the fixture
) -> None:
    ports = {name: free_port() for name in ("listener", "admin", "broker")}
    route = (ROOT / "config" / "demo" / "route.lua").read_text(encoding="utf-8")
    (tmp_path / "node").mkdir()
    with ExitStack() as running:
        modalities = {"pleura": ("PLEURA", ports["listener"])}
        pacs = running.enter_context(running_orthanc(tmp_path / "pacs", lua=route, modalities=modalities))
        running.enter_context(_redis(ports["broker"], tmp_path / "redis.log"))
        environment = _environment(tmp_path / "node", postgres_server.create_database(), ports, pacs)
        parts = {
            name: running.enter_context(
                _process(
                    [sys.executable, "-m", "node.cli.main", *SERVICES[name]["command"]],
                    environment,
                    tmp_path / f"{name}.log",
                )
            )
            for name in ALWAYS
        }

        def alive() -> None:
            for name, process in parts.items():
                if process.poll() is not None:
                    raise AssertionError(f"{name} ended: {(tmp_path / f'{name}.log').read_text()[-3000:]}")

        for service in ALWAYS:
            wait_until(partial(_checked, service, environment), f"{service}'s health", 300, 1, alive)
        image = frontal()
        pacs.upload(as_bytes(image))
        wait_until(
            lambda: {SEG, SR} <= {dataset.SOPClassUID for dataset in pacs.datasets()},
            "a SEG and an SR in the PACS",
            seconds=300,
            alive=alive,
        )
        (segmentation,) = [dataset for dataset in pacs.datasets() if dataset.SOPClassUID == SEG]
        assert segmentation.StudyInstanceUID == image.StudyInstanceUID
        assert (
            segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
            == image.SOPInstanceUID
        )
