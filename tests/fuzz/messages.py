"""HL7 messages that something is wrong with, MLLP that is none, and HTTP requests that no browser sends."""

from __future__ import annotations

from random import Random

from tests.node.hl7.messages import PATIENT, correction, merge, message, order, report
from workers.hl7.mllp import END, START

_SEGMENTS = ("ZDS|1.2.3", "PV1|1|I", "OBX|1|ED|||" + "A" * 5000, "NTE|" * 50, "MSH|^~\\&|again", "|||", "")
_TEXTS = (
    b"",
    b"|",
    b"^" * 300,
    b"\\X00\\",
    b"\\.br\\",
    b"\xff\xfe",
    b"\x1b$B",
    b"9" * 400,
    b"\\T\\\\R\\\\E",
    b"~" * 99,
)
_PATHS = (
    "/",
    "/login",
    "/studies/1",
    "/api/v1/studies",
    "/api/v1/openapi.json",
    "/metrics",
    "/static/../../etc/passwd",
)


def hl7_message(random: Random, number: int) -> bytes:
    """One message of a kind that the node knows, changed; the same again from the same generator state."""
    control = f"F{number}"
    made = random.choice(
        (
            lambda: order(control, accession=f"A-{random.randrange(50)}", priority=random.choice("SRAT?")),
            lambda: report(control, status=random.choice("FCPX"), accession=f"A-{random.randrange(50)}"),
            lambda: correction(control),
            lambda: merge(control),
            lambda: message("ACK", control),
            lambda: message(
                random.choice(("ORM^O01", "ADT^A01", "XXX", "")), control, PATIENT, random.choice(_SEGMENTS)
            ),
        )
    )()
    lines = made.split(b"\r")
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        at = random.randrange(len(lines))
        fields = lines[at].split(b"|")
        fields[random.randrange(len(fields))] = random.choice(_TEXTS)
        lines[at] = b"|".join(fields)
    if random.random() < 0.2:
        random.shuffle(lines)
    damaged = bytearray(b"\r".join(lines))
    for _ in range(random.choice((0, 0, 1, 4))):
        if damaged:
            damaged[random.randrange(len(damaged))] = random.randrange(256)
    return bytes(byte for byte in damaged if byte not in (START[0], END[0]))


def framed(random: Random, made: bytes) -> bytes:
    """The message on its way, one in four not as MLLP has it."""
    whole = START + made + END
    return random.choices(
        (
            whole,
            whole[:-1],
            made + END,
            START + START + made + END,
            START + made,
            END + whole,
            random.randbytes(random.randrange(60)) + whole,
            START + END,
        ),
        (24, 2, 1, 1, 1, 1, 1, 1),
    )[0]


def http_request(random: Random) -> bytes:
    """A request as text, damaged."""
    if random.random() < 0.3:
        return f"GET {random.choice(_PATHS)} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    method = random.choice(("GET", "POST", "PUT", "OPTIONS", "BREW", "", "GET" * 50))
    path = random.choice(_PATHS) + random.choice(("", "?q=" + "%" * 30, "?page=-1&page=x", "#" * 9, "\x00"))
    headers = random.sample(
        (
            "Host: 127.0.0.1",
            "Content-Length: -1",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: chunked",
            "Authorization: Bearer \xff",
            "Cookie: session=" + "x" * 5000,
            "Content-Type: multipart/form-data; boundary=",
            "Accept-Language: " + "de," * 500,
            "X-Forwarded-For: ::1",
            "Upgrade: h2c",
            "Range: bytes=-1",
        ),
        random.randrange(6),
    )
    head = "\r\n".join((f"{method} {path} HTTP/1.1", *headers, "Connection: close", "", ""))
    raw = bytearray(head.encode("latin-1") + random.randbytes(random.choice((0, 0, 30, 300))))
    for _ in range(random.choice((0, 0, 1, 3))):
        raw[random.randrange(len(raw))] = random.randrange(256)
    return bytes(raw)
