"""The storage SCP on a real port: what it accepts, what it answers, and what lies on the disk then."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from pydicom import Dataset, dcmread, uid
from pydicom.data import get_testdata_file
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification
from sqlalchemy.exc import OperationalError

from config.listener import Listener, Peer
from db import instances
from db.database import Database
from db.engine import connect
from node.dicom.instance_store import InstanceStore, SpoolFile, StoreError
from node.dicom.job_dispatcher import JobDispatcher
from node.dicom.presentation_contexts import DECODABLE, OTHER_CLASSES
from tests.fakes import RecordingTaskQueue
from tests.fuzz.peer import Peer as RawPeer
from tests.migrated import migrate
from tests.node.dicom.listening import Listening, chest, data_set_bytes, dcmtk, listening
from tests.node.dicom.test_received_header import encoded
from tests.orthanc import wait_until
from tests.peers import skip_without_peers
from tests.rules import NO_RULES
from workers.association import open_association

CR = uid.ComputedRadiographyImageStorage
EXPLICIT = uid.ExplicitVRLittleEndian


LAYERS = ("fast", "stock")
over_both_layers = pytest.mark.parametrize("listener", LAYERS, indirect=True)
on_both_layers = pytest.mark.parametrize("layer", LAYERS)
Layer = Literal["fast", "stock"]


def limits(layer: Layer) -> Listener:
    return Listener(port=0, upper_layer=layer)


@pytest.fixture
def listener(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Listening]:
    with listening(tmp_path / "store", Listener(port=0, upper_layer=getattr(request, "param", "fast"))) as running:
        yield running


@contextmanager
def calling(
    port: int, contexts: Sequence[tuple[str, Sequence[str]]] = ((CR, (EXPLICIT,)),), title: str = "SCU"
) -> Iterator[Association]:
    association = open_association(
        ("127.0.0.1", port),
        called="PLEURA",
        calling=title,
        contexts=[build_context(abstract, list(transfer)) for abstract, transfer in contexts],
        seconds=60,
        connect_seconds=60,
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(association: Association, image: Dataset, priority: int = 2) -> int | None:
    status = association.send_c_store(image, priority=priority)
    return int(status.Status) if status else None


@pytest.fixture
def as_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are sent byte for byte, with the UIDs of their file meta information in the command."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


def send_file(association: Association, path: Path) -> int | None:
    status = association.send_c_store(str(path))
    return int(status.Status) if status else None


# --- what is kept ---------------------------------------------------------------------------------------------------


@over_both_layers
def test_an_image_is_on_the_disk_in_the_database_and_enqueued_for(listener: Listening) -> None:
    image = chest()
    with calling(listener.port) as association:
        assert send(association, image) == 0x0000

    (path,) = listener.files()
    assert dcmread(path) == image
    assert listener.rows("sop_instance_uid, path, state") == [
        (image.SOPInstanceUID, str(path.relative_to(listener.folder)), "eligible")
    ]
    assert len(listener.dispatched) == 1
    assert listener.leftovers() == []


@over_both_layers
def test_file_meta_information_says_who_sent_it(listener: Listening) -> None:
    with calling(listener.port) as association:
        send(association, chest())
    meta = dcmread(listener.files()[0]).file_meta

    assert meta.MediaStorageSOPClassUID == CR
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.SendingApplicationEntityTitle == "SCU"
    assert meta.ReceivingApplicationEntityTitle == "PLEURA"
    assert len(meta.ImplementationClassUID) <= 64


@over_both_layers
@pytest.mark.parametrize(
    "sop_class", ["1.2.840.10008.5.1.4.1.1.6", "1.2.276.0.7230010.9.9"], ids=["retired", "private"]
)
def test_a_class_that_pynetdicom_does_not_know_is_stored(listener: Listening, sop_class: str) -> None:
    image = chest()
    image.SOPClassUID = sop_class
    with RawPeer(listener.port, [(sop_class, EXPLICIT)]) as peer:
        assert peer.store(encoded(image), image.SOPInstanceUID, sop_class).status == 0x0000
    assert [dcmread(path).SOPClassUID for path in listener.files()] == [sop_class]


@over_both_layers
def test_a_repeat_is_harmless(listener: Listening) -> None:
    image = chest()
    with calling(listener.port) as association:
        assert [send(association, image), send(association, image)] == [0, 0]

    assert len(listener.rows()) == len(listener.files()) == 1


def test_same_uid_with_other_content_is_kept_apart(listener: Listening) -> None:
    image = chest()
    with calling(listener.port) as association:
        assert send(association, image) == 0
        image.PatientID = "SOMEBODY-ELSE"
        assert send(association, image) == 0

    assert len(listener.rows()) == len(listener.files()) == 2


@pytest.mark.parametrize(
    ("priority", "description", "stat"), [(1, "CHEST", True), (2, "CHEST", False), (0, "STAT", True)]
)
def test_stat(listener: Listening, priority: int, description: str, stat: bool) -> None:
    with calling(listener.port) as association:
        send(association, chest(StudyDescription=description), priority)

    assert [dispatched for _, dispatched in listener.dispatched] == [stat]


def _converted(folder: Path) -> dict[str, Path]:
    """A chest image in every encoding that DCMTK can make and receive, by transfer syntax."""
    source = folder / "source.dcm"
    image = chest(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    image.PixelData = os.urandom(64) * (512 * 512 // 64)
    image.save_as(source, enforce_file_format=True)
    made = {}
    for program, option in (
        ("dcmconv", "+ti"),
        ("dcmconv", "+te"),
        ("dcmconv", "+tb"),
        ("dcmconv", "+td"),
        ("dcmcrle", ""),
        ("dcmcjpeg", "+eb"),
        ("dcmcjpeg", "+ee"),
        ("dcmcjpeg", "+e1"),
        ("dcmcjpls", "+el"),
        ("dcmcjpls", "+en"),
    ):
        target = folder / f"{program}{option}.dcm"
        result = dcmtk(program, *filter(None, [option]), source, target)
        assert result.returncode == 0, result.stderr
        made[str(dcmread(target, stop_before_pixels=True).file_meta.TransferSyntaxUID)] = target
    for name in ("RG1_J2KR.dcm", "RG1_J2KI.dcm"):
        path = get_testdata_file(name, download=False)
        if path:
            made[str(dcmread(str(path), stop_before_pixels=True).file_meta.TransferSyntaxUID)] = Path(str(path))
    return made


def _only(folder: Path, syntax: str) -> Path:
    """A DCMTK association profile that offers one storage class in one transfer syntax."""
    profile = folder / "profile.cfg"
    profile.write_text(
        f"[[TransferSyntaxes]]\n[Only]\nTransferSyntax1 = {syntax}\n"
        f"[[PresentationContexts]]\n[Only]\nPresentationContext1 = {CR}\\Only\n"
        "[[Profiles]]\n[Only]\nPresentationContexts = Only\n"
    )
    return profile


@contextmanager
def storescp(folder: Path, port: int) -> Iterator[None]:
    """DCMTK's receiver, writing what it reads bit for bit."""
    folder.mkdir()
    server = subprocess.Popen(
        ["storescp", "+B", "+xa", "-od", str(folder), str(port)], env=os.environ | {"TCP_NODELAY": "1"}
    )
    try:
        wait_until(lambda: dcmtk("echoscu", "127.0.0.1", port).returncode == 0, "storescp", pause=0.05)
        yield
    finally:
        server.terminate()
        server.wait(60)


