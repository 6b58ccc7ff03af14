"""C-FIND, C-MOVE and C-GET of own results, checked with DCMTK and Orthanc on a real listener."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find
from sqlalchemy import text

from config.settings import Settings
from db.database import Database
from db.queries.own_results import OwnResult
from node.dicom.own_results import OwnResults
from node.dicom.query_retrieve_scp import QueryRetrieve
from tests.node.dicom.listening import Listening, data_set_bytes, dcmtk, listening
from tests.node.dicomweb.conftest import VIEWERS, with_results
from tests.orthanc import running_orthanc, wait_until
from tests.ports import free_port
from workers.clock import utc_now

VIEWER, STRANGER = "WORKSTATION", "OTHER"


@dataclass
class Asked:
    """A listener with results, and the port of the move destination STORE."""

    node: Listening
    results: list[OwnResult]
    folder: Path
    move_port: int

    def query(self, program: str, *keys: str, calling: str = VIEWER, more: tuple[str, ...] = ()) -> str:
        """Run findscu, movescu or getscu at study root; its whole output."""
        options = [option for key in keys for option in ("-k", key)]
        done = dcmtk(
            program, "-v", "-S", "-aet", calling, "-aec", "PLEURA", *more, *options, "127.0.0.1", self.node.port
        )
        return done.stdout + done.stderr


@pytest.fixture(scope="module", params=["fast", pytest.param("stock", marks=pytest.mark.campaign)])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("asked")
    results = with_results(folder)
    move_port = free_port()
    store = {"name": "store", "ae_title": "STORE", "host": "127.0.0.1", "port": move_port, "kinds": []}
    ours = {"name": "loop", "ae_title": "PLEURA", "host": "127.0.0.1", "port": 104, "kinds": []}
    peers = [{"ae_title": VIEWER, "query": True}, {"ae_title": STRANGER}, {"ae_title": "PACS", "query": True}]
    settings = Settings.model_validate(
        {
            "store": {"folder": folder},
            "listener": {"port": 0, "peers": peers, "upper_layer": request.param},
            "destinations": [VIEWERS, store, ours],
        }
    )

    def query(database: Database) -> QueryRetrieve:
        return QueryRetrieve(settings, database, OwnResults(settings, database), utc_now)

    with listening(folder, settings.listener, query=query, url=settings.database_url) as node:
        yield Asked(node, results, folder, move_port)


@pytest.mark.peer("findscu")
def test_findscu_finds_studies_and_series(asked: Asked) -> None:
    found = asked.query(
        "findscu", "QueryRetrieveLevel=STUDY", "PatientName=OKAFOR*", "StudyInstanceUID", "ModalitiesInStudy", "StudyID"
    )
    assert found.count("Find Response: 1 (Pending)") == 1, found
    assert "[Okafor^Daniel ]" in found
    assert "[OT\\PR\\SEG\\SR]" in found
    assert "(0008,0054) AE [PLEURA]" in found
    study = asked.results[0].study_instance_uid
    series = asked.query(
        "findscu", "QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study}", "Modality=SEG", "SeriesNumber"
    )
    assert ("[9001]" in series, "[9007]" in series) == (True, True), "of the findings, and of the lungs"
    assert "Find Response: 3" not in series
    patients = dcmtk(
        "findscu", "-v", "-P", "-aet", VIEWER, "-aec", "PLEURA", "-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID",
        "127.0.0.1", asked.node.port,
    )  # fmt: skip
    assert "[K-20418 ]" in patients.stderr + patients.stdout


@pytest.mark.peer("findscu")
def test_what_cannot_be_understood_is_answered_so(asked: Asked) -> None:
    assert "DataSetDoesNotMatchSOPClass" in asked.query("findscu", "QueryRetrieveLevel=BODY")
    for key in ("StudyDate=soon", r"PatientID=A\B"):
        assert "DataSetDoesNotMatchSOPClass" in asked.query("findscu", "QueryRetrieveLevel=STUDY", key)
    assert "Final Find Response (Success)" in asked.query("findscu", "QueryRetrieveLevel=STUDY", "PatientID=NOBODY")


@pytest.mark.peer("getscu")
def test_a_patient_id_of_two_issuers_needs_its_issuer(asked: Asked, tmp_path: Path) -> None:
    """It is of two patients, and a retrieval tells nobody which results are whose."""
    first = asked.results[0].study_instance_uid
    own = {one.sop_instance_uid for one in asked.results if one.study_instance_uid == first}
    as_it_is = text("select id, patient_id, issuer_of_patient_id from studies")
    change = text("update studies set patient_id = :patient_id, issuer_of_patient_id = :issuer where id = :id")
    with asked.node.engine.begin() as connection:
        before = [{"id": row[0], "patient_id": row[1], "issuer": row[2]} for row in connection.execute(as_it_is)]
        connection.execute(text("update studies set patient_id = 'P7', issuer_of_patient_id = 'SOUTH'"))
        north = text("update studies set issuer_of_patient_id = 'NORTH' where study_instance_uid = :uid")
        connection.execute(north, {"uid": first})

    def got(issuer: str) -> set[str]:
        keys = ("-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID=P7", "-k", f"IssuerOfPatientID={issuer}")
        caller = ("-aet", VIEWER, "-aec", "PLEURA", "-od", str(tmp_path))
        dcmtk("getscu", "-v", "-P", *caller, "+B", *keys, "127.0.0.1", asked.node.port)
        return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in tmp_path.iterdir()}

    try:
        assert got("") == set()
        assert got("NORTH") == own
    finally:
        with asked.node.engine.begin() as connection:
            connection.execute(change, before)


@pytest.mark.peer("findscu")
def test_only_who_may_query_gets_the_services(asked: Asked) -> None:
    for program in ("findscu", "getscu", "movescu"):
        more = ("-aem", "STORE") if program == "movescu" else ()
        output = asked.query(program, "QueryRetrieveLevel=STUDY", calling=STRANGER, more=more)
        assert "No Acceptable Presentation Contexts" in output or "No adequate Presentation Contexts" in output, output


@pytest.mark.peer("getscu")
def test_getscu_gets_the_bytes_that_were_made(asked: Asked, tmp_path: Path) -> None:
    study = asked.results[0].study_instance_uid
    own = [one for one in asked.results if one.study_instance_uid == study]
    asked.query("getscu", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}", more=("-od", str(tmp_path), "+B"))
    got = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in tmp_path.iterdir()}
    assert set(got) == {one.sop_instance_uid for one in own}
    for one in own:
        assert data_set_bytes(got[one.sop_instance_uid]) == data_set_bytes(asked.folder / one.path)


@pytest.mark.peer("movescu")
def test_movescu_moves_to_a_destination_and_nowhere_else(asked: Asked, tmp_path: Path) -> None:
    study = asked.results[0].study_instance_uid
    own = {one.sop_instance_uid for one in asked.results if one.study_instance_uid == study}
    keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}")
    receiver = subprocess.Popen(["storescp", "-od", str(tmp_path), "-aet", "STORE", str(asked.move_port)])
    try:
        wait_until(lambda: dcmtk("echoscu", "127.0.0.1", asked.move_port).returncode == 0, "storescp")
        output = asked.query("movescu", *keys, more=("-aem", "STORE"))
        assert "Received Final Move Response (Success)" in output, output
    finally:
        receiver.kill()
        receiver.wait(30)
    assert {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in tmp_path.iterdir()} == own
    for nowhere in ("NOBODY", "PLEURA"):  # PLEURA is this node itself: it would ask for ever
        assert "(Refused: MoveDestinationUnknown)" in asked.query("movescu", *keys, more=("-aem", nowhere))
    assert "UnableToProcess" in asked.query("movescu", "QueryRetrieveLevel=STUDY", more=("-aem", "STORE"))
    with asked.node.engine.connect() as connection:
        query = text("select actor, action from audit where detail like 'C-MOVE%' order by id")
        assert {tuple(row) for row in connection.execute(query)} == {(VIEWER, "send")}


def test_a_query_can_be_cancelled(asked: Asked) -> None:
    entity = AE(ae_title=VIEWER)
    entity.add_requested_context(Find)
    association = entity.associate("127.0.0.1", asked.node.port, ae_title="PLEURA")
    assert association.is_established
    query = Dataset()
    query.QueryRetrieveLevel, query.SOPInstanceUID = "IMAGE", ""
    codes = []
    for status, _ in association.send_c_find(query, Find, msg_id=7):
        if not codes:
            association.send_c_cancel(7, query_model=Find)
        codes.append(status.Status)
    association.release()
    assert codes[-1] in (0xFE00, 0x0000), "cancelled, or all was sent before the word came"
    assert len(codes) <= len(asked.results) + 1


@pytest.mark.peer("Orthanc")
@pytest.mark.campaign
def test_orthanc_pulls_a_study(asked: Asked, tmp_path: Path) -> None:
    study = asked.results[0].study_instance_uid
    own = {one.sop_instance_uid for one in asked.results if one.study_instance_uid == study}
    with running_orthanc(tmp_path, dicom_port=asked.move_port) as pacs:
        pacs.know("pleura", "PLEURA", asked.node.port)
        query = pacs.post("/modalities/pleura/query", {"Level": "Study", "Query": {"StudyInstanceUID": study}})
        assert len(pacs.get(f"/queries/{query['ID']}/answers")) == 1
        pacs.request("POST", f"/queries/{query['ID']}/answers/0/retrieve", b"STORE", "text/plain")
        got = {str(each.SOPInstanceUID) for each in pacs.datasets()}
    assert got == own
