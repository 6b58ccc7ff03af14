"""A node on which nothing is in the clear: senders, PACS, database, broker and page, each with certificates."""

from __future__ import annotations

import http.client
import re
import ssl
from pathlib import Path

import pytest

from tests.certificates import Certificates, certificates
from tests.integration.pleura import Pleura, write_config
from tests.integration.studies import frontal
from tests.node.dicom.listening import dcmtk
from tests.node.monitoring.test_doctor_tls import postgres_port, redis_server
from tests.orthanc import DicomTls, Orthanc, running_orthanc, wait_until
from tests.ports import free_port
from tests.viewers.phantoms import as_bytes

__all__ = ["certificates", "postgres_port"]
pytestmark = [
    pytest.mark.campaign,
    *(pytest.mark.peer(name) for name in ("openssl", "Orthanc", "postgres", "redis-server", "storescu")),
]
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


def configured(folder: Path, made: Certificates, pacs: Orthanc, database: int, broker: int) -> tuple[Path, int, int]:
    """The configuration, the port for senders and that of the page."""
    folder.mkdir()
    (port, page), own, ca = (free_port(), free_port()), made.node, made.ca
    path = write_config(
        folder,
        tls={"certificate": str(own.certificate), "key": str(own.key), "ca": str(ca)},
        listener={
            "transport": "tls",
            "tls_port": port,
            "peers": [{"ae_title": "CT1", "certificates": [made.other.fingerprint]}],
        },
        database={
            "url": f"postgresql+psycopg://postgres@127.0.0.1:{database}/postgres?sslmode=verify-full&sslrootcert={ca}"
        },
        broker={
            "url": f"rediss://127.0.0.1:{broker}/0?ssl_ca_certs={ca}&ssl_certfile={own.certificate}&ssl_keyfile={own.key}"
        },
        admin={"port": page, "tls_certificate": str(own.certificate), "tls_key": str(own.key)},
        triage={"completion_seconds": 2},
        workers={"scheduler_interval_seconds": 0.5},
        destinations=[
            {
                "name": "pacs",
                "ae_title": pacs.ae_title,
                "host": "127.0.0.1",
                "port": pacs.dicom_port,
                "tls": True,
                "certificates": ["pacs.hospital"],
            }
        ],
    )
    return path, port, page


def test_an_image_goes_in_and_its_report_comes_out(
    certificates: Certificates, postgres_port: tuple[int, Path], tmp_path: Path
) -> None:
    files = DicomTls(certificates.pacs.certificate, certificates.pacs.key, certificates.ca)
    image = tmp_path / "image.dcm"
    image.write_bytes(as_bytes(frontal()))
    shown = certificates.other
    with (
        running_orthanc(tmp_path / "pacs", tls=files) as pacs,
        redis_server(certificates.pacs, certificates.ca) as broker,
    ):
        pacs.know("pleura", "PLEURA", free_port(), UseDicomTls=True)
        config, port, page = configured(tmp_path / "pleura", certificates, pacs, postgres_port[0], broker)
        node = Pleura(tmp_path / "pleura", port, config)
        node.start()
        try:
            found = wait_until(lambda: _ready(node), "a node that is ready", 120, alive=node.check_alive)
            assert f"127.0.0.1:{port} (TLS)" in found
            assert f"https://127.0.0.1:{page}/" in found
            options = ("+tls", shown.key, shown.certificate, "+cf", certificates.ca, "-aet", "CT1", "-aec", "PLEURA")
            sent = dcmtk("storescu", *options, "127.0.0.1", port, image)
            assert sent.returncode == 0, sent.stderr
            wait_until(lambda: _reports(pacs), "a report in the PACS", 120, alive=node.check_alive)
            context = ssl.create_default_context(cafile=certificates.ca)
            connection = http.client.HTTPSConnection("localhost", page, context=context, timeout=30)
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 200
        finally:
            node.stop()


def _ready(node: Pleura) -> str:
    text = node.log_file.read_text(errors="replace")
    found = re.search(r"Ready: .*\n.*\n", text)
    return found[0] if found else ""


def _reports(pacs: Orthanc) -> bool:
    return any(dataset.SOPClassUID == COMPREHENSIVE_3D_SR for dataset in pacs.datasets())
