"""A DICOMweb server as a destination: a real Orthanc takes what is sent, and odd answers are told apart."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client import DICOMwebClient
from pydantic import ValidationError
from pydicom import dcmwrite

from config.destinations import Destination
from config.settings import Settings
from config.tls import Tls
from db.records import Unverified
from node.monitoring.health import check_destination
from tests.certificates import Certificates, certificates
from tests.orthanc import running_orthanc
from tests.ports import free_port
from tests.workers.harness import CR, radiograph
from workers.destinations.destination_kind import Outgoing, PeerError, PeerUnreachableError, Receipt, Verdict
from workers.destinations.dicomweb import DicomWeb

__all__ = ["certificates"]

UID = "1.2.826.0.1.3680043.8.498.77"
DICOM_JSON = "application/dicom+json; charset=utf-8"


def at(url: str, **changes: Any) -> Destination:
    return Destination.model_validate({"name": "web", "kind": "dicomweb", "url": url, "timeout_seconds": 5, **changes})


@pytest.fixture
def outgoing(tmp_path: Path) -> Outgoing:
    dataset = radiograph(UID)
    dcmwrite(tmp_path / "object.dcm", dataset, enforce_file_format=True)
    return Outgoing(tmp_path / "object.dcm", CR, UID)


@dataclass
class Server:
    """An HTTP server that gives one answer to everything, and keeps the headers and bodies that came."""

    url: str
    requests: list[tuple[str, dict[str, str], bytes]]


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    running: list[ThreadingHTTPServer] = []

    def serve(status: int, body: bytes = b"", tls: ssl.SSLContext | None = None) -> Server:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                made.requests.append((self.path, dict(self.headers), self.rfile.read(length)))
                self.send_response(status)
                self.send_header("Content-Type", DICOM_JSON)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815 - the name that http.server looks for

            def log_message(self, *arguments: object) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        running.append(http)
        made = Server(f"http{'s' if tls else ''}://127.0.0.1:{http.server_address[1]}/dicom-web", [])
        return made

    yield serve
    for http in running:
        http.shutdown()
        http.server_close()


def response(sequence: str, **more: Any) -> bytes:
    item = {"00081155": {"vr": "UI", "Value": [UID]}, **more}
    return json.dumps({sequence: {"vr": "SQ", "Value": [item]}}).encode()


def failed(reason: int) -> bytes:
    return response("00081198", **{"00081197": {"vr": "US", "Value": [reason]}})


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, response("00081199"), Verdict.SENT),
        (200, b'{"00081190": {"vr": "UR"}}', Verdict.UNCLEAR),
        (200, b"", Verdict.UNCLEAR),
        (200, b"<html>Log in, John Doe</html>", Verdict.UNCLEAR),
        (200, b'"stored"', Verdict.UNCLEAR),
        (202, response("00081199"), Verdict.SENT),
        (202, failed(0xA700), Verdict.LATER),
        (202, failed(0x0111), Verdict.DUPLICATE),
        (202, b"<xml/>", Verdict.UNCLEAR),
        (409, b"{}", Verdict.RETRY),
        (409, failed(0xA900), Verdict.REJECTED),
        (409, failed(0x0110), Verdict.LATER),
        (400, b"", Verdict.REJECTED),
        (401, b"", Verdict.UNREACHABLE),
        (404, b"", Verdict.UNREACHABLE),
        (405, b"", Verdict.UNREACHABLE),
        (301, b"", Verdict.UNREACHABLE),
        (302, b"", Verdict.UNREACHABLE),
        (307, b"", Verdict.UNREACHABLE),
        (408, b"", Verdict.RETRY),
        (502, b"", Verdict.UNREACHABLE),
        (504, b"", Verdict.UNREACHABLE),
        (200, b"[" * 1_000_000, Verdict.UNCLEAR),
        (200, b'{"00081199": [1], "00081198": {"Value": [7, null]}}', Verdict.UNCLEAR),
        (200, b'{"00081198": {"Value": 7}}', Verdict.UNCLEAR),
        (200, failed(0), Verdict.LATER),
        (200, failed(0xB000), Verdict.LATER),
        (413, b"", Verdict.LATER),
        (500, b"John Doe", Verdict.LATER),
        (503, b"", Verdict.LATER),
    ],
)
def test_what_the_answer_to_one_object_means(
    server: Callable[..., Server], outgoing: Outgoing, status: int, body: bytes, verdict: Verdict
) -> None:
    (receipt,) = DicomWeb(Tls()).send(at(server(status, body).url), "PLEURA", [outgoing])
    assert receipt.verdict is verdict
    assert receipt.may_have_arrived is (
        verdict in (Verdict.DUPLICATE, Verdict.UNCLEAR) or status >= 500 or body == b"{}"
    )
    assert "Doe" not in receipt.note


def test_an_answer_that_says_both_of_an_object_says_nothing(server: Callable[..., Server], outgoing: Outgoing) -> None:
    both = json.dumps(json.loads(failed(0xA900)) | json.loads(response("00081199"))).encode()
    (receipt,) = DicomWeb(Tls()).send(at(server(202, both).url), "PLEURA", [outgoing])
    assert receipt.verdict is Verdict.UNCLEAR


def test_what_is_stored_with_a_warning_is_noted(server: Callable[..., Server], outgoing: Outgoing) -> None:
    warned = response("00081199", **{"00081196": {"vr": "US", "Value": [0xB000]}})
    (receipt,) = DicomWeb(Tls()).send(at(server(202, warned).url), "PLEURA", [outgoing])
    assert receipt == Receipt(Verdict.SENT, "stored with warning 0xB000")


def test_a_file_is_sent_as_it_is_with_the_credentials(server: Callable[..., Server], outgoing: Outgoing) -> None:
    there = server(200, response("00081199"))
    for credentials in ({"token": "s3cret"}, {"user": "ann", "password": "p@ss:wörd"}):
        (receipt,) = DicomWeb(Tls()).send(at(there.url + "/", **credentials), "PLEURA", [outgoing])
        assert receipt == Receipt(Verdict.SENT)
    (path, headers, body), (_, basic, _) = there.requests
    assert path == "/dicom-web/studies"
    assert outgoing.path.read_bytes() in body
    assert headers["Authorization"] == "Bearer s3cret"
    assert basic["Authorization"] == "Basic YW5uOnBAc3M6d8O2cmQ="
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')


def test_who_does_not_answer_is_unreachable(outgoing: Outgoing) -> None:
    nobody = at(f"http://127.0.0.1:{free_port()}/dicom-web")
    (receipt,) = DicomWeb(Tls()).send(nobody, "PLEURA", [outgoing])
    assert (receipt.verdict, receipt.may_have_arrived) == (Verdict.UNREACHABLE, False)
    with pytest.raises(PeerUnreachableError, match="cannot be reached"):
        DicomWeb(Tls()).verify(nobody, "PLEURA")


def test_what_is_sent_and_not_answered_may_have_arrived(outgoing: Outgoing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hangs = at(f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web", timeout_seconds=1)
        (receipt,) = DicomWeb(Tls()).send(hangs, "PLEURA", [outgoing])
    assert (receipt.verdict, receipt.may_have_arrived) == (Verdict.UNREACHABLE, True)


def test_a_search_that_is_refused_or_answered_by_something_else_is_an_error(server: Callable[..., Server]) -> None:
    with pytest.raises(PeerError, match="refuses the credentials"):
        DicomWeb(Tls()).verify(at(server(401).url), "PLEURA")
    with pytest.raises(PeerError, match="something else"):
        DicomWeb(Tls()).verify(at(server(200, b"<html>").url), "PLEURA")
    with pytest.raises(PeerError, match="status 302"):
        DicomWeb(Tls()).verify(at(server(302).url), "PLEURA")
    DicomWeb(Tls()).verify(at(server(204).url), "PLEURA")


@pytest.mark.peer("openssl")
def test_a_server_is_called_with_the_certificates_of_the_settings(
    server: Callable[..., Server], outgoing: Outgoing, certificates: Certificates
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.pacs.certificate, certificates.pacs.key)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    there = server(200, response("00081199"), tls=context)
    (receipt,) = DicomWeb(certificates.tls).send(at(there.url, tls=True, token="s"), "PLEURA", [outgoing])
    assert receipt == Receipt(Verdict.SENT)
    for tls, calls in ((Tls(ca=certificates.ca), True), (certificates.tls, False)):
        (receipt,) = DicomWeb(tls).send(at(there.url, tls=calls), "PLEURA", [outgoing])
        assert receipt.verdict is Verdict.UNREACHABLE, "no certificate of ours; a CA that the system does not know"
    missing = Tls(ca=Path("/nowhere/ca.pem"))
    (receipt,) = DicomWeb(missing).send(at(there.url, tls=True), "PLEURA", [outgoing])
    assert "/nowhere/ca.pem" in receipt.note
    assert len(there.requests) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": ""}, "url: is missing"),
        ({"url": "http://ann:secret@pacs/dicom-web"}, "url"),
        ({"url": "http://pacs/dicom-web", "token": "x"}, "by https only"),
        ({"user": "ann"}, "user needs password"),
        ({"verification": "commitment"}, "asked by query"),
        ({"folder": "/tmp"}, "kind 'deidentified' only"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        at(**{"url": "https://pacs/dicom-web", **changes})


@pytest.mark.peer("Orthanc")
def test_a_real_server_takes_results_and_is_asked_for_them(tmp_path: Path, outgoing: Outgoing) -> None:
    with running_orthanc(tmp_path / "pacs") as pacs:
        there = at(f"{pacs.url}/dicom-web", verification="query")
        kind = DicomWeb(Tls())
        check = check_destination(Settings(), there)
        assert (check.ok, check.found) == (True, f"{pacs.url}/dicom-web answers a search (QIDO-RS)")
        assert list(kind.send(there, "PLEURA", [outgoing, outgoing])) == [Receipt(Verdict.SENT)] * 2
        sent = radiograph(UID)
        study, series = str(sent.StudyInstanceUID), str(sent.SeriesInstanceUID)
        client = DICOMwebClient(there.url)
        assert client.retrieve_instance(study, series, UID).PatientID == sent.PatientID
        found = kind.find_study(there, "PLEURA", study)
        assert found is not None
        assert found.patient_id == sent.PatientID
        assert kind.find_study(there, "PLEURA", "1.2.3") is None
        objects = [Unverified(1, "web", CR, uid, series, study, 1, 0, "") for uid in (UID, f"{UID}.1")]
        assert list(kind.holds(there, "PLEURA", objects)) == [True, False]
        wrong = at(f"{pacs.url}/elsewhere")
        assert next(iter(kind.send(wrong, "PLEURA", [outgoing]))).note.startswith("the server does not know the path")
