"""A storage SCU that costs next to nothing, so that a benchmark measures the receiver.

Messages are laid out once; sending one is a ``sendmsg`` and reading the answer. UIDs are made fresh for each message by
writing digits into the layout, so every receiver gets objects that it has never seen.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info

IMPLEMENTATION = b"1.2.826.0.1.3680043.10.1561"
_UID_LENGTH = 40
_PDU = 131072


def _placeholder(kind: int) -> str:
    return f"1.2.826.0.1.3680043.10.1561.{kind}1".ljust(_UID_LENGTH, "9")


@dataclass(frozen=True)
class Kind:
    """A kind of image: its class, encoding, attributes and pixel bytes."""

    name: str
    sop_class: uid.UID
    transfer_syntax: uid.UID
    data: bytes


def jpeg_kind(byte_count: int = 130_000) -> Kind:
    """A Secondary Capture with one JPEG Baseline frame; no receiver looks into it."""
    image = _image(uid.SecondaryCaptureImageStorage, "CR", 1024, 1024, 8)
    fragment = os.urandom(byte_count - byte_count % 2)
    image.PixelData = struct.pack("<HHIHHI", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(fragment)) + fragment
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    return Kind("130 KB JPEG", uid.SecondaryCaptureImageStorage, uid.JPEGBaseline8Bit, _encoded(image))


def uncompressed_kind(rows: int = 2800, columns: int = 2680) -> Kind:
    """A DX image of 15 MB in 16 bits."""
    image = _image(uid.DigitalXRayImageStorageForPresentation, "DX", rows, columns, 16)
    image.PixelData = os.urandom(1024) * (rows * columns * 2 // 1024 + 1)
    image.PixelData = image.PixelData[: rows * columns * 2]
    image["PixelData"].VR = "OW"
    return Kind("15 MB 16 bit", uid.DigitalXRayImageStorageForPresentation, uid.ExplicitVRLittleEndian, _encoded(image))


def _image(sop_class: uid.UID, modality: str, rows: int, columns: int, bits: int) -> Dataset:
    image = Dataset()
    image.SOPClassUID = sop_class
    image.SOPInstanceUID, image.StudyInstanceUID, image.SeriesInstanceUID = map(_placeholder, (1, 2, 3))
    image.Modality, image.BodyPartExamined, image.ViewPosition = modality, "CHEST", "PA"
    image.PatientID, image.PatientName, image.PatientAge = "BENCHMARK", "Benchmark^One", "050Y"
    image.StudyDate, image.StudyTime, image.StudyDescription = "20200102", "101112", "CHEST PA"
    image.AccessionNumber, image.Manufacturer, image.InstanceNumber = "A1", "ACME", 1
    image.Rows, image.Columns, image.SamplesPerPixel = rows, columns, 1
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
    image.BitsAllocated = image.BitsStored = bits
    image.HighBit = bits - 1
    return image


def radiograph_kind(name: str, image: Dataset) -> Kind:
    """The image of a file in Explicit VR Little Endian, whose UIDs are made fresh for each message."""
    image.SOPInstanceUID, image.StudyInstanceUID, image.SeriesInstanceUID = map(_placeholder, (1, 2, 3))
    return Kind(name, image.SOPClassUID, uid.ExplicitVRLittleEndian, _encoded(image))


def _encoded(image: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, image)
    return buffer.getvalue()


def write_files(kind: Kind, folder: Path, count: int, first: int) -> list[Path]:
    """The same images as files (PS3.10), for a sender that reads files."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(first, first + count):
        data = kind.data
        for place in (1, 2, 3):
            data = data.replace(_placeholder(place).encode(), _numbered(place, number).encode(), 1)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind.sop_class, kind.transfer_syntax
        meta.MediaStorageSOPInstanceUID = uid.UID(_numbered(1, number))
        meta.ImplementationClassUID = uid.UID("1.2.826.0.1.3680043.10.1561")
        paths.append(folder / f"{number}.dcm")
        header = DicomBytesIO()
        write_file_meta_info(header, meta)
        paths[-1].write_bytes(bytes(128) + b"DICM" + header.getvalue() + data)
    return paths


def instance_uid(number: int) -> str:
    """SOP Instance UID of the message with this number."""
    return _numbered(1, number)


def _numbered(place: int, number: int) -> str:
    return f"{_placeholder(place)[:-12]}{10**11 + number:012d}"


