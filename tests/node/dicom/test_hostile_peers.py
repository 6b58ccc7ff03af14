"""Peers that say nothing, drip, or send what no standard knows: they harm themselves, and one log line says so."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from config.listener import Listener
from config.listener import Peer as KnownPeer
from node.dicom.association_policy import LIMIT, LIMIT_OF_ADDRESS
from node.dicom.connection_limits import Connections
from node.dicom.presentation_contexts import is_storage_class
from node.dicom.upper_layer.fragments import MinimumRate
from tests.fuzz.peer import CR, EXPLICIT, VERIFICATION, Peer, associate_rq, p_data, pdu, store_rq
from tests.node.dicom.listening import Listening, chest, listening
from tests.node.dicom.test_received_header import encoded

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Listening]:
    with listening(tmp_path / "store") as running:
        yield running


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def lines(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if all(word in record.getMessage() for word in words)]


# One image


def test_a_uid_of_68_characters_refuses_its_image_and_nothing_else(
    node: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    long = "1.2.276.0.7230010.3.1.4." + "1234567890" * 4 + ".123"
    with Peer(node.port, [(CR, EXPLICIT)]) as peer:
        answers = []
        for uid in (generate_uid(), long, generate_uid()):
            image = chest()
            image.SOPInstanceUID = uid
            answers.append(peer.store(encoded(image), uid))
    assert [answer.status for answer in answers] == [0, 0xC000, 0]
    assert "longer than 64 characters" in answers[1].comment
    assert len(node.rows()) == 2
    assert len(lines(caplog, "0xC000", "longer than 64")) == 1
    assert node.leftovers() == []


def test_elements_out_of_order_are_stored_and_analysed(node: Listening) -> None:
    for element in (b"\x20\x00\x0d\x00", b"\x28\x00\x02\x00", b"\x08\x00\x16\x00"):
        image = chest()
        body = encoded(image)
        at = body.index(element)
        private = (
            struct.pack("<HH2sH", 0x7015, 0x0010, b"LO", 4) + b"CASE" + struct.pack("<HH2sH", 0x7015, 0x1060, b"LO", 0)
        )
        with Peer(node.port, [(CR, EXPLICIT)]) as peer:
            assert peer.store(body[:at] + private + body[at:], image.SOPInstanceUID).status == 0
    assert [row for (row,) in node.rows("state")] == ["eligible"] * 3
    assert len(node.dispatched) == 3


@pytest.mark.parametrize(
    ("vr", "length", "status"), [(b"ZZ", 4, 0), (b"??", 4, 0), (b"LO", 4, 0), (b"LO", 60_000, 0xC000)]
)
def test_an_odd_element_is_taken_or_refused_for_its_own_sake(
    node: Listening, vr: bytes, length: int, status: int
) -> None:
    image = chest(PixelData=None)
    body = encoded(image)
    at = body.index(b"\x10\x00\x10\x00")
    odd = struct.pack("<HH2sH", 0x0009, 0x1001, vr, length) + b"four"
    with Peer(node.port, [(CR, EXPLICIT)]) as peer:
        answer = peer.store(body[:at] + odd + body[at:], image.SOPInstanceUID)
    assert answer.status == status
    assert not status or "(0009,1001) says 60000 bytes" in answer.comment


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.8", "1.3.12.2.1107.5.9.1"])
def test_retired_and_private_classes_are_accepted_and_ignored(node: Listening, uid: str) -> None:
    other = chest(SOPClassUID=uid, PixelData=None)
    with Peer(node.port, [(uid, EXPLICIT)]) as peer:
        assert peer.accepted == {1}
        assert peer.store(encoded(other), other.SOPInstanceUID, uid).status == 0
    assert len(node.rows()) == 1
    assert node.dispatched == []


@pytest.mark.parametrize(
    "uid",
    ["1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.31", "no uid", "1.2." + "3" * 64],
)
def test_what_is_no_storage_class_is_not_accepted(uid: str) -> None:
    assert not is_storage_class(uid)


def test_a_number_of_an_odd_length_says_nothing(node: Listening) -> None:
    image = chest()
    body = encoded(image)
    rows = struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 2)
    odd = body.replace(rows, struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 3) + b"x")
    with Peer(node.port, [(CR, EXPLICIT)]) as peer:
        assert peer.store(odd, image.SOPInstanceUID).status == 0
    assert [row for (row,) in node.rows("state")] == ["not_eligible"]


def test_an_accession_number_of_backslashes_alone_is_no_reason_to_refuse(node: Listening) -> None:
    image = chest(AccessionNumber="12")
    odd = encoded(image).replace(b"SH\x02\x0012", b"SH\x02\x00\\ ")
    with Peer(node.port, [(CR, EXPLICIT)]) as peer:
        assert peer.store(odd, image.SOPInstanceUID).status == 0


# Connections


def test_silent_and_dripping_connections_shut_nobody_out(tmp_path: Path) -> None:
    stop = threading.Event()
    request = associate_rq([(CR, EXPLICIT)])
    with listening(tmp_path, Listener(port=0, maximum_associations=3, request_timeout_seconds=3)) as node:
        hostile = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(60)]

        def drip() -> None:
            at = 0
            while not stop.wait(0.2):
                for connection in hostile[::2]:
                    try:
                        connection.sendall(request[at : at + 1])
                    except OSError:
                        continue
                at += 1

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            for _ in range(3):
                image = chest()
                with Peer(node.port, [(CR, EXPLICIT)]) as peer:
                    assert peer.store(encoded(image), image.SOPInstanceUID).status == 0
            waiting = [thread for thread in threading.enumerate() if "AcceptorThread" in thread.name]
            assert eventually(lambda: not any(thread.is_alive() for thread in waiting))
        finally:
            stop.set()
            dripping.join()
            for connection in hostile:
                connection.close()


def test_one_address_does_not_take_all_associations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limits = Listener(port=0, maximum_associations=5, maximum_associations_per_address=2)
    contexts = [(VERIFICATION, EXPLICIT)]
    with listening(tmp_path, limits) as node, Peer(node.port, contexts), Peer(node.port, contexts):
        with Peer(node.port, contexts, calling="THIRD") as third:
            assert third.kind == 3
        assert eventually(lambda: bool(lines(caplog, "THIRD", "PLEURA", "127.0.0.1", "rejected", "from this address")))
        assert node.scp.association_count == 2
    assert len(lines(caplog, "THIRD")) == 1


@pytest.mark.parametrize("drip", ["data", "release"])
def test_a_message_that_drips_is_aborted(tmp_path: Path, drip: str, caplog: pytest.LogCaptureFixture) -> None:
    limits = Listener(port=0, idle_timeout_seconds=1, minimum_bytes_per_second=100)
    stream = p_data(1, 1, store_rq(CR, "1.2.3")) + p_data(1, 0, bytes(1000)) if drip == "data" else pdu(5, bytes(1000))
    with listening(tmp_path, limits) as node:
        peer = Peer(node.port, [(CR, EXPLICIT)])
        start = time.monotonic()
        for byte in stream:
            time.sleep(0.05)
            try:
                peer.socket.sendall(bytes((byte,)))
            except OSError:
                break
        assert time.monotonic() - start < 15
        peer.socket.close()
        assert eventually(lambda: len(lines(caplog, "association", "ended")) == 1)
        assert node.leftovers() == []


def test_the_pace_counts_only_while_somebody_waits() -> None:
    pace = MinimumRate(10, 100)
    assert all(pace.wait(1) for _ in range(9))
    pace.receive(1000)
    assert pace.wait(1)
    assert all(pace.wait(1) for _ in range(9))
    pace.receive(999)
    assert not pace.wait(1)
    assert pace.wait(9.9)
    pace.reset()
    assert pace.wait(9.9)


def test_the_silent_connection_of_the_busiest_address_makes_room() -> None:
    closed: list[int] = []
    connections = Connections(Listener(maximum_unassociated=3), lambda: 0.0)
    for key, address in enumerate(("quiet", "busy", "busy", "busy")):
        connections.opened(key, address, lambda why, key=key: closed.append(key))  # type: ignore[misc]
    assert closed == [1]


def test_limits_and_deadlines_of_connections() -> None:
    now = [0.0]
    closed: list[int] = []
    limits = Listener(maximum_associations=3, maximum_associations_per_address=2, request_timeout_seconds=10)
    connections = Connections(limits, lambda: now[0])
    for key in range(5):
        connections.opened(key, "a" if key < 3 else "b", lambda why, key=key: closed.append(key))  # type: ignore[misc]
    assert [connections.associate(key) for key in range(5)] == [None, None, LIMIT_OF_ADDRESS, None, LIMIT]
    now[0] = 10.0
    connections.expire()
    assert closed == [2, 4]
    connections.ended(0)
    assert connections.association_count == 2


# The log


@pytest.mark.parametrize(
    ("title", "shown", "why"),
    [
        ("STRANGER", "STRANGER", "rejected: calling AE title not recognized"),
        ("EVIL\n2026 ERROR", r"EVIL\n2026 ERROR", "ended: the peer sent an invalid PDU"),
        ("E\x9bVIL\x1b[2J", r"E\x9bVIL\x1b[2J", "ended: the peer sent an invalid PDU"),
    ],
)
def test_a_rejected_association_is_one_line_whatever_its_titles_are(
    tmp_path: Path, title: str, shown: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    known = Listener(port=0, peers=(KnownPeer(ae_title="PACS"),))
    with listening(tmp_path, known) as node:
        with Peer(node.port, [(CR, EXPLICIT)], calling=title) as peer:
            assert peer.kind in (3, 7)
        assert eventually(lambda: bool(lines(caplog, f"association of '{shown}' to 'PLEURA' from 127.0.0.1 {why}")))
    assert len(lines(caplog, shown)) == 1


def test_who_only_looks_whether_the_port_is_open_makes_no_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A load balancer looks every few seconds."""
    caplog.set_level(logging.DEBUG, "node.dicom")
    with listening(tmp_path, Listener(port=0)) as node:
        socket.create_connection(("127.0.0.1", node.port)).close()
        assert eventually(lambda: bool(lines(caplog, "connection from 127.0.0.1 ended")))
    assert [one.levelname for one in caplog.records if "127.0.0.1" in one.getMessage()] == ["DEBUG"]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (pdu(7, bytes(4)), "the peer aborted it"),
        (pdu(7, bytes((0, 0, 3, 0))), "cannot be handled"),
        (pdu(9, bytes(4)), "invalid PDU"),
        (pdu(4, bytes(3)), "ends within a header"),
        (p_data(1, 0, b"x"), "a data set without a C-STORE-RQ"),
        (p_data(3, 1, store_rq(CR, "1.2")), "the presentation context was not accepted"),
        (b"", "closed or broken"),
    ],
)
def test_every_aborted_association_is_one_line(
    node: Listening, sent: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    peer = Peer(node.port, [(CR, EXPLICIT)], calling="SENDER")
    peer.socket.sendall(sent)
    peer.socket.shutdown(socket.SHUT_WR)
    while peer.socket.recv(1000):
        pass
    peer.socket.close()
    assert eventually(lambda: bool(lines(caplog, "of 'SENDER' to 'PLEURA' from 127.0.0.1", why)))
    assert len(lines(caplog, "SENDER")) == 1


def test_a_release_is_no_line(node: Listening, caplog: pytest.LogCaptureFixture) -> None:
    with Peer(node.port, [(CR, EXPLICIT)], calling="SENDER"):
        pass
    assert eventually(lambda: node.scp.association_count == 0)
    assert lines(caplog, "SENDER") == []


@pytest.mark.parametrize("named", [b"\x30\x00\x00\x05" + b"1.2.3", b"\x40\x00\x00\x05" + b"1.2.3", b""])
def test_an_incomplete_presentation_context_costs_nobody_the_association(
    node: Listening, caplog: pytest.LogCaptureFixture, named: bytes
) -> None:
    request = associate_rq([(CR, EXPLICIT)])
    incomplete = struct.pack(">BBHBBBB", 0x20, 0, 4 + len(named), 3, 0, 0, 0) + named
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as connection:
        connection.sendall(pdu(1, request[6:] + incomplete))
        assert connection.recv(1) == b"\x02", "accepted"
    assert len(lines(caplog, "1 incomplete contexts")) == 1
