"""HL7 v2 messages: read from bytes into segments whose values are asked for by number, and written.

A small reader of our own: of the libraries that are in use, python-hl7 writes what it cannot unescape (names) to the
log and lets a message ask for any amount of memory, and hl7apy brings 2 MB of tables to be strict with. python-hl7
reads our messages in the tests, and we read its.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from workers.hl7.encoding import NULL, UNREADABLE, Delimiters, codec_of, escape, stripped, unescape

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
_MARK = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8, which some senders write in front of a message."""


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

        Without NUL, which no database keeps: see :func:`workers.hl7.encoding.stripped`.
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
    """A message: its header segment MSH first.

    ``unreadable`` are the fields (``PID-11``) that hold bytes which are not of the character set; U+FFFD stands there.
    """

    segments: tuple[Segment, ...]
    unreadable: tuple[str, ...] = ()

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


def read_message(
    raw: bytes, default_character_set: str = "8859/1", character_sets: Mapping[str, str] | None = None
) -> Message:
    """Read a message; ``default_character_set`` counts where MSH-18 is empty, UTF-8 where a byte order mark says so.

    ``character_sets`` are names that a site writes, and what they mean. Bytes that are not of the character set spoil
    their field and no other: whoever reads a value decides whether it can do without.

    Raises:
        MessageError: it has no usable header, or a character set that is not known.
    """
    header = read_header(raw)
    marked = raw.startswith(_MARK)
    codec = _codec(header, "UNICODE UTF-8" if marked else default_character_set, character_sets or {})
    text = _decoded(raw.removeprefix(_MARK), codec)
    lines = [line.strip("\r\n") for line in (text.split("\r") if "\r" in text else text.split("\n"))]
    segments = tuple(_segment(line, header.delimiters, codec) for line in lines if line)
    return Message(segments, tuple(_unreadable(segments)))


def _decoded(raw: bytes, codec: str) -> str:
    """The text of a message. What cannot be read is replaced, line by line: a set that switches begins each anew."""
    try:
        return raw.decode(codec)
    except UnicodeDecodeError:
        return "\r".join(line.decode(codec, "replace") for line in re.split(rb"[\r\n]", raw))


def _unreadable(segments: Sequence[Segment]) -> Iterator[str]:
    for segment in segments:
        for number, value in enumerate(segment.fields, start=1):
            if UNREADABLE in value:
                yield f"{segment.name}-{number}"


def read_header(raw: bytes) -> Segment:
    """Read MSH alone, whatever the rest may be: an answer needs it.

    Raises:
        MessageError: there is none.
    """
    begin = raw.removeprefix(_MARK).lstrip(b"\r\n")[:_LONGEST_HEADER]
    line = re.split(rb"[\r\n]", begin, maxsplit=1)[0].decode("latin-1")
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


def _codec(header: Segment, default: str, character_sets: Mapping[str, str]) -> str:
    """The codec of MSH-18. One that switches sets reads plain ASCII too, so the first that does is taken."""
    names = [name for name in (header.part(one) for one in header.repetitions(18)) if name]
    codecs = [codec_of(name, character_sets) for name in names or [default]]
    chosen = next((codec for codec in codecs if codec == "iso2022_jp_2"), codecs[0])
    if chosen is None:
        raise MessageError(TABLE_VALUE, "the character set of MSH-18 is not known", "MSH^1^18", reject=True)
    return chosen


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
