"""QIDO-RS and WADO-RS of own results, checked with dicomweb-client and pydicom."""

from __future__ import annotations

import io
import json
import re
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from sqlalchemy import text

from db.engine import connect
from db.queries.own_results import OwnResult
from db.user_tables import Role
from node.dicomweb.media_types import accepted
from node.dicomweb.pixels import frames_of
from node.dicomweb.routes import endpoints
from tests.node.dicomweb.conftest import VIEWERS, DicomWeb, running_dicomweb
from tests.node.web.proxies import running_nginx
from tests.ports import free_port

NATIVE = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"


def get(web: DicomWeb, path: str, role: Role | None = Role.RADIOLOGIST, **headers: str) -> tuple[int, Any, bytes]:
    """Status, headers and body."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if role is not None:
        sent["Authorization"] = f"Bearer {web.tokens[role]}"
    try:
        with urllib.request.urlopen(urllib.request.Request(web.url + path, headers=sent), timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def found(web: DicomWeb, path: str, role: Role = Role.VIEWER) -> list[dict[str, Any]]:
    status, _, body = get(web, path, role)
    assert status == 200, body
    answer: list[dict[str, Any]] = json.loads(body)
    return answer


def path_of(one: OwnResult) -> str:
    return f"/studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"


def of_kind(web: DicomWeb, kind: str) -> OwnResult:
    return next(one for one in web.results if one.kind == kind)


def test_what_is_on_hold_is_not_there(dicomweb: DicomWeb) -> None:
    names = {str(Dataset.from_json(each).PatientName) for each in found(dicomweb, "/studies")}
    assert names == {"Okafor^Daniel", "Tanaka^Yui"}
    assert {one.kind for one in dicomweb.results} == {"seg", "sr", "sc", "gsps", "lungs"}


def test_a_key_with_several_values_does_not_match_everybody(dicomweb: DicomWeb) -> None:
    for asked in ("PatientID=K-20418%5CX", "PatientName=Okafor*%5CX", "AccessionNumber=%5C"):
        assert get(dicomweb, f"/studies?{asked}", Role.VIEWER)[0] == 400


def test_a_name_is_found_as_it_is_written_whatever_its_letters(dicomweb: DicomWeb) -> None:
    name = text("update studies set patient_name = :new where patient_name = :old")
    with dicomweb.engine.begin() as connection:
        connection.execute(name, {"old": "Tanaka^Yui", "new": "MÜLLER^Ägnes"})
    try:
        for asked in ("MÜLLER^Ägnes", "MÜL*"):
            assert len(found(dicomweb, f"/studies?PatientName={quote(asked)}")) == 1, asked
    finally:
        with dicomweb.engine.begin() as connection:
            connection.execute(name, {"new": "Tanaka^Yui", "old": "MÜLLER^Ägnes"})


def test_a_patient_of_another_issuer_is_another_and_one_of_two_accession_numbers_is_enough(dicomweb: DicomWeb) -> None:
    of_study = "(SELECT id FROM studies WHERE patient_id = 'K-20418')"
    with dicomweb.engine.begin() as connection:
        connection.execute(text(f"UPDATE studies SET issuer_of_patient_id = 'NORTH' WHERE id = {of_study}"))
        connection.execute(text(f"INSERT INTO study_accessions VALUES ({of_study}, 'B100'), ({of_study}, 'B101')"))
    try:
        for query, count in (
            ("PatientID=K-20418&IssuerOfPatientID=NORTH", 1),
            ("PatientID=K-20418&IssuerOfPatientID=SOUTH", 0),
            ("IssuerOfPatientID=SOUTH", 1),
            ("AccessionNumber=B101", 1),
            ("AccessionNumber=B10", 0),
        ):
            assert len(found(dicomweb, f"/studies?{query}")) == count, query
    finally:
        with dicomweb.engine.begin() as connection:
            connection.execute(text("UPDATE studies SET issuer_of_patient_id = ''"))
            connection.execute(text("DELETE FROM study_accessions"))


def test_dicomweb_client_finds_studies_series_and_instances(dicomweb: DicomWeb) -> None:
    client = dicomweb.client(Role.VIEWER)
    [study] = client.search_for_studies(search_filters={"PatientName": "okafor*", "ModalitiesInStudy": "SEG"})
    found = Dataset.from_json(study)
    own = [one for one in dicomweb.results if one.study_instance_uid == found.StudyInstanceUID]
    assert (found.PatientID, found.AccessionNumber, found.NumberOfStudyRelatedInstances) == (
        "K-20418",
        "A70210",
        len(own),
    )
    assert sorted(found.ModalitiesInStudy) == ["OT", "PR", "SEG", "SR"]

    series = [Dataset.from_json(each) for each in client.search_for_series(found.StudyInstanceUID)]
    assert {(each.Modality, each.SeriesNumber) for each in series} == {
        ("SEG", 9001), ("SR", 9002), ("OT", 9003), ("PR", 9004), ("SEG", 9007),
    }  # fmt: skip
    [capture] = client.search_for_instances(found.StudyInstanceUID, search_filters={"Modality": "OT"})
    assert Dataset.from_json(capture).Rows > 0
    assert capture["00081190"]["Value"][0].startswith(f"{dicomweb.url}/studies/")


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 2),
        ("?PatientID=K-20418", 1),
        ("?00100020=K-204*", 1),
        ("?PatientID=K-20418%25", 0),
        ("?StudyDescription=*100%25", 1),
        ("?StudyDescription=*1_0%25", 0),
        ("?StudyDate=20260228-20260301", 2),
        ("?StudyDate=-20260101", 0),
        ("?AccessionNumber=A70210,A70211", 0),
        ("?ModalitiesInStudy=MR", 0),
        ("?limit=1", 1),
        ("?limit=1&offset=1", 1),
        ("?offset=2", 0),
        ("?PatientAge=050Y&emptyvaluematching=true", 2),
    ],
)
def test_keys_and_pages(dicomweb: DicomWeb, query: str, count: int) -> None:
    assert len(found(dicomweb, f"/studies{query}")) == count


def test_what_is_more_or_fuzzy_is_told(dicomweb: DicomWeb) -> None:
    _, headers, _ = get(dicomweb, "/studies?limit=1&fuzzymatching=true")
    assert "additional results" in headers["Warning"]
    assert "fuzzymatching" in headers["Warning"]
    [with_manufacturer] = found(dicomweb, "/instances?limit=1&includefield=Manufacturer,00081010")
    assert with_manufacturer["00080070"]["Value"] == ["Pleura"]


@pytest.mark.parametrize("query", ["NoSuchThing=1", "limit=-1", "limit=x", "StudyDate=yesterday", "offset=99999999999"])
def test_what_cannot_be_asked_is_a_bad_request(dicomweb: DicomWeb, query: str) -> None:
    assert get(dicomweb, f"/studies?{query}")[0] == 400


def test_bytes_are_those_that_a_c_store_sends(dicomweb: DicomWeb) -> None:
    client = dicomweb.client(Role.RADIOLOGIST)
    for one in dicomweb.results:
        _, headers, body = get(dicomweb, path_of(one), Accept="application/dicom")
        assert headers["Content-Type"] == "application/dicom"
        assert body == (dicomweb.settings.store.folder / one.path).read_bytes()
    first = dicomweb.results[0]
    own = [one for one in dicomweb.results if one.study_instance_uid == first.study_instance_uid]
    study = client.retrieve_study(first.study_instance_uid)
    assert {each.SOPInstanceUID for each in study} == {one.sop_instance_uid for one in own}
    _, headers, body = get(dicomweb, f"/studies/{first.study_instance_uid}")
    assert 'type="application/dicom"' in headers["Content-Type"]
    for one in own:
        assert (dicomweb.settings.store.folder / one.path).read_bytes() in body


def test_metadata_leads_to_its_bulk_data(dicomweb: DicomWeb) -> None:
    seg = of_kind(dicomweb, "seg")
    [metadata] = dicomweb.client(Role.RADIOLOGIST).retrieve_series_metadata(
        seg.study_instance_uid, seg.series_instance_uid
    )
    file = dcmread(dicomweb.settings.store.folder / seg.path)
    address = metadata["7FE00010"]["BulkDataURI"]
    assert Dataset.from_json(metadata).SegmentSequence == file.SegmentSequence
    [pixels] = dicomweb.client(Role.RADIOLOGIST).retrieve_bulkdata(address)
    assert pixels == file.PixelData


@pytest.mark.peer("nginx")
def test_addresses_lead_through_a_proxy_that_changes_host_and_path(dicomweb: DicomWeb, tmp_path: Path) -> None:
    port, capture = free_port(), of_kind(dicomweb, "sc")
    root = f"http://127.0.0.1:{port}/ai/dicom-web"
    web = {"public_url": f"{root}/"}
    with running_dicomweb(dicomweb.settings.store.folder, destinations=[VIEWERS], dicomweb=web) as behind:
        site = f"listen 127.0.0.1:{port}; location /ai/dicom-web/ {{ proxy_pass {behind.url}/; }}"
        with running_nginx(tmp_path, port, f"server {{ {site} }}"):
            [told] = found(behind, f"{path_of(capture)}/metadata", Role.RADIOLOGIST)
            [match] = found(behind, f"/instances?SOPInstanceUID={capture.sop_instance_uid}")
            addresses = [told["7FE00010"]["BulkDataURI"], match["00081190"]["Value"][0]]
            assert addresses == [f"{root}{path_of(capture)}/bulkdata", f"{root}{path_of(capture)}"]
            answers = [get(replace(dicomweb, root=each, tokens=behind.tokens), "")[2] for each in addresses]
    file = dicomweb.settings.store.folder / capture.path
    assert dcmread(file).PixelData in answers[0]
    assert file.read_bytes() in answers[1]


@pytest.mark.peer("nginx")
def test_a_proxy_asks_the_node_for_its_own_series(dicomweb: DicomWeb, tmp_path: Path) -> None:
    """As docs/dicomweb.md says under OHIF: the proxy holds the token, and knows series by the root of their UIDs."""
    port, seg = free_port(), of_kind(dicomweb, "seg")
    root = seg.series_instance_uid.partition(".")[0] + "."
    own = f"location ~ ^/dicom-web/studies/[^/]+/series/{re.escape(root)}"
    node = f'proxy_pass http://127.0.0.1:{dicomweb.port}; proxy_set_header Authorization "Bearer {{}}";'
    asks = node.format(dicomweb.tokens[Role.RADIOLOGIST])
    site = f"listen 127.0.0.1:{port}; {own} {{ {asks} }} location /dicom-web/ {{ return 204; }}"
    with running_nginx(tmp_path, port, f"server {{ {site} }}"):
        behind = replace(dicomweb, root=f"http://127.0.0.1:{port}/dicom-web")
        status, _, body = get(behind, f"{path_of(seg)}/frames/1", None)
        assert status == 200
        assert body.count(b"Content-Type: application/octet-stream") == 1
        assert get(behind, "/studies", None)[0] == 204, "all else is the archive's"


def test_frames_and_picture_of_a_capture(dicomweb: DicomWeb) -> None:
    capture = of_kind(dicomweb, "sc")
    file = dcmread(dicomweb.settings.store.folder / capture.path)
    client = dicomweb.client(Role.RADIOLOGIST)
    uids = (capture.study_instance_uid, capture.series_instance_uid, capture.sop_instance_uid)
    assert client.retrieve_instance_frames(*uids, [1]) == [file.PixelData]
    asked_often = frames_of(file, [1] * 100) or []
    assert (len(asked_often), len({id(each) for each in asked_often})) == (100, 1), "it takes its memory once"
    status, headers, body = get(dicomweb, f"{path_of(capture)}/rendered", Accept="image/png")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(body)).size == (file.Columns, file.Rows)
    assert get(dicomweb, f"{path_of(capture)}/frames/2")[0] == 404
    report = path_of(of_kind(dicomweb, "sr"))
    assert get(dicomweb, f"{report}/rendered")[0] == 406
    assert get(dicomweb, f"{report}/frames/1")[0] == 404


def test_xml_is_answered_where_it_is_accepted(dicomweb: DicomWeb) -> None:
    sr = of_kind(dicomweb, "sr")
    accept = 'multipart/related; type="application/dicom+xml"'
    _, headers, body = get(dicomweb, f"{path_of(sr)}/metadata", Accept=accept)
    boundary = headers["Content-Type"].partition("boundary=")[2]
    [document] = [part.partition(b"\r\n\r\n")[2] for part in body.split(f"--{boundary}".encode())[1:-1]]
    root = ElementTree.fromstring(document)
    named = {each.get("keyword"): each for each in root.iter(f"{NATIVE}DicomAttribute")}
    assert named["PatientName"].findtext(f".//{NATIVE}FamilyName")
    assert named["SOPInstanceUID"].findtext(f"{NATIVE}Value") == sr.sop_instance_uid
    assert get(dicomweb, "/studies?PatientID=nobody", Accept="application/dicom+xml")[0] == 204


def test_what_is_not_ours_or_not_there_is_not_found(dicomweb: DicomWeb) -> None:
    source = "1.2.826.0.1.3680043.8.498.1"
    seg = of_kind(dicomweb, "seg")
    assert get(dicomweb, f"/studies/{seg.study_instance_uid}/series/{source}.2/instances/{source}")[0] == 404
    assert get(dicomweb, "/studies/1.2.3")[0] == 404
    assert get(dicomweb, "/studies/../../etc")[0] == 404
    status, *_ = get(
        dicomweb,
        path_of(seg),
        Accept='multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50',
    )
    assert status == 406


@pytest.mark.parametrize("role", [None, *Role])
def test_each_route_is_for_the_roles_of_its_table(dicomweb: DicomWeb, role: Role | None) -> None:
    """Every route of the table, for every role and for nobody."""
    seg = of_kind(dicomweb, "seg")
    uids = {"study:uid": seg.study_instance_uid, "series:uid": seg.series_instance_uid}
    uids |= {"instance:uid": seg.sop_instance_uid, "frames:frames": "1"}
    least = {Role.VIEWER: 0, Role.RADIOLOGIST: 1, Role.ADMIN: 2}
    table = {(each.method, each.path): each.role for each in endpoints()}
    assert len(table) == 18
    assert {path for (method, path), need in table.items() if need is Role.SENDER} == {
        "/studies",
        "/studies/{study:uid}",
    }
    for (method, template), need in table.items():
        path = template
        for name, value in uids.items():
            path = path.replace(f"{{{name}}}", value)
        request = urllib.request.Request(dicomweb.url + path, method=method, data=b"" if method == "POST" else None)
        if role is not None:
            request.add_header("Authorization", f"Bearer {dicomweb.tokens[role]}")
        try:
            status = urllib.request.urlopen(request, timeout=60).status
        except urllib.error.HTTPError as error:
            status = error.code
        may = role is need if Role.SENDER in (role, need) else role is not None and least[role] >= least[need]
        assert (status not in (401, 403)) == may, (method, path, role, status)
        assert status == 401 or role is not None


def test_access_is_in_the_audit_trail(dicomweb: DicomWeb) -> None:
    seg = of_kind(dicomweb, "seg")
    get(dicomweb, path_of(seg))
    found(dicomweb, "/studies?PatientID=audited")
    engine = connect(dicomweb.settings.database_url)
    with engine.connect() as connection:
        query = text("select actor, action, study_instance_uid, detail from audit order by id desc limit 2")
        asked, seen = map(tuple, connection.execute(query))
    engine.dispose()
    assert seen == ("token:radiologist", "view study", seg.study_instance_uid, "1 object retrieved by WADO-RS")
    assert asked[:2] == ("token:viewer", "answer query")


@pytest.mark.parametrize(
    ("header", "best"),
    [
        ("", "application/dicom+json"),
        ("*/*", "application/dicom+json"),
        ("application/*", "application/dicom+json"),
        ("application/json", "application/dicom+json"),
        ("application/dicom+xml", "application/dicom+xml"),
        ('multipart/related; type="application/dicom+xml", */*;q=0.1', "application/dicom+xml"),
        ("application/dicom+json;q=0.5, application/dicom+xml", "application/dicom+xml"),
        ("application/dicom+json;q=0, application/dicom+xml;q=x", None),
        ("text/html", None),
        (";;,", None),
    ],
)
def test_the_best_media_type_is_taken(header: str, best: str | None) -> None:
    assert accepted(header, ("application/dicom+json", "application/dicom+xml")) == best
