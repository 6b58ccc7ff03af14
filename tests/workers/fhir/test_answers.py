"""What each answer of a FHIR server means for a delivery; a real server is in test_server.py."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from config.destinations import Destination
from config.settings import Site
from config.tls import Tls
from tests.workers.fhir.studies import Study, note, outgoing, study
from workers.destinations.destination_kind import Outgoing, PeerError, Receipt, Verdict
from workers.destinations.fhir import Fhir, _Server
from workers.destinations.web_server import Answer as Said
from workers.destinations.web_server import WebServer

KIND = Fhir(Tls(), Site(patient_id_issuers=("1.2.3",)))
Answer = tuple[int, dict[str, Any] | None]
PRELIMINARY = {"status": "preliminary"}
FOUND: Answer = (200, {"resourceType": "Bundle", "type": "searchset", "DiagnosticReport": PRELIMINARY})
STORED: Answer = (200, {"resourceType": "Bundle", "type": "transaction-response"})
Serve = Callable[[Answer, Answer], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server that finds what it is asked for, and gives one answer to searches and one to transactions."""
    running: list[ThreadingHTTPServer] = []

    def start(search: Answer, transaction: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, found = search
                address = urlsplit(self.path)
                asked = parse_qs(address.query).get("identifier", ["urn:x|x"])[0]
                system, _, value = re.sub(r"\\\\(.)", r"\1", asked).partition("|")
                has: dict[str, Any] = {"resourceType": address.path.split("/")[2], "id": "1"}
                has["identifier"] = [{"system": system, "value": value}]
                resource = has | (found or {}).get(has["resourceType"], {})
                self.answer(status, found and {**found, "entry": [{"resource": resource}]})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(*transaction)

            def answer(self, status: int, content: object) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"no JSON" if content is None else json.dumps(content).encode())

            def log_message(self, *arguments: object) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        running.append(http)
        return f"http://127.0.0.1:{http.server_address[1]}/fhir"

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study(tmp_path_factory.mktemp("study"))


def receipt(url: str, what: Outgoing, **changes: str) -> Receipt:
    there = Destination.model_validate({"name": "his", "kind": "fhir", "url": url, "timeout_seconds": 5, **changes})
    (only,) = KIND.send(there, "PLEURA", [what])
    return only


def refused(status: int, **issue: Any) -> Answer:
    message = {"severity": "error", "diagnostics": "John Doe"}
    return status, {"resourceType": "OperationOutcome", "issue": [{**message, **issue}]}


@pytest.mark.parametrize(
    ("search", "transaction", "verdict", "message"),
    [
        (FOUND, STORED, Verdict.SENT, ""),
        (FOUND, (200, None), Verdict.RETRY, "does not say"),
        (FOUND, (200, {"resourceType": "Bundle", "type": "batch-response"}), Verdict.RETRY, "does not say"),
        (FOUND, refused(400, code="invalid", expression=["Bundle.entry[2].request"]), Verdict.REJECTED,
         "status 400: invalid at Bundle.entry[2].request"),
        (FOUND, refused(422, code="processing", expression=["John Doe"]), Verdict.REJECTED, "status 422: processing"),
        (FOUND, refused(409), Verdict.RETRY, "status 409"),
        (FOUND, refused(412), Verdict.RETRY, "status 412"),
        (FOUND, refused(401), Verdict.UNREACHABLE, "credentials"),
        (FOUND, refused(403), Verdict.UNREACHABLE, "does not allow"),
        (FOUND, refused(404), Verdict.UNREACHABLE, "path of the URL"),
        (FOUND, refused(429), Verdict.LATER, "busy"),
        (FOUND, refused(302), Verdict.UNREACHABLE, "redirects"),
        (FOUND, refused(502), Verdict.UNREACHABLE, "behind the proxy"),
        (FOUND, refused(500), Verdict.LATER, "status 500"),
        (refused(401), STORED, Verdict.UNREACHABLE, "credentials"),
        (refused(503), STORED, Verdict.UNREACHABLE, "status 503"),
        (refused(504), STORED, Verdict.UNREACHABLE, "behind the proxy"),
        (refused(500), STORED, Verdict.UNREACHABLE, "status 500"),
        ((200, None), STORED, Verdict.RETRY, "a search with no"),
    ],
)  # fmt: skip
def test_what_an_answer_means(
    serve: Serve, made: Study, search: Answer, transaction: Answer, verdict: Verdict, message: str
) -> None:
    found = receipt(serve(search, transaction), made.outgoing)
    assert found.verdict is verdict
    assert message in found.note
    assert "Doe" not in found.note


