"""STOW-RS in: what is answered is durable, by the rules of a C-STORE, whatever the body looks like."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import MRImageStorage, RawDataStorage, generate_uid
from sqlalchemy import text

from db.engine import connect
from db.user_tables import Role
from node.dicomweb.stow import BrokenBodyError, _Preamble
from tests.node.dicom.listening import chest, data_set_bytes
from tests.node.dicomweb.conftest import SENDER, DicomWeb, running_dicomweb
from tests.orthanc import running_orthanc, wait_until

RELATED = 'multipart/related; type="application/dicom"; boundary='
STORED, FAILED, OTHER = "00081199", "00081198", "0008119A"


def file_of(image: Dataset) -> bytes:
    written = BytesIO()
    dcmwrite(written, image, enforce_file_format=True)
    return written.getvalue()


def body_of(files: Sequence[bytes], boundary: str = "B", kind: str = "application/dicom") -> bytes:
    head = f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
    return b"".join(head + content + b"\r\n" for content in files) + f"--{boundary}--\r\n".encode()


def post(web: DicomWeb, body: bytes | Iterator[bytes], path: str = "/studies", **headers: str) -> tuple[int, Any]:
    """Send a request with the sender's token; status, and the answer."""
    sent = {"Authorization": f"Bearer {web.tokens[Role.SENDER]}", "Content-Type": f"{RELATED}B"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
    try:
        connection.request("POST", f"/dicom-web{path}", body, sent)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    is_json = answer.headers.get_content_subtype().endswith("json")
    return answer.status, json.loads(content) if is_json else content


def listed(answer: Any, sequence: str) -> list[tuple[str, int]]:
    """SOP Instance UID and Failure Reason of the items of a sequence."""
    items = answer.get(sequence, {}).get("Value", [])
    return [
        (each.get("00081155", {}).get("Value", [""])[0], each.get("00081197", {}).get("Value", [0])[0])
        for each in items
    ]


def test_what_dicomweb_client_stores_is_kept_byte_by_byte(dicomweb: DicomWeb) -> None:
    image = dcmread(BytesIO(file_of(chest(StudyDescription="STAT chest"))))
    answer = dicomweb.client(Role.SENDER).store_instances([image])

    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [image.SOPInstanceUID]
    assert "FailedSOPSequence" not in answer
    row = next(
        row
        for row in dicomweb.rows("sop_instance_uid, digest, path, state, calling_ae_title")
        if row[0] == image.SOPInstanceUID
    )
    kept = data_set_bytes(dicomweb.settings.store.folder / row[2])
    assert hashlib.sha256(kept).hexdigest() == row[1]
    assert file_of(image).endswith(kept)
    assert row[3:] == ("eligible", SENDER)


def test_each_instance_has_a_status_of_its_own(dicomweb: DicomWeb) -> None:
    study = generate_uid()
    good, other, lying, query, odd = (chest(StudyInstanceUID=study) for _ in range(5))
    other.StudyInstanceUID = generate_uid()
    nameless = file_of(good).replace(b" \0\x0e\0UI", b" \0\x0f\0UI")  # no Series Instance UID
    files = [
        file_of(good),
        file_of(other),
        with_meta(
            lying, lying.SOPInstanceUID, lying.SOPInstanceUID[:-1] + ("1" if lying.SOPInstanceUID[-1] == "0" else "0")
        ),
        nameless,
        with_meta(query, query.SOPClassUID, "1.2.840.10008.5.1.4.1.9.9"),
        with_meta(odd, "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.9"),
        b"no DICOM",
    ]

    status, answer = post(dicomweb, body_of(files), f"/studies/{study}")

    assert status == 202
    assert listed(answer, STORED) == [(good.SOPInstanceUID, 0)]
    assert [reason for _, reason in listed(answer, FAILED)] == [0xA900, 0xA900, 0xC000, 0x0122, 0xC122]
    assert listed(answer, FAILED)[0][0] == other.SOPInstanceUID
    assert listed(answer, OTHER) == [("", 0xC000)]
    failed = [*answer[FAILED]["Value"], *answer[OTHER]["Value"]]
    assert all(each["00000902"]["Value"][0] for each in failed), "each tells in words what its number means"
    assert failed[3]["00000902"]["Value"] == ["this SOP class is not supported"]
    assert good.SOPInstanceUID in dicomweb.rows()
    assert other.SOPInstanceUID not in dicomweb.rows()
    assert not dicomweb.leftovers()


def with_meta(image: Dataset, value: str, other: str) -> bytes:
    """A file whose meta information says something else: the first place of a value comes before the data set."""
    before, after = (uid.encode().ljust(len(value) + len(value) % 2, b"\0") for uid in (value, other))
    assert len(before) == len(after)
    return file_of(image).replace(before, after, 1)


def test_nothing_stored_is_a_conflict(dicomweb: DicomWeb) -> None:
    status, answer = post(dicomweb, body_of([file_of(chest())]), f"/studies/{generate_uid()}")

    assert status == 409
    assert [reason for _, reason in listed(answer, FAILED)] == [0xA900]
    assert dicomweb_client_hears(answer) == "Study Instance UID differs between request and data set"


def dicomweb_client_hears(answer: Any) -> str:
    """The reason as pydicom reads it, which is what dicomweb-client answers with."""
    (failed,) = Dataset.from_json(answer).FailedSOPSequence
    return str(failed.ErrorComment)


def test_the_same_again_is_a_repeat_and_other_pixels_are_looked_at(dicomweb: DicomWeb) -> None:
    image = chest()
    first = post(dicomweb, body_of([file_of(image)]))
    again = post(dicomweb, body_of([file_of(image)]))
    image.PixelData = bytes([7]) * len(image.PixelData)
    changed = post(dicomweb, body_of([file_of(image)]))

    assert [status for status, _ in (first, again, changed)] == [200, 200, 200]
    assert dicomweb.rows().count(image.SOPInstanceUID) == 2, "a repeat is no row, other bytes are one"


def test_xml_is_answered_where_it_is_accepted(dicomweb: DicomWeb) -> None:
    image = chest()
    status, content = post(dicomweb, body_of([file_of(image)]), Accept="application/dicom+xml")

    assert status == 200
    space = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    attributes = ElementTree.fromstring(content).iter(f"{space}DicomAttribute")
    found = {each.get("keyword"): [value.text for value in each.iter(f"{space}Value")] for each in attributes}
    assert found["ReferencedSOPInstanceUID"] == [image.SOPInstanceUID]
    assert post(dicomweb, b"", Accept="text/html")[0] == 406


@pytest.mark.parametrize(
    "content",
    [
        "application/dicom",
        'multipart/related; type="application/dicom+json"; boundary=B',
        "multipart/form-data; boundary=B",
    ],
)
def test_another_content_is_no_supported_media_type(dicomweb: DicomWeb, content: str) -> None:
    assert post(dicomweb, b"", Content_Type=content)[0] == 415


def test_a_compressed_body_is_no_supported_encoding(dicomweb: DicomWeb) -> None:
    body = body_of([file_of(chest())])
    status, answer = post(dicomweb, gzip.compress(body), Content_Encoding="gzip")
    assert (status, answer["detail"]) == (415, "a request must come without a content encoding")
    assert post(dicomweb, body, Content_Encoding="identity")[0] == 200


CUT = "the body ends without its last boundary"


def test_a_broken_body_keeps_what_was_whole(dicomweb: DicomWeb) -> None:
    before, cut = chest(), chest()
    whole = body_of([file_of(before), file_of(cut)])

    for body in (whole[:-3000], whole[:-6], whole.replace(b"--B--", b"--B-?")):
        status, answer = post(dicomweb, body)
        assert status == 400
        assert listed(answer, STORED)[0] == (before.SOPInstanceUID, 0)
        assert answer["00000902"] == {"vr": "LO", "Value": [CUT]}
        assert not dicomweb.leftovers()
    assert dicomweb.rows().count(before.SOPInstanceUID) == 1


@pytest.mark.parametrize(
    ("boundary", "why"),
    [("C", "is not in the body"), ("", "is empty or too long"), ("B" * 201, "is empty or too long")],
)
@pytest.mark.parametrize("accept", ["application/dicom+json", "application/dicom+xml"])
def test_a_wrong_boundary_is_a_bad_request(dicomweb: DicomWeb, boundary: str, why: str, accept: str) -> None:
    body = body_of([file_of(chest())])
    status, answer = post(dicomweb, body, Content_Type=f"{RELATED}{boundary}", Accept=accept)
    assert (status, answer["detail"]) == (400, f"the boundary of the Content-Type {why}")


def test_an_empty_request_is_a_bad_request(dicomweb: DicomWeb) -> None:
    assert post(dicomweb, body_of([])) == (400, {"detail": "the request has no part"})
    assert post(dicomweb, b"") == (400, {"detail": "the boundary of the Content-Type is not in the body"})
    assert post(dicomweb, b"\n--B\r\n")[1] == {"detail": CUT}


@pytest.mark.parametrize(
    "preamble",
    [
        b"",
        b"\r\n",
        b"This is a message with multiple parts in MIME format.\r\n",
        b"Its boundary is --B, and -- begins a line:\r\n--\r\n-\r\n",
        b"-" * 50_000 + b"\r\n\r\n",
    ],
    ids=["none", "empty line", "sentence", "nearly a boundary", "long"],
)
def test_what_stands_before_the_first_boundary_is_ignored(dicomweb: DicomWeb, preamble: bytes) -> None:
    """RFC 2046 5.1.1, whatever piece of it comes first."""
    image = chest()
    body = preamble + body_of([file_of(image)]) + b"and an epilogue\r\n"
    pieces = iter([body[:1], body[1:3], *([preamble[3:]] if len(preamble) > 3 else []), body[max(len(preamble), 3) :]])
    status, answer = post(dicomweb, pieces)
    assert (status, listed(answer, STORED)) == (200, [(image.SOPInstanceUID, 0)])


def test_a_body_that_never_begins_takes_no_memory(dicomweb: DicomWeb) -> None:
    """Gigabytes under another boundary are given up on soon."""
    status, answer = post(dicomweb, bytes(1 << 20))
    assert (status, answer) == (400, {"detail": "the boundary of the Content-Type is not in the body"})
    preamble = _Preamble("B")
    with pytest.raises(BrokenBodyError, match="not in the body"):
        [preamble.behind(bytes(8192)) for _ in range(10)]


def test_a_gigantic_part_takes_no_memory_and_no_place(tmp_path: Path) -> None:
    listener = {"maximum_instance_bytes": 300_000}
    with running_dicomweb(tmp_path, listener=listener, dicomweb={"maximum_request_bytes": 2_000_000}) as web:
        small, large = chest(), chest(Rows=2048, Columns=512, PixelData=bytes(2048 * 512))
        assert post(web, body_of([file_of(large)]))[0] == 413
        status, answer = post(web, body_of([file_of(large), file_of(small)]))
        assert status == 202
        assert listed(answer, FAILED) == [(large.SOPInstanceUID, 0xA700)]
        assert post(web, body_of([bytes(2_000_000)]))[0] == 413
        # Without a length that is told before: chunked.
        assert _chunked(web, body_of([file_of(small), bytes(2_000_000)])) == 413
        assert web.rows() == [small.SOPInstanceUID]
        assert not web.leftovers()


def _chunked(web: DicomWeb, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
    headers = {"Authorization": f"Bearer {web.tokens[Role.SENDER]}", "Content-Type": f"{RELATED}B"}
    pieces = (body[at : at + 10_000] for at in range(0, len(body), 10_000))
    with suppress(BrokenPipeError, ConnectionResetError):  # the answer came before the end of the body
        connection.request("POST", "/dicom-web/studies", pieces, headers, encode_chunked=True)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_no_room_is_told_with_retry_after(tmp_path: Path) -> None:
    with running_dicomweb(tmp_path, listener={"maximum_waiting_jobs": 1}) as web:
        assert post(web, body_of([file_of(chest())]))[0] == 200
        status, answer = post(web, body_of([file_of(chest())]))
        assert (status, [reason for _, reason in listed(answer, FAILED)]) == (503, [0xA700])
        assert post(web, body_of([file_of(chest(StudyDescription="STAT"))]))[0] == 200, "STAT is taken all the same"
    with running_dicomweb(tmp_path / "full", store={"minimum_free_bytes": 2**60}) as web:
        assert post(web, body_of([file_of(chest())]))[0] == 503


def test_uploads_are_limited_and_told_in_the_audit_trail(tmp_path: Path) -> None:
    body = body_of([file_of(chest())])
    with running_dicomweb(tmp_path, dicomweb={"maximum_uploads": 1}) as web:
        head = (
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {web.tokens[Role.SENDER]}\r\n"
            f"Content-Type: {RELATED}B\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", web.port), timeout=30) as slow:
            slow.sendall(head.encode() + body[:100_000])
            wait_until(web.leftovers, "the first part arrives", pause=0.02)
            assert post(web, b"")[0] == 503
            slow.sendall(body[100_000:])
            assert slow.recv(100).startswith(b"HTTP/1.1 200")
        assert post(web, body_of([file_of(chest())]), f"/studies/{generate_uid()}")[0] == 409
        url = web.settings.database_url
    engine = connect(url)
    with engine.connect() as connection:
        query = text("select actor, failed, address from audit where action = 'receive'")
        entries = sorted(map(tuple, connection.execute(query)))
    engine.dispose()
    assert entries == [(SENDER, 0, "127.0.0.1"), (SENDER, 1, "127.0.0.1")]


def test_only_a_sender_may_store(dicomweb: DicomWeb) -> None:
    body = body_of([file_of(chest())])
    for role in (Role.VIEWER, Role.RADIOLOGIST, Role.ADMIN):
        assert post(dicomweb, body, Authorization=f"Bearer {dicomweb.tokens[role]}")[0] == 403
    for wrong in ("", "Bearer nothing", "Basic !", "Basic bm9ib2R5Om5vdGhpbmc=", "Digest x"):
        assert post(dicomweb, body, Authorization=wrong)[0] == 401
    assert post(dicomweb, body, "/studies/1.2/nothing")[0] == 404


@pytest.mark.peer("curl")
def test_curl_stores_with_basic(dicomweb: DicomWeb, tmp_path: Path) -> None:
    """Many devices know HTTP Basic alone: the name of the token, and its secret as the password."""
    image = chest()
    (tmp_path / "body").write_bytes(body_of([file_of(image)]))
    command = ["curl", "-sS", "-u", f"{SENDER}:{dicomweb.tokens[Role.SENDER]}", "-H", f"Content-Type: {RELATED}B"]
    command += ["--data-binary", f"@{tmp_path / 'body'}", "-w", "%{http_code}", f"{dicomweb.url}/studies"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.endswith("200")
    assert image.SOPInstanceUID in dicomweb.rows()


@pytest.mark.peer("Orthanc")
@pytest.mark.campaign
def test_orthanc_sends_a_study(dicomweb: DicomWeb, tmp_path: Path) -> None:
    images = [chest(StudyInstanceUID="2.25.77", SOPInstanceUID=generate_uid()) for _ in range(3)]
    with running_orthanc(tmp_path) as pacs:
        for image in images:
            pacs.upload(file_of(image))
        server = {"Url": dicomweb.url, "HttpHeaders": {"Authorization": f"Bearer {dicomweb.tokens[Role.SENDER]}"}}
        pacs.request("PUT", "/dicom-web/servers/pleura", json.dumps(server).encode())
        studies = pacs.get("/studies")
        pacs.post("/dicom-web/servers/pleura/stow", {"Resources": studies, "Synchronous": True})

    assert {str(image.SOPInstanceUID) for image in images} <= set(dicomweb.rows())


def test_other_classes_are_kept_as_by_c_store(dicomweb: DicomWeb) -> None:
    others = [chest(SOPClassUID=MRImageStorage), chest(SOPClassUID=RawDataStorage)]
    assert post(dicomweb, body_of(list(map(file_of, others))))[0] == 200
    states = dict(dicomweb.rows("sop_instance_uid, state"))
    assert {states[image.SOPInstanceUID] for image in others} == {"not_eligible"}