@over_both_layers
@pytest.mark.peer("storescp")
@pytest.mark.peer("storescu")
@pytest.mark.peer("dcmcjpls")
def test_every_transfer_syntax_is_kept_byte_for_byte_as_dcmtk_keeps_it(
    listener: Listening, tmp_path: Path, free_port: int
) -> None:
    sources = _converted(tmp_path)
    assert len(sources) >= 10
    with storescp(tmp_path / "dcmtk", free_port):
        for number, (syntax, path) in enumerate(sources.items()):
            before = set(listener.files())
            profile = _only(tmp_path, syntax)
            for port, title in ((free_port, "STORESCP"), (listener.port, "PLEURA")):
                sent = dcmtk("storescu", "-xf", profile, "Only", "-aec", title, "127.0.0.1", port, path)
                assert sent.returncode == 0, sent.stderr
            (theirs,) = (tmp_path / "dcmtk").iterdir()
            (ours,) = set(listener.files()) - before
            assert dcmread(ours, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax
            assert data_set_bytes(ours) == data_set_bytes(theirs), syntax
            theirs.unlink()
            assert len(listener.rows()) == number + 1


@pytest.mark.usefixtures("as_it_lies")
@pytest.mark.parametrize("syntax", DECODABLE)
def test_every_offered_transfer_syntax_is_accepted_and_kept_as_sent(
    listener: Listening, tmp_path: Path, syntax: uid.UID
) -> None:
    source = tmp_path / "source.dcm"
    plain = chest()
    plain.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    if syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian):
        option = {"1.2.840.10008.1.2": "+ti", "1.2.840.10008.1.2.2": "+tb"}.get(syntax, "+td")
        skip_without_peers("dcmconv")
        assert dcmtk("dcmconv", option, tmp_path / "plain.dcm", source).returncode == 0
    else:
        # What the fragments hold does not matter to a receiver: it must not look.
        plain.file_meta.TransferSyntaxUID = syntax
        if syntax != EXPLICIT:
            plain.PixelData = struct.pack("<HHIHHI", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, 8) + bytes(range(8))
            plain["PixelData"].is_undefined_length = True
            plain["PixelData"].VR = "OB"
        plain.save_as(source, enforce_file_format=True)

    with calling(listener.port, [(CR, (syntax,))]) as association:
        assert send_file(association, source) == 0x0000
    (kept,) = listener.files()
    assert data_set_bytes(kept) == data_set_bytes(source)
    assert dcmread(kept, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax


def test_lossless_is_preferred_where_a_peer_offers_several(listener: Listening) -> None:
    offers = (uid.JPEG2000, uid.JPEGBaseline8Bit, EXPLICIT)
    with calling(listener.port, [(CR, offers), (CR, (uid.JPEG2000,))]) as association:
        chosen = [context.transfer_syntax[0] for context in association.accepted_contexts]

    assert chosen == [EXPLICIT, uid.JPEG2000]


def test_what_cannot_be_decoded_is_not_accepted_for_radiographs(listener: Listening) -> None:
    with calling(listener.port, [(CR, ("1.2.840.10008.1.2.4.110",)), (Verification, (EXPLICIT,))]) as association:
        assert [context.abstract_syntax for context in association.accepted_contexts] == [Verification]


def test_every_storage_class_is_accepted_recorded_and_ignored(listener: Listening) -> None:
    classes = sorted(OTHER_CLASSES)
    for start in range(0, len(classes), 100):
        some = classes[start : start + 100]
        with calling(listener.port, [(one, (EXPLICIT,)) for one in some]) as association:
            assert len(association.accepted_contexts) == len(some)
    whole_study = [
        uid.KeyObjectSelectionDocumentStorage,
        uid.Comprehensive3DSRStorage,
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.EncapsulatedPDFStorage,
        uid.CTImageStorage,
        uid.SegmentationStorage,
    ]
    with calling(listener.port, [(one, (EXPLICIT,)) for one in whole_study]) as association:
        answers = [send(association, chest(SOPClassUID=one)) for one in whole_study]

    assert answers == [0x0000] * len(whole_study)
    assert listener.rows("state") == [("not_eligible",)] * len(whole_study)
    assert listener.dispatched == []


def test_other_classes_can_be_left_out(tmp_path: Path) -> None:
    wanted = [uid.CTImageStorage, uid.SecondaryCaptureImageStorage, CR]
    with (
        listening(tmp_path, Listener(port=0, accept_other_classes=False)) as listener,
        calling(listener.port, [(one, (EXPLICIT,)) for one in wanted]) as association,
    ):
        assert {context.abstract_syntax for context in association.accepted_contexts} == {
            uid.SecondaryCaptureImageStorage,
            CR,
        }


# --- associations ---------------------------------------------------------------------------------------------------


@over_both_layers
@pytest.mark.peer("echoscu")
def test_echo(listener: Listening) -> None:
    assert dcmtk("echoscu", "-aec", "PLEURA", "127.0.0.1", listener.port).returncode == 0


@pytest.mark.peer("echoscu")
@pytest.mark.parametrize(
    ("calling_title", "called", "reason"),
    [("PACS", "NOBODY", "Called AE Title Not Recognized"), ("STRANGER", "PLEURA", "Calling AE Title Not Recognized")],
)
@on_both_layers
def test_strangers_are_rejected(layer: Layer, tmp_path: Path, calling_title: str, called: str, reason: str) -> None:
    with listening(tmp_path, Listener(port=0, upper_layer=layer, peers=(Peer(ae_title="PACS"),))) as listener:
        known = dcmtk("echoscu", "-aet", "PACS", "-aec", "PLEURA", "127.0.0.1", listener.port)
        result = dcmtk("echoscu", "-aet", calling_title, "-aec", called, "127.0.0.1", listener.port)

    assert known.returncode == 0
    assert result.returncode != 0
    assert "Rejected Permanent, Source: Service User" in result.stderr
    assert reason in result.stderr


def test_a_known_title_from_another_address_is_rejected(tmp_path: Path) -> None:
    elsewhere = Listener(port=0, peers=(Peer(ae_title="SCU", addresses=("192.0.2.0/24",)),))
    with listening(tmp_path, elsewhere) as listener, calling(listener.port) as association:
        assert association.is_rejected
        assert association.acceptor.primitive.diagnostic == 3


@on_both_layers
def test_one_association_too_many_is_a_temporary_limit(layer: Layer, tmp_path: Path) -> None:
    with (
        listening(tmp_path, Listener(port=0, upper_layer=layer, maximum_associations=2)) as listener,
        calling(listener.port) as first,
        calling(listener.port) as second,
    ):
        with calling(listener.port) as third:
            answer = third.acceptor.primitive
            assert third.is_rejected
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        assert send(first, chest()) == send(second, chest()) == 0


@on_both_layers
def test_an_idle_association_is_aborted(layer: Layer, tmp_path: Path) -> None:
    with (
        listening(tmp_path, Listener(port=0, upper_layer=layer, idle_timeout_seconds=0.3)) as listener,
        calling(listener.port) as association,
    ):
        wait_until(lambda: association.is_aborted, "the abort", pause=0.05)


@pytest.mark.parametrize("start", [b"", b"\x01", b"\x01\x00\x00\x00\x00\xff" + b"\x00" * 10])
def test_a_connection_that_says_nothing_more_is_closed(tmp_path: Path, start: bytes) -> None:
    with (
        listening(tmp_path, Listener(port=0, idle_timeout_seconds=0.3)) as listener,
        socket.create_connection(("127.0.0.1", listener.port), timeout=60) as connection,
    ):
        connection.sendall(start)
        while connection.recv(100):
            pass


def test_a_pdu_longer_than_agreed_is_not_believed(listener: Listening) -> None:
    with socket.create_connection(("127.0.0.1", listener.port), timeout=60) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFF0))
        while connection.recv(100):
            pass
    with calling(listener.port) as association:
        assert send(association, chest()) == 0


