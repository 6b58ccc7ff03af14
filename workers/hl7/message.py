"""HL7 v2 messages: read from bytes into segments whose values are asked for by number, and written.

A small reader of our own: of the libraries that are in use, python-hl7 writes what it cannot unescape (names) to the
log and lets a message ask for any amount of memory, and hl7apy brings 2 MB of tables to be strict with. python-hl7
reads our messages in the tests, and we read its.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workers.hl7.text import CODECS, NULL, Delimiters, escape, stripped, unescape

SEGMENT_SEQUENCE = "100"
REQUIRED_FIELD = "101"
DATA_TYPE = "102"
TABLE_VALUE = "103"
UNSUPPORTED_MESSAGE = "200"
UNSUPPORTED_EVENT = "201"
UNSUPPORTED_PROCESSING = "202"
UNSUPPORTED_VERSION = "203"
UNKNOWN_KEY = "204"
INTERNAL = "207"
"""Error codes of HL7 table 0357."""

_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
_LONGEST_HEADER = 4096


class MessageError(ValueError):
    """A message cannot be taken as it is. The words hold nothing of what it says.

    ``code`` is of table 0357, ``place`` is as in ERR-2 (``OBR^1^18``). ``reject``: for its header and not for its
    content, so that the answer is AR and not AE.
    """

    def __init__(self, code: str, text: str, place: str = "", *, reject: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.place = place
        self.reject = reject


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment, its fields still as they were written. In MSH the field separator counts as field 1."""

    name: str
    fields: tuple[str, ...]
    delimiters: Delimiters
    codec: str

    def repetitions(self, field: int) -> list[str]:
        """The repetitions of a field as they were written; none where it is empty."""
        raw = self._raw(field)
        return raw.split(self.delimiters.repetition) if raw else []

    def text(self, field: int, component: int = 1, subcomponent: int = 1) -> str:
        """A value of the first repetition, unescaped and stripped; empty where there is none or it is to be deleted.

        Without NUL, which no database keeps: see :func:`workers.hl7.text.stripped`.
        """
        repetitions = self.repetitions(field)
        return self.part(repetitions[0], component, subcomponent) if repetitions else ""

    def part(self, repetition: str, component: int = 1, subcomponent: int = 1) -> str:
        """A value of one repetition, as :meth:`text` gives it."""
        if repetition == NULL:
            return ""
        found = _nth(_nth(repetition, self.delimiters.component, component), self.delimiters.subcomponent, subcomponent)
        return "" if found == NULL else stripped(unescape(found, self.delimiters, self.codec))

    def _raw(self, field: int) -> str:
        return self.fields[field - 1] if 0 < field <= len(self.fields) else ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message: its header segment MSH first."""

    segments: tuple[Segment, ...]

    @property
    def header(self) -> Segment:
        """MSH."""
        return self.segments[0]

    @property
    def kind(self) -> str:
        """Message code and trigger event: ``ORU^R01``."""
        return f"{self.header.text(9)}^{self.header.text(9, 2)}"

    def all(self, name: str) -> Iterator[Segment]:
        """The segments of that name."""
        return (segment for segment in self.segments if segment.name == name)

    def first(self, name: str) -> Segment | None:
        """The first segment of that name."""
        return next(self.all(name), None)


def read_message(raw: bytes, default_character_set: str = "8859/1") -> Message:
    """Read a message; ``default_character_set`` (table 0211) counts where MSH-18 is empty.

    Raises:
        MessageError: it has no usable header, a character set that is not known, or bytes that are not of it.
    """
    header = read_header(raw)
    codec = _codec(header, default_character_set)
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError as error:
        raise MessageError(DATA_TYPE, "the message is not in the character set of MSH-18", "MSH^1^18") from error
    lines = [line.strip("\r\n") for line in (text.split("\r") if "\r" in text else text.split("\n"))]
    return Message(tuple(_segment(line, header.delimiters, codec) for line in lines if line))


def read_header(raw: bytes) -> Segment:
    """Read MSH alone, whatever the rest may be: an answer needs it.

    Raises:
        MessageError: there is none.
    """
    line = re.split(rb"[\r\n]", raw.lstrip(b"\r\n")[:_LONGEST_HEADER], maxsplit=1)[0].decode("latin-1")
    if line[:3] != "MSH" or len(line) < 8:
        raise MessageError(SEGMENT_SEQUENCE, "a message begins with MSH", "MSH^1", reject=True)
    return _segment(line, _delimiters(line), "latin-1")


def write_message(segments: Sequence[Sequence[str]], delimiters: Delimiters | None = None) -> str:
    """Write segments, each a name and its fields as they are to stand there (see :func:`composed`), ended by CR.

    MSH is given without MSH-1 and MSH-2: ``("MSH", sending application, …)``.
    """
    chosen = delimiters or Delimiters()
    lines = []
    for name, *fields in segments:
        head = [name, chosen.encoding] if name == "MSH" else [name]
        lines.append(chosen.field.join([*head, *fields]).rstrip(chosen.field) + "\r")
    return "".join(lines)


def composed(*components: str, delimiters: Delimiters | None = None) -> str:
    """A field of components, each escaped; without empty ones at its end."""
    chosen = delimiters or Delimiters()
    return chosen.component.join(escape(component, chosen) for component in components).rstrip(chosen.component)


def _delimiters(line: str) -> Delimiters:
    separator = line[3]
    encoding = line[4:].partition(separator)[0]
    chosen = separator + encoding
    usable = 4 <= len(encoding) <= 5 and len(set(chosen)) == len(chosen)
    if not usable or any(character.isalnum() or not "!" <= character <= "~" for character in chosen):
        raise MessageError(DATA_TYPE, "MSH-1 and MSH-2 choose no usable delimiters", "MSH^1^2", reject=True)
    return Delimiters(separator, *list(encoding[:4]))


def _codec(header: Segment, default: str) -> str:
    """The codec of MSH-18. One that switches sets reads plain ASCII too, so the first that does is taken."""
    names = [header.part(name).upper() for name in header.repetitions(18)] or [default]
    for name in ("ISO IR87", "ISO IR159", *names):
        if name in names and name:
            if name not in CODECS:
                raise MessageError(TABLE_VALUE, "the character set of MSH-18 is not known", "MSH^1^18", reject=True)
            return CODECS[name]
    return CODECS[default]


def _segment(line: str, delimiters: Delimiters, codec: str) -> Segment:
    name, *fields = line.split(delimiters.field)
    if not _SEGMENT.fullmatch(name):
        raise MessageError(SEGMENT_SEQUENCE, "a line begins with no segment name")
    if name == "MSH":
        fields.insert(0, delimiters.field)
    return Segment(name, tuple(fields), delimiters, codec)


def _nth(text: str, separator: str, number: int) -> str:
    parts = text.split(separator)
    return parts[number - 1] if number <= len(parts) else ""
