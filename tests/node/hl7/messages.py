"""HL7 messages to test with, as hospitals' systems send them. All patients are made up."""

from __future__ import annotations

import socket

from workers.hl7.mllp import Deframer, frame

PATIENT = "PID|1||P1^^^^MR||Doe^Jane^^^^^L||19700101|F"


def message(kind: str, number: str = "M1", *segments: str, processing: str = "P", version: str = "2.5.1") -> bytes:
    """A message of ``kind`` with control ID ``number``, in UTF-8."""
    fields = ("MSH", "^~\\&", "RIS", "HOSPITAL", "PLEURA", "NODE", "20260301030000", "", kind, number, processing)
    header = "|".join((*fields, version, *[""] * 5, "UNICODE UTF-8"))
    return "".join(f"{line}\r" for line in (header, *segments)).encode()


def order(
    number: str = "M1", *, control: str = "NW", priority: str = "S", accession: str = "A-1", patient: str = PATIENT
) -> bytes:
    """ORM^O01 as IHE RAD-4 has it: accession number in OBR-18, priority in OBR-27."""
    obr = f"OBR|1|PL-1^RIS|FI-1^RIS|36643-5^Chest 2 views^LN{'|' * 14}{accession}{'|' * 9}^^^^^{priority}"
    return message("ORM^O01", number, patient, f"ORC|{control}|PL-1^RIS|FI-1^RIS", obr)


def report(number: str = "M2", status: str = "F", accession: str = "A-1", patient: str = PATIENT) -> bytes:
    """ORU^R01 with one text observation."""
    obr = f"OBR|1|PL-1^RIS|FI-1^RIS|36643-5^Chest 2 views^LN{'|' * 14}{accession}{'|' * 7}{status}"
    return message(
        "ORU^R01^ORU_R01", number, patient, obr, f"OBX|1|TX|18748-4^Report^LN||No pneumothorax.||||||{status}"
    )


def correction(
    number: str = "M3", patient: str = "PID|1||P1^^^^MR||Roe^Jane^^^^^L||19700101|F", kind: str = "ADT^A08^ADT_A01"
) -> bytes:
    """ADT^A08: the patient has another name."""
    return message(kind, number, "EVN|A08|20260301030000", patient)


def merge(number: str = "M4", kind: str = "ADT^A40^ADT_A39") -> bytes:
    """ADT^A40: P1 was the same patient as P7."""
    return message(kind, number, "PID|1||P7^^^^MR||Doe^Jane^^^^^L", "MRG|P1^^^^MR")


class Answer:
    """An acknowledgement, taken apart by hand and not by what we test."""

    def __init__(self, raw: bytes) -> None:
        self.text = raw.decode("ascii")
        self.segments = {line[:3]: line.split("|") for line in self.text.split("\r") if line}

    @property
    def code(self) -> str:
        return self.segments["MSA"][1]

    @property
    def control_id(self) -> str:
        return self.segments["MSA"][2]

    @property
    def error(self) -> str:
        """ERR-3.1."""
        return self.segments["ERR"][3].split("^")[0] if "ERR" in self.segments else ""


class Sender:
    """A RIS at the other end of a TCP connection."""

    def __init__(self, port: int, connection: socket.socket | None = None) -> None:
        self.connection = connection or socket.create_connection(("127.0.0.1", port), timeout=60)
        self._deframer = Deframer(100_000)
        self._waiting: list[bytes] = []

    def write(self, raw: bytes) -> None:
        self.connection.sendall(raw)

    def read(self) -> Answer | None:
        """The next answer; None where the listener has closed the connection."""
        while not self._waiting:
            chunk = self.connection.recv(65536)
            if not chunk:
                return None
            self._waiting += self._deframer.feed(chunk)
        return Answer(self._waiting.pop(0))

    def send(self, raw: bytes) -> Answer:
        self.write(frame(raw))
        answer = self.read()
        assert answer is not None, "the connection was closed"
        return answer

    def close(self) -> None:
        self.connection.close()