def found(kind: str = "Patient", **values: Any) -> Answer:
    """An answer to a search, in which a resource of ``kind`` has ``values`` beside the identifier searched for."""
    return 200, {"resourceType": "Bundle", "type": "searchset", "DiagnosticReport": PRELIMINARY, kind: values}


@pytest.mark.parametrize(
    ("patient", "verdict", "message"),
    [
        ({"birthDate": "1961-02-03"}, Verdict.SENT, ""),
        ({"birthDate": "1961"}, Verdict.SENT, ""),
        ({"birthDate": "1988-02-03"}, Verdict.REJECTED, "another birth date"),
        ({"link": [{"type": "replaced-by"}]}, Verdict.REJECTED, "replaced"),
        ({"identifier": [{"system": "urn:oid:9.9", "value": "P-0815"}]}, Verdict.LATER, "does not know"),
    ],
)
def test_only_the_patient_of_the_study_is_referred_to(
    serve: Serve, made: Study, patient: dict[str, Any], verdict: Verdict, message: str
) -> None:
    seen = receipt(serve(found("Patient", **patient), STORED), made.outgoing, references="search")
    assert (seen.verdict, message in seen.note) == (verdict, True)


def test_what_a_person_has_taken_over_is_left_alone(serve: Serve, made: Study, tmp_path: Path) -> None:
    url = serve(found("DiagnosticReport", status="final"), STORED)
    for each in (made.outgoing, note(tmp_path, made.summary)):
        seen = receipt(url, each)
        assert (seen.verdict, "made the report at the server final" in seen.note) == (Verdict.REJECTED, True)


def test_observations_that_somebody_has_added_are_not_ours_to_take_back() -> None:
    entered = [
        {
            "resourceType": "Observation",
            "id": "1",
            "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:2.25.1"}],
        },
        {"resourceType": "Observation", "id": "2", "identifier": [{"system": "urn:lab", "value": "urn:oid:2.25.2"}]},
        {
            "resourceType": "Observation",
            "id": "3",
            "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
        },
        {"resourceType": "Observation", "id": "4"},
    ]

    class Web(WebServer):
        def __init__(self) -> None:
            pass

        def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Said:
            seen = {"type": "searchset", "entry": [{"resource": each} for each in entered]}
            return Said(200, json.dumps(seen).encode())

    report = {"result": [{"reference": f"Observation/{number}"} for number in range(1, 5)]}
    assert [each["id"] for each in _Server(Web()).observations_of([report], "2.25")] == ["1"]


def test_what_cannot_be_read_here_is_not_sent_again(serve: Serve, made: Study, tmp_path: Path) -> None:
    url = serve(FOUND, STORED)
    without = outgoing(tmp_path, made.summary, "summary")
    lost = Outgoing(tmp_path / "nothing.dcm", "1.2", "1.2.3", "summary")
    (tmp_path / "text.dcm").write_text("no DICOM file")
    spoilt = Outgoing(tmp_path / "text.dcm", "1.2", "1.2.3", "summary")
    for each in (without, lost, spoilt):
        found = receipt(url, each)
        assert (found.verdict, "analyse it again" in found.note) == (Verdict.REJECTED, True)


def test_a_server_of_another_release_is_none(serve: Serve) -> None:
    url = serve((200, {"resourceType": "CapabilityStatement", "fhirVersion": "5.0.0"}), STORED)
    there = Destination.model_validate({"name": "his", "kind": "fhir", "url": url})
    with pytest.raises(PeerError, match=r"speaks FHIR 5\.0\.0, not R4"):
        KIND.verify(there, "")
