"""Documents that would inflate, nest or go on for ever: kept, not read, and nobody else waits for them."""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, uid
from pydicom.uid import generate_uid

from config.listener import Listener
from config.settings import Eligibility
from db.database import Database
from db.engine import connect
from node.dicom.association_policy import AssociationPolicy
from node.dicom.instance_store import InstanceStore
from node.dicom.receiving import InstanceReceiver, Policy
from node.dicom.spool import StoreCommand, file_preface
from tests.fuzz.peer import DEFLATED, EXPLICIT, Peer
from tests.migrated import migrate
from tests.node.dicom.listening import PIPELINE, Listening, chest, listening
from tests.node.dicom.test_received_header import encoded
from tests.rules import NO_RULES
from workers.clock import utc_now

SR = str(uid.BasicTextSRStorage)
KEY_OBJECT = str(uid.KeyObjectSelectionDocumentStorage)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Listening]:
    with listening(tmp_path / "store") as running:
        yield running


def document(sop_class: str = SR) -> Dataset:
    return chest(SOPClassUID=sop_class, Modality="SR", PixelData=None)


def code_item() -> bytes:
    """One content item with a coded name and answer: 13 elements and items in 90 bytes."""
    text = struct.pack("<HH2sH", 0x0008, 0x0100, b"SH", 2) + b"1 "
    code = struct.pack("<HHL", 0xFFFE, 0xE000, len(text)) + text
    name = struct.pack("<HH2sHL", 0x0040, 0xA043, b"SQ", 0, len(code)) + code
    answer = struct.pack("<HH2sHL", 0x0040, 0xA168, b"SQ", 0, len(code)) + code
    kind = struct.pack("<HH2sH", 0x0040, 0xA040, b"CS", 4) + b"CODE"
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(kind + name + answer)) + kind + name + answer


def with_content(made: Dataset, content: bytes) -> bytes:
    return encoded(made) + struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, len(content)) + content


def deflated(front: bytes, mebibytes: int) -> bytes:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    pieces = [deflater.compress(front)] + [deflater.compress(zeros) for _ in range(mebibytes)]
    return b"".join(pieces) + deflater.flush()


@pytest.mark.parametrize("sop_class", [SR, KEY_OBJECT, str(uid.EncapsulatedPDFStorage)])
def test_what_inflates_for_ever_is_kept_and_not_read(
    node: Listening, sop_class: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = document(sop_class)
    bomb = deflated(encoded(made) + struct.pack("<HH2sHL", 0x0042, 0x0011, b"OB", 0, 200 << 20), 200)
    assert len(bomb) < 300_000
    tracemalloc.start()
    with Peer(node.port, [(sop_class, DEFLATED)]) as peer:
        answer = peer.store(bomb, made.SOPInstanceUID, sop_class)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert answer.status == 0
    assert peak < 16 << 20
    assert len(node.rows()) == 1
    assert "stored but not read: the deflated data set inflates to more than is read" in caplog.text


def test_a_document_of_many_elements_keeps_nobody_waiting(node: Listening) -> None:
    made, image = document(), chest()
    large = with_content(made, code_item() * 55_000)
    assert len(large) > 4_000_000
    answers = []

    def send() -> None:
        with Peer(node.port, [(SR, EXPLICIT)], seconds=60) as peer:
            answers.append(peer.store(large, made.SOPInstanceUID, SR).status)

    sender = threading.Thread(target=send)
    with Peer(node.port, [(str(image.SOPClassUID), EXPLICIT)]) as other:
        sender.start()
        waits = []
        while sender.is_alive():
            image.SOPInstanceUID = generate_uid()
            start = time.monotonic()
            assert other.store(encoded(image), image.SOPInstanceUID).status == 0
            waits.append(time.monotonic() - start)
        sender.join()
    assert answers == [0]
    assert max(waits) < 5


def test_a_rejection_note_that_names_more_than_any_study_has(node: Listening, caplog: pytest.LogCaptureFixture) -> None:
    made = document(KEY_OBJECT)
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator = "113001", "DCM"
    made.ConceptNameCodeSequence = [title]
    items = []
    for number in range(12_000):
        item = Dataset()
        item.ReferencedSOPInstanceUID = f"1.2.3.{number}"
        items.append(item)
    series, study = Dataset(), Dataset()
    series.ReferencedSOPSequence, study.ReferencedSeriesSequence = items, [series]
    made.CurrentRequestedProcedureEvidenceSequence = [study]
    with Peer(node.port, [(KEY_OBJECT, EXPLICIT)]) as peer:
        assert peer.store(encoded(made), made.SOPInstanceUID, KEY_OBJECT).status == 0
    assert "names more than 10000 images" in caplog.text


class _Killed(BaseException):
    """Stands for the end of the process: nothing after it is done."""


class _Mortal(InstanceReceiver):
    """An intake that does not survive one of its files."""

    deadly = "none"

    def _recover(self, path: Path) -> bool:
        if path.name.startswith(self.deadly):
            raise _Killed
        return super()._recover(path)


def _left_behind(store: InstanceStore, image: Dataset) -> str:
    """Leave an image as a crash does between keeping and recording it; the beginning of its name."""
    command = StoreCommand(
        str(image.SOPClassUID), str(image.SOPInstanceUID), str(image.SOPClassUID), EXPLICIT, "PEER", "PLEURA"
    )
    spool = store.temporary(file_preface(command))
    spool.write(encoded(image))
    store.keep(spool)
    return spool.path.stem


def _receiver(store: InstanceStore, folder: Path) -> _Mortal:
    engine = connect(f"sqlite:///{folder / 'test.sqlite'}")
    migrate(engine)
    policy = Policy(Eligibility(), AssociationPolicy(Listener(port=0)), (), "2.25", PIPELINE)
    return _Mortal(store, Database(engine, NO_RULES), lambda jobs, queue: None, policy, utc_now)


def test_a_file_that_ended_the_listener_twice_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = InstanceStore(tmp_path)
    store.prepare()
    names = sorted(_left_behind(store, chest()) for _ in range(2))
    receiver = _receiver(store, tmp_path)
    receiver.deadly = names[0]
    for _ in range(2):
        with pytest.raises(_Killed):
            receiver.recover()

    assert receiver.recover() == 1
    assert [path.name.partition(".")[0] for path in (tmp_path / "set-aside").iterdir()] == [names[0]]
    assert list((tmp_path / "spool").iterdir()) == []
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)
    assert receiver.recover() == 0


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_a_file_that_cannot_be_read_does_not_keep_the_listener_from_starting(tmp_path: Path) -> None:
    store = InstanceStore(tmp_path)
    store.prepare()
    _left_behind(store, chest(StudyInstanceUID="none"))
    odd = tmp_path / "spool" / "odd.part"
    odd.write_bytes(b"somebody else's")
    os.link(odd, tmp_path / "second name")
    _left_behind(store, chest())
    assert _receiver(store, tmp_path).recover() == 1
    assert len(list((tmp_path / "set-aside").iterdir())) == 2
