"""A whole node as a user runs it, one radiograph through it, and its page looked at: a program for a test.

``python -m tests.integration.one_radiograph FOLDER`` starts ``pleura serve`` with a umask of 0. It leaves
``FOLDER/seen.json``: the SOP classes that its destination got, the status of pages, the permissions of its files, and
what a collector of traces has heard.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts

from tests.integration.pleura import Pleura, write_config
from tests.integration.studies import frontal
from tests.orthanc import wait_until
from tests.otlp import Collector, collecting
from tests.ports import free_port
from tests.viewers.phantoms import as_bytes

PAGES = ("/healthz", "/readyz", "/login", "/metrics", "/api/v1/docs", "/api/v1/openapi.json", "/api/v1/studies")

# The telemetry of ONNX Runtime looks for its host some seconds after a network was loaded.
_LATER = 12


def _configure(folder: Path, ports: dict[str, int]) -> Path:
    return write_config(
        folder,
        listener={"port": ports["listener"]},
        workers={"scheduler_interval_seconds": 0.5},
        admin={
            "port": ports["admin"],
            "openid": {
                "enabled": True,
                "issuer": "https://login.example.org",
                "client_id": "pleura",
                "page": "https://pleura.example.org",
                "admins": ["pacs-admins"],
            },
        },
        hl7={"enabled": True, "port": ports["hl7"]},
        traces={
            "enabled": True,
            "endpoint": f"http://127.0.0.1:{ports['traces']}/v1/traces",
            "interval_seconds": 0.5,
        },
        destinations=[
            {
                "name": "pacs",
                "ae_title": "ARCHIVE",
                "host": "127.0.0.1",
                "port": ports["pacs"],
                "kinds": ["seg", "sr", "sc", "gsps", "summary"],
            }
        ],
    )


def _archive(port: int, got: list[str]) -> None:
    """A destination that takes everything; it runs until the process ends."""

    def take(event: evt.Event) -> int:
        got.append(str(event.request.AffectedSOPClassUID))
        return 0x0000

    entity = AE("ARCHIVE")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])


def _pleura(config: Path, *arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "node.cli.main", "--config", str(config), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _status(url: str, token: str) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _permissions(folder: Path) -> dict[str, str]:
    paths = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): f"{stat.S_IMODE(path.stat().st_mode):04o}" for path in paths}


def main(folder: Path) -> None:
    """Run the node; what was seen is written at the end."""
    os.umask(0)
    ports = {name: free_port() for name in ("listener", "admin", "hl7", "pacs", "traces")}
    got: list[str] = []
    _archive(ports["pacs"], got)
    node = Pleura(folder, ports["listener"], _configure(folder, ports))
    node.start()
    with collecting(ports["traces"]) as collector:
        _watch(node, folder, ports["admin"], got, collector)


def _watch(node: Pleura, folder: Path, admin: int, got: list[str], collector: Collector) -> None:
    try:
        image = folder / "image.dcm"
        image.write_bytes(as_bytes(frontal()))
        _pleura(node.config, "send", str(image))
        token = _pleura(node.config, "user", "token", "test", "--role", "admin").strip()
        wait_until(lambda: len(set(got)) >= 4, "the results", 120, alive=node.check_alive)
        page = f"http://127.0.0.1:{admin}"
        pages = {path: _status(page + path, token) for path in PAGES}
        time.sleep(_LATER)
        seen = {
            "got": got,
            "pages": pages,
            "permissions": _permissions(folder / "store"),
            "spans": [(span.trace_id.hex(), span.name) for span in collector.spans],
            "traced": b"".join(collector.bodies).hex(),
        }
        (folder / "seen.json").write_text(json.dumps(seen), encoding="utf-8")
    finally:
        node.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
