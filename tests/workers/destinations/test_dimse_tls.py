"""The DIMSE destination over TLS (PS3.15 B.12), with DCMTK, Orthanc and OpenSSL as peers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite

from config.destinations import Destination
from config.listener import Listener
from config.tls import Tls
from node.dicom.storage_commitment import CommitmentReports
from node.monitoring.remedies import remedy
from tests.certificates import Certificates, Issued, certificates
from tests.node.dicom.listening import listening
from tests.orthanc import DicomTls, running_orthanc, wait_until
from tests.ports import free_port, listens
from tests.workers.harness import CR, radiograph
from workers.destinations.destination_kind import Outgoing, PeerUnreachableError, StoredObject, Verdict
from workers.destinations.dimse import Dimse

__all__ = ["certificates"]
pytestmark = [pytest.mark.peer("openssl"), pytest.mark.peer("storescp")]
UID = "1.2.3.4"


@contextmanager
def running(*command: object) -> Iterator[None]:
    """A server program; the last argument is its port."""
    process = subprocess.Popen(
        [*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: listens(int(str(command[-1]))), "a server", pause=0.02)
        yield
    finally:
        process.kill()
        process.wait(20)


@contextmanager
def storescp(folder: Path, shown: Issued | None, ca: Path) -> Iterator[int]:
    port = free_port()
    tls = () if shown is None else ("+tls", shown.key, shown.certificate, "+cf", ca)
    with running("storescp", *tls, "-od", folder, "-aet", "PEER", port):
        yield port


def at(port: int, *certificates: str) -> Destination:
    return Destination(
        name="peer",
        ae_title="PEER",
        host="127.0.0.1",
        port=port,
        timeout_seconds=10,
        tls=True,
        certificates=certificates,
    )


@pytest.fixture
def image(tmp_path: Path) -> Outgoing:
    path = tmp_path / "image.dcm"
    dcmwrite(path, radiograph(UID), enforce_file_format=True)
    return Outgoing(path, CR, UID)


def test_dcmtk_takes_an_object_by_tls(certificates: Certificates, image: Outgoing, tmp_path: Path) -> None:
    received = tmp_path / "received"
    received.mkdir()
    with storescp(received, certificates.pacs, certificates.ca) as port:
        dimse = Dimse(certificates.tls)
        dimse.verify(at(port), "PLEURA")
        (receipt,) = dimse.send(at(port), "PLEURA", [image])
    assert receipt.verdict is Verdict.SENT
    (stored,) = received.iterdir()
    assert dcmread(stored).PixelData == dcmread(image.path).PixelData


def test_a_certificate_for_another_name_is_taken_where_it_is_named(certificates: Certificates, tmp_path: Path) -> None:
    with storescp(tmp_path, certificates.other, certificates.ca) as port:
        for named in ("other.hospital", certificates.other.fingerprint):
            Dimse(certificates.tls).verify(at(port, "former.hospital", named), "PLEURA")


def test_a_single_certificate_may_be_trusted_instead_of_a_ca(certificates: Certificates, tmp_path: Path) -> None:
    ours = certificates.node
    with storescp(tmp_path, certificates.stranger, certificates.ca) as port:
        tls = Tls(certificate=ours.certificate, key=ours.key, ca=certificates.stranger.certificate)
        Dimse(tls).verify(at(port), "PLEURA")


@dataclass(frozen=True)
class Refused:
    """Whom this node does not talk to: what the peer shows, what this node shows and expects, and what it says."""

    shown: Callable[[Certificates], Issued | None]
    message: str
    remedy: str
    tls: Callable[[Certificates], Tls] = lambda made: made.tls
    expected: tuple[str, ...] = ()


REFUSED = {
    "another CA": Refused(lambda made: made.stranger, "not of a CA in tls.ca", "add its certificate to tls.ca"),
    "expired": Refused(lambda made: made.expired, "has expired", "Renew it at the peer"),
    "another host": Refused(lambda made: made.other, "for another name", "destinations[].certificates"),
    "another name": Refused(
        lambda made: made.pacs, "for another name (pacs.hospital", "destinations[].certificates", expected=("archive",)
    ),
    "no TLS": Refused(lambda _: None, "ended the handshake", "does not speak TLS on this port"),
    "it does not know us": Refused(
        lambda made: made.pacs,
        "does not accept our certificate",
        "Give the peer the CA",
        tls=lambda made: Tls(certificate=made.stranger.certificate, key=made.stranger.key, ca=made.ca),
    ),
    "it wants our certificate": Refused(
        lambda made: made.pacs, "asks for our certificate", "Set tls.certificate", tls=lambda made: Tls(ca=made.ca)
    ),
    "our key is of another certificate": Refused(
        lambda made: made.pacs,
        "the files of [tls] cannot be used",
        "pleura doctor",
        tls=lambda made: Tls(certificate=made.node.certificate, key=made.pacs.key, ca=made.ca),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_without_tls_as_configured_nothing_is_sent(
    case: str, certificates: Certificates, image: Outgoing, tmp_path: Path
) -> None:
    refused = REFUSED[case]
    received = tmp_path / "received"
    received.mkdir()
    with storescp(received, refused.shown(certificates), certificates.ca) as port:
        dimse, destination = Dimse(refused.tls(certificates)), at(port, *refused.expected)
        (receipt,) = dimse.send(destination, "PLEURA", [image])
        with pytest.raises(PeerUnreachableError) as raised:
            dimse.verify(destination, "PLEURA")
    assert receipt.verdict is Verdict.UNREACHABLE
    assert refused.message in receipt.note == str(raised.value)
    assert refused.remedy in remedy(receipt.note)
    assert not list(received.iterdir())


def test_a_peer_of_an_old_version_is_refused(certificates: Certificates) -> None:
    port, pacs = free_port(), certificates.pacs
    old = ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-cert", pacs.certificate, "-key", pacs.key)
    with (
        running("openssl", "s_server", *old, "-accept", port),
        pytest.raises(PeerUnreachableError, match=r"neither TLS 1\.2 nor TLS 1\.3"),
    ):
        Dimse(certificates.tls).verify(at(port), "PLEURA")


@dataclass(frozen=True)
class Stored:
    """An object that the archive has taken."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@pytest.mark.campaign