class Message:
    """A C-STORE-RQ with its data set as P-DATA-TF PDUs (PS3.7 9.3.1.1, PS3.8 9.3.5), ready to be sent many times."""

    def __init__(self, kind: Kind, longest_pdu: int) -> None:
        piece = min(longest_pdu or _PDU, _PDU) - 6
        parts = [kind.data[start : start + piece] for start in range(0, len(kind.data), piece)]
        self._head = bytearray(pdv(_command(kind), 0x03))
        self._first = bytearray(pdv(parts[0], 0x02 if len(parts) == 1 else 0x00))
        self._rest = b"".join(
            pdv(part, 0x02 if number == len(parts) else 0x00) for number, part in enumerate(parts[1:], 2)
        )
        self._places = [
            (buffer, buffer.index(_placeholder(number).encode()) + _UID_LENGTH - 12)
            for buffer, number in ((self._head, 1), (self._first, 1), (self._first, 2), (self._first, 3))
        ]

    def buffers(self, number: int) -> list[bytes | bytearray]:
        """The bytes of a message whose UIDs end in ``number``."""
        for buffer, place in self._places:
            buffer[place : place + 12] = f"{10**11 + number:012d}".encode()
        return [self._head, self._first, self._rest]


def element(number: int, value: bytes) -> bytes:
    """An element of a command set (PS3.7 6.3.1)."""
    return struct.pack("<HHI", 0, number, len(value)) + value


def _command(kind: Kind) -> bytes:
    sop_class = kind.sop_class.encode() + b"\0" * (len(kind.sop_class) % 2)
    rest = (
        element(0x0002, sop_class)
        + element(0x0100, struct.pack("<H", 1))
        + element(0x0110, struct.pack("<H", 1))
        + element(0x0700, struct.pack("<H", 0))
        + element(0x0800, struct.pack("<H", 1))
        + element(0x1000, _placeholder(1).encode())
    )
    return element(0x0000, struct.pack("<I", len(rest))) + rest


def pdv(data: bytes, control: int, context: int = 1) -> bytes:
    """A P-DATA-TF PDU with one presentation data value (PS3.8 9.3.5)."""
    return struct.pack(">BBLLBB", 4, 0, len(data) + 6, len(data) + 2, context, control) + data


def item(number: int, value: bytes) -> bytes:
    """An item or sub-item of an association request or acceptance (PS3.8 9.3.2)."""
    return struct.pack(">BBH", number, 0, len(value)) + value


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Kind and content of the next PDU.

    Raises:
        ConnectionError: the connection was closed.
    """
    kind, _, length = struct.unpack(">BBL", _exactly(connection, 6))
    return kind, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        more = connection.recv_into(view[done:])
        if not more:
            raise ConnectionError("the connection was closed")
        done += more
    return bytes(data)


@dataclass
class Sender:
    """One association that sends as fast as it is answered, and notes how long each answer took (seconds)."""

    port: int
    called: str
    kind: Kind
    count: int
    numbers: Iterator[int]
    seconds: list[float] = field(default_factory=list)
    error: str = ""

    def open(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(_associate(self.kind, self.called))
        kind, body = read_pdu(self._socket)
        if kind != 2:
            raise ConnectionError(f"{self.called} rejected the association")
        self._message = Message(self.kind, _longest_pdu(body))

    def run(self) -> None:
        try:
            for _ in range(self.count):
                buffers = self._message.buffers(next(self.numbers))
                start = time.perf_counter()
                for buffer in buffers:
                    self._socket.sendall(buffer)
                self._check(read_pdu(self._socket)[1])
                self.seconds.append(time.perf_counter() - start)
        except OSError as error:
            self.error = str(error)

    def close(self) -> None:
        self._socket.sendall(struct.pack(">BBLL", 5, 0, 4, 0))
        read_pdu(self._socket)
        self._socket.close()

    @staticmethod
    def _check(body: bytes) -> None:
        place = body.index(struct.pack("<HHI", 0, 0x0900, 2)) + 8
        (status,) = struct.unpack("<H", body[place : place + 2])
        if status:
            raise ConnectionError(f"status 0x{status:04X}")


def _associate(kind: Kind, called: str) -> bytes:
    context = bytes((1, 0, 0, 0)) + item(0x30, kind.sop_class.encode()) + item(0x40, kind.transfer_syntax.encode())
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, IMPLEMENTATION)
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), b"BENCHMARK".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    return struct.pack(">BBL", 1, 0, len(body)) + body


def _longest_pdu(accept: bytes) -> int:
    place = accept.index(b"\x51\x00\x00\x04") + 4
    return int(struct.unpack(">L", accept[place : place + 4])[0])


def send(
    ports: Sequence[int], called: str, kind: Kind, associations: int, count: int, first: int
) -> tuple[float, list[float]]:
    """Send ``count`` images over so many associations at once, dealt out to ``ports``; returns the wall time and every
    answer's time.

    Raises:
        ConnectionError: an image was not accepted.
    """
    numbers = itertools.count(first)
    shares = [count // associations + (number < count % associations) for number in range(associations)]
    senders = [Sender(port, called, kind, share, numbers) for port, share in zip(cycle(ports), shares, strict=False)]
    for sender in senders:
        sender.open()
    threads = [threading.Thread(target=sender.run) for sender in senders]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    for sender in senders:
        if sender.error:
            raise ConnectionError(f"{called}: {sender.error}")
        sender.close()
    return wall, [seconds for sender in senders for seconds in sender.seconds]
