"""A real Orthanc for tests: a PACS that stores, finds, routes and serves DICOMweb, on loopback only.

``with running_orthanc(tmp_path) as pacs`` starts Debian's ``Orthanc`` with its own configuration and stops it again.
Everything that a test wants to know of the PACS it asks over REST, never from Pleura's own database.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom

from tests.ports import free_port

PLUGIN = "libOrthancDicomWeb.so"
_PLUGIN_FOLDERS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
_SYSTEM_FOLDERS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])


def wait_until(
    condition: Callable[[], Any],
    what: str,
    seconds: float = 60,
    pause: float = 0.2,
    alive: Callable[[], None] | None = None,
) -> Any:
    """Return the first true value of ``condition``; fail with ``what`` if none comes in time.

    ``alive`` is called between looks and raises when there is nothing left to wait for.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        if alive is not None:
            alive()
        time.sleep(pause)
    raise AssertionError(f"waited {seconds:.0f} s in vain for: {what}")


@dataclass
class Orthanc:
    """One running Orthanc, seen through its REST interface."""

    ae_title: str
    http_port: int
    dicom_port: int
    folder: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def url(self) -> str:
        """Address of the REST interface."""
        return f"http://127.0.0.1:{self.http_port}"

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        """Send one request and return the answer's body; an HTTP error raises with what Orthanc said."""
        request = urllib.request.Request(f"{self.url}{path}", data=body, method=method, headers={"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"Orthanc: {method} {path}: {error.code} {error.read()[:2000]!r}") from error

    def get(self, path: str) -> Any:
        """GET a JSON document."""
        return json.loads(self.request("GET", path))

    def post(self, path: str, value: Any) -> Any:
        """POST a JSON document, return the JSON answer."""
        return json.loads(self.request("POST", path, json.dumps(value).encode()) or b"null")

    def upload(self, data: bytes | Path) -> str:
        """Store one DICOM file over REST; returns Orthanc's id of the instance."""
        content = data.read_bytes() if isinstance(data, Path) else data
        return str(json.loads(self.request("POST", "/instances", content, "application/dicom"))["ID"])

    def know(self, name: str, ae_title: str, port: int, **options: Any) -> None:
        """Tell Orthanc of a modality on this machine."""
        value = {"AET": ae_title, "Host": "127.0.0.1", "Port": port, **options}
        self.request("PUT", f"/modalities/{name}", json.dumps(value).encode())

    def store_to(self, name: str, *resources: str) -> dict[str, Any]:
        """Send resources by C-STORE and wait for it; the answer holds InstancesCount and FailedInstancesCount."""
        answer: dict[str, Any] = self.post(
            f"/modalities/{name}/store", {"Resources": list(resources), "Synchronous": True, "Permissive": False}
        )
        return answer

    def instances(self, **query: str) -> list[dict[str, Any]]:
        """Instances that match ``query`` (tag name = value), with their main tags."""
        found: list[dict[str, Any]] = self.post("/tools/find", {"Level": "Instance", "Expand": True, "Query": query})
        return found

    def dataset(self, orthanc_id: str) -> pydicom.Dataset:
        """An instance as pydicom reads it."""
        return pydicom.dcmread(BytesIO(self.request("GET", f"/instances/{orthanc_id}/file")))

    def datasets(self, **query: str) -> list[pydicom.Dataset]:
        """Every instance that matches ``query``."""
        return [self.dataset(entry["ID"]) for entry in self.instances(**query)]

    def count(self) -> int:
        """Number of instances held."""
        return int(self.get("/statistics")["CountInstances"])

    def transfers(self) -> list[dict[str, Any]]:
        """Every job by which this Orthanc sent, or is sending, instances to a modality."""
        jobs: list[dict[str, Any]] = self.get("/jobs?expand")
        return [job for job in jobs if job["Type"] == "DicomModalityStore"]

    def log(self) -> str:
        """What Orthanc wrote so far."""
        return (self.folder / "orthanc.log").read_text(errors="replace")

    def check_alive(self) -> None:
        """Raise with the log's end when Orthanc has ended."""
        if self.process.poll() is not None:
            raise AssertionError(f"Orthanc ended with {self.process.returncode}: {self.log()[-3000:]}")


@dataclass(frozen=True, slots=True)
class DicomTls:
    """Orthanc's certificate and key, and the CA of its peers; the options of its book, "Configuring DICOM TLS"."""

    certificate: Path
    key: Path
    ca: Path

    def configuration(self) -> dict[str, Any]:
        """Orthanc's settings."""
        return {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(self.certificate),
            "DicomTlsPrivateKey": str(self.key),
            "DicomTlsTrustedCertificates": str(self.ca),
            "DicomTlsRemoteCertificateRequired": True,
        }


def _plugin() -> Path:
    for folder in _PLUGIN_FOLDERS:
        for candidate in sorted(folder.glob(f"{PLUGIN}*")):
            return candidate
    raise AssertionError(
        f"the DICOMweb plugin of Orthanc is not installed (Debian: orthanc-dicomweb); looked in {_PLUGIN_FOLDERS}"
    )


def _configuration(
    folder: Path,
    ae_title: str,
    http_port: int,
    dicom_port: int,
    origin: str | None,
    lua: tuple[Path, ...],
    tls: DicomTls | None,
) -> dict[str, Any]:
    """Settings of one Orthanc; ``origin`` is ``host:port`` as a browser sees it when a proxy stands before Orthanc."""
    return {
        "Name": ae_title,
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [str(_plugin())],
        "LuaScripts": [str(script) for script in lua],
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "WebDavEnabled": False,
        "DicomAet": ae_title,
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": False,
        "DicomCheckModalityHost": True,
        # Orthanc 1.10 binds all interfaces and cannot be told otherwise, so that only modalities declared at 127.0.0.1
        # may open an association.
        "DicomAlwaysAllowStore": False,
        "DicomAlwaysAllowEcho": False,
        "UnknownSopClassAccepted": True,
        "DicomScuTimeout": 60,
        "DicomAssociationCloseDelay": 0,
        "StableAge": 2,
        "ConcurrentJobs": 2,
        "SaveJobs": False,
        "JobsHistorySize": 1000,
        "OverwriteInstances": False,
        "TcpNoDelay": True,
        **(tls.configuration() if tls else {}),
        "KeepAlive": True,
        "DicomWeb": {
            "Enable": True,
            "Root": "/dicom-web/",
            "EnableWado": True,
            "WadoRoot": "/wado",
            "Ssl": False,
            **({"Host": origin} if origin else {}),
        },
    }


@contextmanager
def running_orthanc(
    folder: Path,
    ae_title: str = "PACS",
    origin: str | None = None,
    lua: str = "",
    modalities: Mapping[str, tuple[str, int]] | None = None,
    tls: DicomTls | None = None,
    dicom_port: int | None = None,
) -> Iterator[Orthanc]:
    """Run Orthanc until the block ends; its files lie in ``folder``.

    ``lua`` is a script for its event hooks (``OnStableStudy`` and such); ``modalities`` maps a symbolic name to the
    AE title and port of a peer on this machine. With ``tls`` its DICOM port has TLS, and it may call by TLS.
    """
    program = shutil.which("Orthanc", path=_SYSTEM_FOLDERS)
    if program is None:
        raise AssertionError("Orthanc is not installed (Debian: orthanc)")
    folder.mkdir(parents=True, exist_ok=True)
    scripts: tuple[Path, ...] = ()
    if lua:
        scripts = (folder / "hooks.lua",)
        scripts[0].write_text(lua)
    http_port, dicom_port = free_port(), dicom_port or free_port()
    settings = folder / "orthanc.json"
    settings.write_text(
        json.dumps(_configuration(folder, ae_title, http_port, dicom_port, origin, scripts, tls), indent=1)
    )
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(settings)], stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TCP_NODELAY": "1"}
        )
    pacs = Orthanc(ae_title, http_port, dicom_port, folder, process)
    try:
        wait_until(lambda: _answers(pacs), "Orthanc's REST interface", alive=pacs.check_alive)
        for name, (peer, port) in (modalities or {}).items():
            pacs.know(name, peer, port)
        yield pacs
    finally:
        _stop(process)


def _answers(pacs: Orthanc) -> bool:
    try:
        return bool(pacs.get("/system"))
    except (OSError, AssertionError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