@pytest.mark.peer("Orthanc")
def test_orthanc_takes_answers_and_reports_by_tls(certificates: Certificates, image: Outgoing, tmp_path: Path) -> None:
    """C-STORE, C-FIND and N-ACTION go there by TLS; its report (N-EVENT-REPORT) and its C-STORE come by TLS."""
    reported: list[tuple[str, Sequence[str]]] = []

    def take(uid: str, committed: list[str], failed: dict[str, str]) -> tuple[int, int]:
        reported.append((uid, committed))
        return len(committed), len(failed)

    sent = dcmread(image.path)
    stored: StoredObject = Stored(CR, UID, sent.SeriesInstanceUID, sent.StudyInstanceUID)
    files = DicomTls(certificates.pacs.certificate, certificates.pacs.key, certificates.ca)
    rules = Listener(port=0, tls_port=0, transport="tls")
    with (
        listening(tmp_path / "node", rules, tls=certificates.tls, reports=CommitmentReports(take)) as node,
        running_orthanc(tmp_path / "orthanc", "PEER", tls=files) as pacs,
    ):
        pacs.know("pleura", "PLEURA", node.port, UseDicomTls=True, AllowStorageCommitment=True, AllowFind=True)
        destination, dimse = at(pacs.dicom_port), Dimse(certificates.tls)
        (receipt,) = dimse.send(destination, "PLEURA", [image])
        assert receipt.verdict is Verdict.SENT, pacs.log()[-2000:]
        study = dimse.find_study(destination, "PLEURA", stored.study_instance_uid)
        assert study is not None
        assert study.patient_id == sent.PatientID
        dimse.request_commitment(destination, "PLEURA", "1.2.9", [stored])
        wait_until(lambda: reported, "a Storage Commitment report by TLS", pause=0.05)
        assert reported == [("1.2.9", [UID])]
        answer = pacs.store_to("pleura", pacs.instances(SOPInstanceUID=UID)[0]["ID"])
        assert (answer["InstancesCount"], answer["FailedInstancesCount"]) == (1, 0)
        assert len(node.rows()) == 1
