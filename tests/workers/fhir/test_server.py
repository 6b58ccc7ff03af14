"""Reports of studies at a real FHIR server, as a hospital's systems then find them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.destinations import Destination
from config.settings import Settings, Site, load
from config.tls import Tls
from db.database import Database
from db.engine import connect
from db.queries import study_details
from db.records import Unverified
from db.states import DeliveryState
from node.monitoring.health import check_destination
from tests.integration.pleura import Pleura, write_config
from tests.integration.studies import frontal
from tests.node.dicom.test_storage_scp import calling, send
from tests.orthanc import wait_until
from tests.ports import free_port
from tests.rules import NO_RULES
from tests.workers.fhir.real_server import CLIENT, SECRET, TOKEN, FhirServer, running_fhir_server
from tests.workers.fhir.studies import FOUND, Study, not_analysed_report, note, study
from workers.destinations.destination_kind import Outgoing, PeerError, Receipt, Verdict
from workers.destinations.fhir import Fhir

# The server takes seconds to load the definitions of HL7.
pytestmark = [pytest.mark.peer("npm"), pytest.mark.campaign]
OID = "1.2.276.0.76.3.1"
KIND = Fhir(Tls(), Site(patient_id_issuers=("HOSPITAL", OID)))


@pytest.fixture(scope="module")
def server() -> Iterator[FhirServer]:
    with running_fhir_server() as running:
        yield running


def at(server: FhirServer, **changes: Any) -> Destination:
    given = {"name": "his", "kind": "fhir", "url": server.url, "token": TOKEN, "timeout_seconds": 20, **changes}
    return Destination.model_validate(given)


def sent(server: FhirServer, *objects: Outgoing, **changes: Any) -> list[Receipt]:
    return list(KIND.send(at(server, **changes), "PLEURA", objects))


def uids(number: int) -> dict[str, Any]:
    """Other UIDs than those of other tests, and another patient."""
    root = f"1.2.826.0.1.3680043.10.1561.9{number}"
    return {
        "StudyInstanceUID": root,
        "SeriesInstanceUID": f"{root}.1",
        "SOPInstanceUID": f"{root}.1.1",
        "PatientID": f"P{number}",
    }


def report_of(server: FhirServer, made: Study) -> dict[str, Any]:
    (found,) = server.get(f"DiagnosticReport?identifier=urn:dicom:uid|urn:oid:{made.summary.SOPInstanceUID}")
    return found


def results_of(server: FhirServer, report: dict[str, Any]) -> list[dict[str, Any]]:
    return [server.get(f"Observation?_id={each['reference'].split('/')[1]}")[0] for each in report["result"]]


def test_a_study_is_there_once_however_often_it_is_sent(server: FhirServer, tmp_path: Path) -> None:
    made = study(tmp_path, **uids(1))
    assert sent(server, made.outgoing, made.outgoing) == [Receipt(Verdict.SENT)] * 2
    report = report_of(server, made)
    assert report["status"] == "preliminary"
    assert report["conclusion"].startswith("AI: pneumothorax, 88 %")
    assert report["conclusion"].endswith("(research use only, not a medical device).")
    status, lateral, pneumothorax, _ = results_of(server, report)
    assert status["component"][0]["valueCodeableConcept"]["text"] == "Emergency"
    assert lateral["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert "not a negative" in lateral["note"][0]["text"]
    assert pneumothorax["code"]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "36118008",
        "display": "Pneumothorax",
    }
    parts = {part["code"]["text"]: part for part in pneumothorax["component"]}
    assert parts["Probability"]["valueQuantity"]["value"] == 0.875
    assert parts["Area"]["valueQuantity"]["code"] == "mm2"
    assert parts["Laterality"]["valueCodeableConcept"]["text"] == "Right"
    device = server.get(f"Device?_id={pneumothorax['device']['reference'].split('/')[1]}")[0]
    assert (device["deviceName"][0]["name"], device["version"][0]["value"]) == ("Pleura chest classifier", "1.2.0")
    assert report["subject"]["identifier"]["system"] == f"urn:oid:{OID}"
    assert len(server.get("Observation?_count=100")) == 4


def test_a_newer_revision_replaces_the_older_one_and_is_not_replaced_by_it(server: FhirServer, tmp_path: Path) -> None:
    first, second = study(tmp_path, 1, **uids(2)), study(tmp_path, 2, FOUND[:1], **uids(2))
    assert sent(server, first.outgoing, second.outgoing) == [Receipt(Verdict.SENT)] * 2
    assert not server.get(f"DiagnosticReport?identifier=urn:dicom:uid|urn:oid:{first.summary.SOPInstanceUID}")
    kept = {each["id"] for each in results_of(server, report_of(server, second))}
    about = [each for each in server.get("Observation?_count=100") if each["subject"]["identifier"]["value"] == "P2"]
    assert {each["id"]: each["status"] for each in about} == {
        each["id"]: "preliminary" if each["id"] in kept else "entered-in-error" for each in about
    }
    assert len(about) == 2 * len(kept)
    (receipt,) = sent(server, first.outgoing)
    assert (receipt.verdict, "revision 2" in receipt.note) == (Verdict.REJECTED, True)
    assert sent(server, note(tmp_path, first.summary))[0].verdict is Verdict.SENT
    assert report_of(server, second)["status"] == "preliminary"


def test_what_is_taken_back_is_entered_in_error_and_no_more_held(server: FhirServer, tmp_path: Path) -> None:
    made = study(tmp_path, **uids(3))
    summary = made.summary
    object_ = Unverified(
        1,
        "his",
        "",
        str(summary.SOPInstanceUID),
        str(summary.SeriesInstanceUID),
        str(summary.StudyInstanceUID),
        1,
        0,
        "",
    )
    sent(server, made.outgoing)
    assert list(KIND.holds(at(server, verification="query"), "PLEURA", [object_])) == [True]
    assert sent(server, note(tmp_path, summary), note(tmp_path, summary))[0] == Receipt(Verdict.SENT)
    report = report_of(server, made)
    assert {report["status"], *(each["status"] for each in results_of(server, report))} == {"entered-in-error"}
    assert list(KIND.holds(at(server, verification="query"), "PLEURA", [object_])) == [False]


def test_a_study_of_which_nothing_was_analysed_says_why(server: FhirServer, tmp_path: Path) -> None:
    outgoing = not_analysed_report(tmp_path)
    assert sent(server, outgoing) == [Receipt(Verdict.SENT)]
    (report,) = server.get(f"DiagnosticReport?identifier=urn:dicom:uid|urn:oid:{outgoing.sop_instance_uid}")
    (only,) = results_of(server, report)
    assert report["conclusion"].startswith("AI: not analysed, the patient is younger than 18 years")
    assert "valueCodeableConcept" not in only
    assert only["dataAbsentReason"]["text"] == "Not Attempted"


def test_a_patient_is_searched_waited_for_or_created(server: FhirServer, tmp_path: Path) -> None:
    made = study(tmp_path, **uids(4))
    (receipt,) = sent(server, made.outgoing, references="search")
    assert (receipt.verdict, "does not know the patient" in receipt.note) == (Verdict.LATER, True)
    for _ in range(2):
        assert sent(server, made.outgoing, references="create") == [Receipt(Verdict.SENT)]
    (patient,) = server.get(f"Patient?identifier=urn:oid:{OID}|P4")
    assert (patient["name"][0]["family"], patient["birthDate"]) == ("Doe", "1961-02-03")
    assert sent(server, made.outgoing, references="search") == [Receipt(Verdict.SENT)]
    assert report_of(server, made)["subject"]["reference"] == f"Patient/{patient['id']}"
    server.create({**patient, "id": "another"})
    (receipt,) = sent(server, made.outgoing, references="create")
    assert (receipt.verdict, "several patients" in receipt.note) == (Verdict.REJECTED, True)


@pytest.mark.parametrize("changes", [{"PatientID": ""}, {"PatientID": "UNKNOWN"}])
def test_a_study_without_a_patient_is_not_filed_under_anybody(
    server: FhirServer, tmp_path: Path, changes: dict[str, str]
) -> None:
    (receipt,) = sent(server, study(tmp_path, **{**uids(5), **changes}).outgoing)
    assert (receipt.verdict, "names no patient" in receipt.note) == (Verdict.REJECTED, True)


def test_a_token_may_come_from_an_authorization_server(server: FhirServer, tmp_path: Path) -> None:
    made = study(tmp_path, **uids(6))
    client = {"token": None, "token_url": f"{server.root}/token", "user": CLIENT, "scope": "system/*.cruds"}
    assert sent(server, made.outgoing, **client, password=SECRET) == [Receipt(Verdict.SENT)]
    (receipt,) = sent(server, made.outgoing, **client, password="another")
    assert (receipt.verdict, "refuses the credentials" in receipt.note) == (Verdict.UNREACHABLE, True)
    (receipt,) = sent(server, made.outgoing, token="another")
    assert (receipt.verdict, "refuses the credentials" in receipt.note) == (Verdict.UNREACHABLE, True)


def test_doctor_says_whether_this_is_a_fhir_server_that_we_may_use(server: FhirServer) -> None:
    check = check_destination(Settings(), at(server))
    assert (check.ok, check.found) == (True, f"{server.url} answers a search (FHIR R4)")
    for wrong in ({"url": server.root}, {"token": "another"}):
        check = check_destination(Settings(), at(server, **wrong))
        assert not check.ok
        assert check.remedy
    with pytest.raises(PeerError, match="cannot be asked"):
        KIND.find_study(at(server), "PLEURA", "1.2.3")


def test_an_image_that_a_node_is_sent_is_a_report_there(server: FhirServer, tmp_path: Path) -> None:
    """From C-STORE to DiagnosticReport, by ``pleura serve`` as a user runs it; read back, so it is verified."""
    port, image = free_port(), frontal(7)
    config = write_config(
        tmp_path,
        listener={"port": port},
        admin={"enabled": False},
        workers={"processes": 1, "scheduler_interval_seconds": 0.2},
        destinations=[
            {
                "name": "his",
                "kind": "fhir",
                "url": server.url,
                "token": TOKEN,
                "patient_id_system": f"urn:oid:{OID}",
                "verification": "query",
                "verification_after_seconds": 1,
            }
        ],
    )
    node = Pleura(tmp_path, port, config)
    node.start()
    try:
        with calling(port) as association:
            assert send(association, image) == 0x0000
        database = Database(connect(load(config).database_url), NO_RULES)
        study_id = database.read(study_details.find_study, image.StudyInstanceUID)
        assert study_id is not None

        def states() -> list[DeliveryState]:
            return [each.state for each in database.read(study_details.study_detail, study_id).deliveries]

        wait_until(lambda: states() == [DeliveryState.VERIFIED], "the report", seconds=240, alive=node.check_alive)
        summary = database.read(study_details.study_detail, study_id).results[-1].record
        (report,) = server.get(f"DiagnosticReport?identifier=urn:dicom:uid|urn:oid:{summary.sop_instance_uid}")
        assert report["status"] == "preliminary"
        assert report["conclusion"].startswith("AI: pneumothorax")
        patient = report["subject"]["identifier"]
        assert (patient["system"], patient["value"]) == (f"urn:oid:{OID}", "P0007")
        assert report["basedOn"][0]["identifier"]["value"] == "A0007"
    finally:
        node.stop()