def test_the_agreed_pdu_size_is_the_configured_one(tmp_path: Path) -> None:
    with (
        listening(tmp_path, Listener(port=0, maximum_pdu=32768)) as listener,
        calling(listener.port) as association,
    ):
        assert association.acceptor.maximum_length == 32768
        assert send(association, chest()) == 0


@over_both_layers
@pytest.mark.peer("dcmsend")
def test_many_associations_at_once(listener: Listening, tmp_path: Path) -> None:
    for number in range(24):
        chest().save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    files = [tmp_path / f"{number}.dcm" for number in range(24)]
    senders = [
        subprocess.Popen(
            ["dcmsend", "-aec", "PLEURA", "127.0.0.1", str(listener.port), *map(str, files[start::8])],
            env=os.environ | {"TCP_NODELAY": "1"},
        )
        for start in range(8)
    ]

    assert [sender.wait(120) for sender in senders] == [0] * 8
    assert len(listener.rows()) == len(listener.files()) == len(listener.dispatched) == 24


# --- failures -------------------------------------------------------------------------------------------------------


@over_both_layers
@pytest.mark.usefixtures("as_it_lies")
@pytest.mark.parametrize(
    ("damage", "status"),
    [
        ("other instance uid", 0xA900),
        ("other class uid", 0xA900),
        ("no study uid", 0xC000),
        ("garbage", 0xC000),
        ("cut off early", 0xC000),
    ],
)
def test_a_bad_object_gets_its_status_and_the_association_goes_on(
    listener: Listening, tmp_path: Path, damage: str, status: int
) -> None:
    path = tmp_path / "bad.dcm"
    image = chest()
    image.save_as(path, enforce_file_format=True)
    whole = path.read_bytes()
    head = len(whole) - len(data_set_bytes(path))
    data = whole[head:]
    uid_length = len(image.SOPInstanceUID)
    match damage:
        case "other instance uid":
            other = uid.generate_uid()[:uid_length].ljust(uid_length, "1")
            data = data.replace(image.SOPInstanceUID.encode(), other.encode(), 1)
        case "other class uid":
            data = data.replace(CR.encode(), b"1.2.840.10008.5.1.4.1.1.2", 1)
        case "no study uid":
            chest(SOPInstanceUID=image.SOPInstanceUID, StudyInstanceUID=None).save_as(path, enforce_file_format=True)
            data = data_set_bytes(path)
        case "garbage":
            data = os.urandom(5000)
        case _:
            data = data[:40]
    path.write_bytes(whole[:head] + data)

    with calling(listener.port) as association:
        assert send_file(association, path) == status
        assert (listener.rows(), listener.files(), listener.leftovers()) == ([], [], [])
        good = tmp_path / "good.dcm"
        chest().save_as(good, enforce_file_format=True)
        assert send_file(association, good) == 0x0000
    assert len(listener.rows()) == 1


