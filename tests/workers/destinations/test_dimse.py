"""The DIMSE destination against a real PACS, DCMTK, and a peer that answers whatever a test wants."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext

from config.destinations import Destination
from tests.orthanc import running_orthanc, wait_until
from tests.ports import listens
from tests.workers.harness import CR, radiograph
from workers.destinations.destination_kind import Outgoing, PeerError, PeerStudy, Receipt, Verdict
from workers.destinations.dimse import Dimse, classify_status

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
BOTH = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@pytest.fixture
def outgoing(tmp_path: Path) -> Callable[..., Outgoing]:
    def make(uid: str, sop_class: str = CR) -> Outgoing:
        dataset = radiograph(uid)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
        dcmwrite(tmp_path / f"{uid}.dcm", dataset, enforce_file_format=True)
        return Outgoing(tmp_path / f"{uid}.dcm", sop_class, uid)

    return make


def at(port: int, **changes: Any) -> Destination:
    values = {"name": "peer", "ae_title": "PEER", "host": "127.0.0.1", "port": port, "timeout_seconds": 5}
    return Destination(**{**values, **changes})


class Peer:
    """A storage SCP of pynetdicom that answers each C-STORE with the next of ``statuses``, or aborts at None.

    ``twice``: it answers each of them twice.
    """

    def __init__(
        self,
        *statuses: int | None,
        classes: tuple[str, ...] = (CR, SEG),
        supports: Sequence[str] = BOTH,
        twice: bool = False,
    ) -> None:
        self._twice = twice
        self.statuses = list(statuses)
        self.received: list[str] = []
        self.syntaxes: list[str] = []
        self.associations = 0
        entity = AE("PEER")
        for uid in classes:
            entity.add_supported_context(uid, list(supports))
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._count)]
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]

    def _count(self, event: evt.Event) -> None:
        self.associations += 1

    def _store(self, event: evt.Event) -> int:
        status = self.statuses.pop(0)
        if status is None:
            event.assoc.abort()
            return 0xC000
        self.received.append(str(event.request.AffectedSOPInstanceUID))
        self.syntaxes.append(str(event.context.transfer_syntax))
        if self._twice:
            response = C_STORE()
            response.MessageIDBeingRespondedTo, response.Status = event.request.MessageID, status
            response.AffectedSOPClassUID = event.request.AffectedSOPClassUID
            response.AffectedSOPInstanceUID = event.request.AffectedSOPInstanceUID
            event.assoc.dimse.send_msg(response, event.context.context_id)
        return status

    @property
    def open(self) -> list[Any]:
        """Associations that are open."""
        return list(self._server.active_associations)

    def abort(self) -> None:
        """Abort every association, and wait until the requestor knows."""
        for association in self.open:
            association.abort()
        wait_until(lambda: not self.open, "no association to be left")

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    started: list[Peer] = []

    def start(*statuses: int | None, **options: Any) -> Peer:
        started.append(Peer(*statuses, **options))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@contextmanager
def hanging_peer() -> Iterator[int]:
    """Port of a peer that accepts an association and then reads and says nothing any more."""
    server = socket.create_server(("127.0.0.1", 0))
    connections = []

    def serve() -> None:
        connection, _ = server.accept()
        connections.append(connection)
        connection.sendall(acceptance(connection.recv(65536)))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        thread.join(60)
        for connection in connections:
            connection.close()
        server.close()


def acceptance(request: bytes) -> bytes:
    """An A-ASSOCIATE-AC for the first presentation context of a request, in Explicit VR Little Endian."""
    asked = A_ASSOCIATE_RQ()
    asked.decode(request)
    primitive = asked.to_primitive()
    context = PresentationContext()
    context.context_id, context.result = primitive.presentation_context_definition_list[0].context_id, 0
    context.transfer_syntax = [ExplicitVRLittleEndian]
    primitive.presentation_context_definition_results_list = [context]
    primitive.result = 0
    answer = A_ASSOCIATE_AC()
    answer.from_primitive(primitive)
    encoded: bytes = answer.encode()
    return encoded


def verdicts(receipts: Iterable[Receipt]) -> list[Verdict]:
    return [receipt.verdict for receipt in receipts]


def test_a_group_goes_over_one_association_in_its_order(
    peer: Callable[..., Peer], outgoing: Callable[..., Outgoing]
) -> None:
    scp = peer(0x0000, 0x0000, 0x0000)
    group = [outgoing("1.2.3.2", SEG), outgoing("1.2.3.1"), outgoing("1.2.3.3")]
    assert verdicts(Dimse().send(at(scp.port), "PLEURA", group)) == [Verdict.SENT] * 3
    assert scp.received == ["1.2.3.2", "1.2.3.1", "1.2.3.3"]
    assert scp.associations == 1


def test_an_association_may_be_kept_for_the_next_group(
    peer: Callable[..., Peer], outgoing: Callable[..., Outgoing]
) -> None:
    scp, dimse = peer(0x0000, 0xA700, 0x0000, 0x0000), Dimse(keep=True)
    first, second = [outgoing("1.2.3.1", SEG), outgoing("1.2.3.2")], [outgoing("1.2.3.3")]
    # A caller that has a receipt for each object asks for no more.
    receipts = dimse.send(at(scp.port), "PLEURA", first)
    assert [next(receipts).verdict, next(receipts).verdict] == [Verdict.SENT, Verdict.LATER]
    del receipts
    assert verdicts(dimse.send(at(scp.port), "PLEURA", second)) == [Verdict.SENT]
    assert scp.associations == 1
    # Another title is another association; and what is asked of a peer has one of its own.
    assert verdicts(dimse.send(at(scp.port), "OTHER", second)) == [Verdict.SENT]
    with pytest.raises(PeerError):
        dimse.verify(at(scp.port), "OTHER")
    assert scp.associations == 3
    wait_until(lambda: not scp.open, "no association to be left")


def test_a_kept_association_that_the_peer_has_ended_is_opened_anew(
    peer: Callable[..., Peer], outgoing: Callable[..., Outgoing]
) -> None:
    scp, dimse = peer(0x0000, 0x0000), Dimse(keep=True)
    assert verdicts(dimse.send(at(scp.port), "PLEURA", [outgoing("1.2.3.1")])) == [Verdict.SENT]
    scp.abort()
    assert verdicts(dimse.send(at(scp.port), "PLEURA", [outgoing("1.2.3.2")])) == [Verdict.SENT]
    dimse.hang_up()
    assert scp.associations == 2


def test_a_peer_that_likes_the_default_syntax_better_gets_the_file_as_it_is(
    peer: Callable[..., Peer], outgoing: Callable[..., Outgoing]
) -> None:
    scp = peer(0x0000, supports=BOTH[::-1])
    assert verdicts(Dimse().send(at(scp.port), "PLEURA", [outgoing("1.2.3.1")])) == [Verdict.SENT]
    only_default = peer(0x0000, supports=[ImplicitVRLittleEndian])
    assert verdicts(Dimse().send(at(only_default.port), "PLEURA", [outgoing("1.2.3.1")])) == [Verdict.SENT]
    assert (scp.syntaxes, only_default.syntaxes) == ([ExplicitVRLittleEndian], [ImplicitVRLittleEndian])


def test_a_damaged_file_is_not_sent(peer: Callable[..., Peer], outgoing: Callable[..., Outgoing]) -> None:
    scp, given = peer(0x0000), outgoing("1.2.3.1")
    known = replace(given, digest=hashlib.sha256(given.path.read_bytes()).hexdigest())
    with given.path.open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"!!")
    (receipt,) = Dimse().send(at(scp.port), "PLEURA", [known])
    assert (receipt.verdict, receipt.note) == (Verdict.REJECTED, "the result file is damaged; analyse it again")
    assert scp.received == []


def test_one_bad_object_does_not_take_the_others_with_it(
    peer: Callable[..., Peer], outgoing: Callable[..., Outgoing], tmp_path: Path
) -> None:
    scp = peer(0xC000, 0x0000)
    gone = outgoing("1.2.3.9")
    gone.path.unlink()
    broken = outgoing("1.2.3.8")
    broken.path.write_bytes(b"no DICOM at all")
    group = [outgoing("1.2.3.1"), gone, broken, outgoing("1.2.3.2")]
    expected = [Verdict.REJECTED, Verdict.REJECTED, Verdict.REJECTED, Verdict.SENT]
    assert verdicts(Dimse().send(at(scp.port), "PLEURA", group)) == expected


def test_an_object_waits_while_the_store_is_away_or_cannot_be_read(
    peer: Callable[..., Peer], outgoing: Callable[..., Outgoing], tmp_path: Path
) -> None:
    scp = peer(0x0000)
    away = replace(outgoing("1.2.3.1"), path=tmp_path / "results/aa/object.dcm")
    assert verdicts(Dimse().send(at(scp.port), "PLEURA", [away])) == [Verdict.LATER]
    broken = replace(away, path=Path("/proc/self/mem"))  # it opens, and reading gives EIO
    assert verdicts(Dimse().send(at(scp.port), "PLEURA", [broken])) == [Verdict.LATER]


def test_a_class_that_the_peer_does_not_take_is_refused(
    peer: Callable[..., Peer], outgoing: Callable[..., Outgoing]
) -> None:
    scp = peer(0x0000, classes=(CR,))
    group = [outgoing("1.2.3.2", SEG), outgoing("1.2.3.1")]
    assert verdicts(Dimse().send(at(scp.port), "PLEURA", group)) == [Verdict.REJECTED, Verdict.SENT]
    assert verdicts(Dimse().send(at(scp.port), "PLEURA", group[:1])) == [Verdict.REJECTED]


def test_a_peer_that_answers_one_object_twice_has_not_stored_the_next(
    peer: Callable[..., Peer], outgoing: Callable[..., Outgoing]
) -> None:
    scp = peer(0x0000, 0xC000, 0x0000, twice=True)
    receipts = Dimse().send(at(scp.port), "PLEURA", [outgoing(f"1.2.3.{number}") for number in (1, 2, 3)])
    assert verdicts(receipts) == [Verdict.SENT, Verdict.REJECTED, Verdict.SENT]


def test_an_abort_in_the_middle_is_worth_another_attempt(
    peer: Callable[..., Peer], outgoing: Callable[..., Outgoing]
) -> None:
    scp = peer(0x0000, None)
    group = [outgoing(f"1.2.3.{number}") for number in range(1, 4)]
    receipts = list(Dimse().send(at(scp.port), "PLEURA", group))
    assert verdicts(receipts) == [Verdict.SENT, Verdict.RETRY, Verdict.RETRY]
    assert [receipt.may_have_arrived for receipt in receipts] == [False, True, False]


def test_nobody_at_the_port_is_unreachable(free_port: int, outgoing: Callable[..., Outgoing]) -> None:
    group = [outgoing("1.2.3.1"), outgoing("1.2.3.2")]
    assert verdicts(Dimse().send(at(free_port), "PLEURA", group)) == [Verdict.UNREACHABLE] * 2
    with pytest.raises(PeerError, match="cannot be reached"):
        Dimse().verify(at(free_port), "PLEURA")


def test_a_host_name_that_nobody_knows_is_unreachable(outgoing: Callable[..., Outgoing]) -> None:
    (receipt,) = Dimse().send(at(104, host="no-such-host.invalid"), "PLEURA", [outgoing("1.2.3.1")])
    assert receipt.verdict is Verdict.UNREACHABLE
    assert "host name" in receipt.note


def test_a_peer_that_never_answers_is_unreachable(outgoing: Callable[..., Outgoing]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        destination = at(silent.getsockname()[1], timeout_seconds=0.5)
        assert verdicts(Dimse().send(destination, "PLEURA", [outgoing("1.2.3.1")])) == [Verdict.UNREACHABLE]


@pytest.mark.parametrize("rows", [64, 4000], ids=["small", "larger than what a socket takes"])
def test_a_peer_that_hangs_in_the_middle_is_unreachable(tmp_path: Path, rows: int) -> None:
    dcmwrite(tmp_path / "large.dcm", radiograph("1.2.3.1", rows, 2000), enforce_file_format=True)
    with hanging_peer() as port:
        (receipt,) = Dimse().send(
            at(port, timeout_seconds=1), "PLEURA", [Outgoing(tmp_path / "large.dcm", CR, "1.2.3.1")]
        )
        assert (receipt.verdict, receipt.may_have_arrived) == (Verdict.UNREACHABLE, True)


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (0x0000, Verdict.SENT),
        (0xB000, Verdict.SENT),
        (0xB006, Verdict.SENT),
        (0xB007, Verdict.SENT),
        (0x0107, Verdict.SENT),
        (0xA700, Verdict.LATER),
        (0xA7FF, Verdict.LATER),
        (0x0110, Verdict.LATER),
        (0x0210, Verdict.RETRY),
        (0x0213, Verdict.LATER),
        (0x0111, Verdict.DUPLICATE),
        (0xA900, Verdict.REJECTED),
        (0xC000, Verdict.REJECTED),
        (0xCFFF, Verdict.REJECTED),
        (0x0122, Verdict.REJECTED),
        (0x0124, Verdict.REJECTED),
        (None, Verdict.RETRY),
    ],
)
def test_what_a_status_means(code: int | None, verdict: Verdict) -> None:
    status = Dataset()
    if code is not None:
        status.Status = code
    receipt = classify_status(status)
    assert receipt.verdict is verdict
    assert receipt.may_have_arrived is (code in (0x0111, None)), "a failure says that it is not stored"
    if code not in (0x0000, None):
        assert f"0x{code:04X}" in receipt.note


def test_the_peer_s_own_words_are_not_kept() -> None:
    status = Dataset()
    status.Status, status.ErrorComment = 0xC000, "Doe^John unknown"
    assert "Doe" not in classify_status(status).note


@pytest.mark.peer("storescp")
@pytest.mark.parametrize("option", ["+xe", "+xi"])
def test_dcmtk_gets_the_data_set_whole(
    tmp_path: Path, free_port: int, outgoing: Callable[..., Outgoing], option: str
) -> None:
    """``+xi``: a peer that takes the default transfer syntax alone gets the same values in that."""
    folder = tmp_path / "received"
    folder.mkdir()
    command = [str(shutil.which("storescp")), option, "-aet", "PEER", "-od", str(folder), str(free_port)]
    scp = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"})
    try:
        wait_until(lambda: listens(free_port), "storescp")
        sent = outgoing("1.2.3.1")
        assert verdicts(Dimse().send(at(free_port), "PLEURA", [sent])) == [Verdict.SENT]
        Dimse().verify(at(free_port), "PLEURA")
        (received,) = folder.iterdir()
        assert dcmread(received) == dcmread(sent.path)
    finally:
        scp.terminate()
        scp.wait()


@pytest.mark.peer("Orthanc")
def test_orthanc_says_whose_study_it_holds(tmp_path: Path, outgoing: Callable[..., Outgoing]) -> None:
    with running_orthanc(tmp_path / "pacs", modalities={"pleura": ("PLEURA", 1)}) as pacs:
        destination = at(pacs.dicom_port, ae_title=pacs.ae_title)
        assert Dimse().find_study(destination, "PLEURA", "1.2.3.1.1") is None
        assert verdicts(Dimse().send(destination, "PLEURA", [outgoing("1.2.3.1")])) == [Verdict.SENT]
        assert Dimse().find_study(destination, "PLEURA", "1.2.3.1.1") == PeerStudy("P1")
        with pytest.raises(PeerError, match="calling AE title"):
            Dimse().verify(destination, "STRANGER")


@dataclass(frozen=True)
class Stored:
    """What :class:`~workers.destinations.destination_kind.StoredObject` asks for, of a radiograph of the harness."""

    sop_instance_uid: str
    sop_class_uid: str = CR
    study_instance_uid: str = "1.2.3.1.1"
    series_instance_uid: str = "1.2.3.1.2"


@pytest.mark.peer("Orthanc")
def test_orthanc_says_which_objects_it_holds(tmp_path: Path, outgoing: Callable[..., Outgoing]) -> None:
    with running_orthanc(tmp_path / "pacs", modalities={"pleura": ("PLEURA", 1)}) as pacs:
        destination = at(pacs.dicom_port, ae_title=pacs.ae_title, verification="query", timeout_seconds=30)
        sent = outgoing("1.2.3.1")
        there = dcmread(sent.path)
        uids = {"study_instance_uid": there.StudyInstanceUID, "series_instance_uid": there.SeriesInstanceUID}
        asked = [Stored("1.2.3.1", **uids), Stored("1.2.3.9", **uids), Stored("1.2.3.1", study_instance_uid="1.9")]
        Dimse().check_verification(destination, "PLEURA")
        assert list(Dimse().holds(destination, "PLEURA", asked)) == [False] * 3
        assert verdicts(Dimse().send(destination, "PLEURA", [sent])) == [Verdict.SENT]
        assert list(Dimse().holds(destination, "PLEURA", asked)) == [True, False, False]


@pytest.mark.peer("dcmqrscp")
def test_dcmtk_says_which_objects_it_holds(tmp_path: Path, free_port: int, outgoing: Callable[..., Outgoing]) -> None:
    (tmp_path / "on_hold").mkdir()
    # It listens on every interface, so only we, from this machine, may call.
    (tmp_path / "dcmqrscp.cfg").write_text(f"""