@on_both_layers
def test_an_error_comment_tells_the_sender_why(layer: Layer, tmp_path: Path) -> None:
    with (
        listening(tmp_path, Listener(port=0, upper_layer=layer, maximum_instance_bytes=100_000)) as listener,
        calling(listener.port) as association,
    ):
        answer = association.send_c_store(chest())

        assert answer.Status == 0xA700
        assert "longer than 100000 bytes" in answer.ErrorComment
        assert listener.files() == listener.leftovers() == []
        small = chest()
        small.PixelData = bytes(1000)
        assert send(association, small) == 0


@on_both_layers
def test_less_free_space_than_configured(layer: Layer, tmp_path: Path) -> None:
    with (
        listening(
            tmp_path, Listener(port=0, upper_layer=layer), store=InstanceStore(tmp_path, minimum_free_bytes=2**60)
        ) as listener,
        calling(listener.port) as association,
    ):
        assert [send(association, chest()) for _ in range(2)] == [0xA700, 0xA700]
        assert association.is_established


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3.2 MiB: the room that is left when the images fill it is enough for their rows."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3400k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    with listening(small_disk) as listener, calling(listener.port) as association:
        statuses = [send(association, chest()) for _ in range(20)]
        accepted = statuses.count(0)

        assert 0 < accepted < 20
        assert statuses == [0] * accepted + [0xA700] * (20 - accepted)
        assert len(listener.rows()) == accepted
        # A file whose row found no room stays, under a note of its own, until the next start removes it.
        assert len(listener.files()) == accepted + len(listener.leftovers())
        tiny = chest()
        tiny.PixelData = bytes(100)
        (first,) = listener.rows("path")[0]
        (small_disk / str(first)).unlink()
        assert send(association, tiny) == 0
    with listening(small_disk) as listener:
        assert (len(listener.rows()), len(listener.files())) == (accepted + 1, accepted)
        assert listener.leftovers() == []


class FailingStore(InstanceStore):
    """A store whose disk fails when it shall keep something."""

    def keep(self, spool: SpoolFile) -> str:
        spool.discard()
        raise StoreError(5, "input/output error")


@on_both_layers
def test_a_disk_that_fails_at_the_last_moment(layer: Layer, tmp_path: Path) -> None:
    with (
        listening(tmp_path, limits(layer), store=FailingStore(tmp_path)) as listener,
        calling(listener.port) as association,
    ):
        assert send(association, chest()) == 0xA700
        assert (listener.rows(), listener.files(), listener.leftovers()) == ([], [], [])


class FlakyDatabase(Database):
    """A database that cannot take an instance for a while."""

    def __init__(self, folder: Path, error: Exception) -> None:
        engine = connect(f"sqlite:///{folder / 'test.sqlite'}")
        migrate(engine)
        super().__init__(engine, NO_RULES)
        self.error: Exception | None = error

    def write(self, command: Any, *args: Any, **kwargs: Any) -> Any:
        if command is instances.record_instance and self.error is not None:
            raise self.error
        return super().write(command, *args, **kwargs)


LOCKED = OperationalError("insert", {}, Exception("database is locked"))


@on_both_layers
def test_a_database_that_cannot_be_written(layer: Layer, tmp_path: Path) -> None:
    database = FlakyDatabase(tmp_path, LOCKED)
    image = chest()
    with (
        listening(tmp_path, limits(layer), database=database) as listener,
        calling(listener.port) as association,
    ):
        assert [send(association, image) for _ in range(3)] == [0xA700] * 3
        assert len(listener.files()) == len(listener.leftovers()) == 1
        database.error = None
        assert send(association, image) == 0

        assert len(listener.rows()) == 1
    with listening(tmp_path) as listener:
        assert listener.leftovers() == []
        assert len(listener.rows()) == len(listener.files()) == 1, "recorded when it was answered with success"


@pytest.mark.parametrize("error", [LOCKED, ZeroDivisionError()])
def test_what_was_answered_with_a_failure_is_not_recorded_later(tmp_path: Path, error: Exception) -> None:
    with (
        listening(tmp_path, database=FlakyDatabase(tmp_path, error)) as listener,
        calling(listener.port) as association,
    ):
        assert send(association, chest()) in (0xA700, 0x0110)
    with listening(tmp_path) as listener:
        assert (listener.rows(), listener.files(), listener.leftovers()) == ([], [], [])