NetworkTCPPort = {free_port}
MaxPDUSize = 16384
MaxAssociations = 4
HostTable BEGIN
named = (PLEURA, localhost, 104)
plain = (PLEURA, 127.0.0.1, 104)
pleura = named, plain
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
PEER {tmp_path / "on_hold"} RW (10, 100mb) pleura
AETable END
""")
    command = [str(shutil.which("dcmqrscp")), "-c", str(tmp_path / "dcmqrscp.cfg")]
    scp = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"})
    try:
        wait_until(lambda: listens(free_port), "dcmqrscp")
        sent = outgoing("1.2.3.1")
        there = dcmread(sent.path)
        uids = {"study_instance_uid": there.StudyInstanceUID, "series_instance_uid": there.SeriesInstanceUID}
        asked = [Stored("1.2.3.1", **uids), Stored("1.2.3.9", **uids)]
        assert list(Dimse().holds(at(free_port), "PLEURA", asked)) == [False, False]
        assert verdicts(Dimse().send(at(free_port), "PLEURA", [sent])) == [Verdict.SENT]
        assert list(Dimse().holds(at(free_port), "PLEURA", asked)) == [True, False]
    finally:
        scp.terminate()
        scp.wait()


@pytest.mark.peer("Orthanc")
def test_orthanc_takes_a_request_for_commitment(tmp_path: Path, outgoing: Callable[..., Outgoing]) -> None:
    with running_orthanc(tmp_path / "pacs", modalities={"pleura": ("PLEURA", 1)}) as pacs:
        destination = at(pacs.dicom_port, ae_title=pacs.ae_title, verification="commitment")
        Dimse().check_verification(destination, "PLEURA")
        Dimse().request_commitment(destination, "PLEURA", "2.25.7", [Stored("1.2.3.1"), Stored("1.2.3.2")])
        wait_until(lambda: "2.25.7" in pacs.log() or pacs.get("/jobs?expand"), "the request in Orthanc")
        (job,) = [job for job in pacs.get("/jobs?expand") if job["Type"] == "StorageCommitmentScp"]
        assert job["Content"]["TransactionUid"] == "2.25.7"


def test_a_peer_that_verifies_nothing_says_so(peer: Callable[..., Peer]) -> None:
    scp = peer()
    with pytest.raises(PeerError, match="Storage Commitment"):
        Dimse().request_commitment(at(scp.port), "PLEURA", "2.25.7", [Stored("1.2.3.1")])
    with pytest.raises(PeerError, match="C-FIND"):
        list(Dimse().holds(at(scp.port), "PLEURA", [Stored("1.2.3.1")]))
    for verification, service in (("query", "C-FIND"), ("commitment", "Storage Commitment")):
        with pytest.raises(PeerError, match=service):
            Dimse().check_verification(at(scp.port, verification=verification), "PLEURA")
    Dimse().check_verification(at(scp.port), "PLEURA")


def test_a_peer_without_queries_says_so(peer: Callable[..., Peer]) -> None:
    scp = peer()
    with pytest.raises(PeerError, match="C-FIND"):
        Dimse().find_study(at(scp.port), "PLEURA", "1.2.3")
    with pytest.raises(PeerError, match="C-ECHO"):
        Dimse().verify(at(scp.port), "PLEURA")