@on_both_layers
def test_an_error_of_our_own_is_a_processing_failure(layer: Layer, tmp_path: Path) -> None:
    database = FlakyDatabase(tmp_path, ZeroDivisionError())
    with (
        listening(tmp_path, limits(layer), database=database) as listener,
        calling(listener.port) as association,
    ):
        assert send(association, chest()) == 0x0110
        assert association.is_established
        assert [path.suffix for path in listener.leftovers()] == [".failed"], "its bytes go at the next start"


def test_an_abort_in_the_middle_leaves_nothing(listener: Listening, tmp_path: Path) -> None:
    image = chest()
    image.Rows = image.Columns = 4096
    image.PixelData = bytes(4096 * 4096)
    image.save_as(tmp_path / "large.dcm", enforce_file_format=True)
    sender = AE("SCU")
    sender.add_requested_context(CR, [EXPLICIT])
    association = sender.associate("127.0.0.1", listener.port, ae_title="PLEURA")
    thread = threading.Thread(target=association.send_c_store, args=(str(tmp_path / "large.dcm"),))
    thread.start()
    while not listener.leftovers():
        assert thread.is_alive(), "it was sent before it could be cut off"
    association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    thread.join(60)
    wait_until(lambda: listener.leftovers() == [], "nothing to be left", pause=0.05)


@on_both_layers
def test_stopping_lets_a_message_under_way_be_answered(layer: Layer, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(FlakyDatabase):
        def write(self, command: Any, *args: Any, **kwargs: Any) -> Any:
            begun.set()
            go_on.wait(60)
            return super().write(command, *args, **kwargs)

    database = Slow(tmp_path, LOCKED)
    database.error = None
    answers: list[int | None] = []
    with (
        listening(tmp_path, limits(layer), database=database) as listener,
        calling(listener.port) as association,
    ):
        sending = threading.Thread(target=lambda: answers.append(send(association, chest())))
        sending.start()
        assert begun.wait(60)
        stopping = threading.Thread(target=listener.scp.stop, args=(60,))
        stopping.start()
        while is_listening(listener.port):
            time.sleep(0.05)
        go_on.set()
        sending.join(60)
        stopping.join(60)

    assert answers == [0]


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


# --- the task queue ---------------------------------------------------------------------------------------------------


class FallibleTaskQueue(RecordingTaskQueue):
    """A broker that can hang and fail."""

    def __init__(self) -> None:
        super().__init__()
        self.hang = threading.Event()
        self.hang.set()
        self.fail = False

    def enqueue_jobs(self, jobs: Iterable[tuple[int, bool]], queue: str = "jobs") -> bool:
        self.hang.wait(60)
        if self.fail:
            raise ConnectionError("no broker")
        return super().enqueue_jobs(jobs, queue)


def test_a_hanging_broker_keeps_nobody_waiting() -> None:
    task_queue = FallibleTaskQueue()
    task_queue.hang.clear()
    dispatcher = JobDispatcher(task_queue)
    for number in range(100):
        dispatcher.enqueue([(number, False)])
        dispatcher.dispatch()

    assert task_queue.dispatched == []
    task_queue.hang.set()
    dispatcher.close(60)
    assert task_queue.dispatched == [(number, False) for number in range(100)]


def test_a_failing_broker_does_not_end_the_enqueueing() -> None:
    task_queue = FallibleTaskQueue()
    task_queue.fail = True
    dispatcher = JobDispatcher(task_queue)
    dispatcher.enqueue([(1, False)])
    dispatcher.dispatch()
    while not dispatcher.idle:
        time.sleep(0.01)
    task_queue.fail = False
    dispatcher.enqueue([(2, True)])
    dispatcher.close(60)

    assert task_queue.dispatched == [(2, True)]


@over_both_layers
def test_logs_name_no_patient(listener: Listening, caplog: pytest.LogCaptureFixture) -> None:
    image = chest(PatientName="Secret^Name", PatientID="SECRET-ID")
    with caplog.at_level("INFO"), calling(listener.port) as association:
        send(association, image)
        send(association, image)

    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("node"))
    assert "instance 1: eligible" in text
    assert not re.search(rf"SECRET|Secret|{re.escape(image.SOPInstanceUID)}|{re.escape(image.StudyInstanceUID)}", text)
