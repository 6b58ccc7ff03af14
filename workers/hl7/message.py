"""HL7 v2 messages: parsing bytes into segments whose values are accessed by number, and writing.

This is a small parser of our own. python-hl7 logs text that it cannot unescape (names) and does not limit the memory
that a message needs; hl7apy brings 2 MB of tables for strict validation. The tests exchange messages with python-hl7.
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
"""The byte order mark of UTF-8, which some senders write before a message."""


class MessageError(ValueError):
    """A message is not accepted. The text contains nothing of the message.

    ``code`` is of table 0357, ``location`` is as in ERR-2 (``OBR^1^18``). ``reject``: the header is the reason and not
    the content, so the acknowledgement is AR and not AE.
    """

    def __init__(self, code: str, text: str, location: str = "", *, reject: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.location = location
        self.reject = reject


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment with its fields as written. In MSH the field separator counts as field 1."""

    name: str
    fields: tuple[str, ...]
    delimiters: Delimiters
    codec: str

    def repetitions(self, field: int) -> list[str]:
        """The repetitions of a field as written; none if it is empty."""
        raw = self._raw(field)
        return raw.split(self.delimiters.repetition) if raw else []

    def text(self, field: int, component: int = 1, subcomponent: int = 1) -> str:
        """A value of the first repetition, unescaped and stripped; empty if there is none or it is the null value.

        NUL is replaced, because databases do not store it: see :func:`workers.hl7.encoding.stripped`.
        """
        repetitions = self.repetitions(field)
        return self.part(repetitions[0], component, subcomponent) if repetitions else ""

    def part(self, repetition: str, component: int = 1, subcomponent: int = 1) -> str:
        """A value of one repetition; see :meth:`text`."""
        if repetition == NULL:
            return ""
        found = _nth(_nth(repetition, self.delimiters.component, component), self.delimiters.subcomponent, subcomponent)
        return "" if found == NULL else stripped(unescape(found, self.delimiters, self.codec))

    def _raw(self, field: int) -> str:
        return self.fields[field - 1] if 0 < field <= len(self.fields) else ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message, with its header segment MSH first.

    ``unreadable`` are the fields (``PID-11``) with bytes outside of the character set, which are replaced by U+FFFD.
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
        """The segments with this name."""
        return (segment for segment in self.segments if segment.name == name)

    def first(self, name: str) -> Segment | None:
        """The first segment with this name."""
        return next(self.all(name), None)


def read_message(
    raw: bytes, default_character_set: str = "8859/1", character_sets: Mapping[str, str] | None = None
) -> Message:
    """Parse a message. If MSH-18 is empty, the character set is UTF-8 after a byte order mark, else the default.

    ``character_sets`` maps a site's own names to known ones. Bytes outside of the character set make only their field
    unreadable; the reader of a value decides whether it is needed.

    Raises:
        MessageError: it has no usable header, or an unknown character set.
    """
    header = read_header(raw)
    marked = raw.startswith(_MARK)
    codec = _codec(header, "UNICODE UTF-8" if marked else default_character_set, character_sets or {})
    text = _decoded(raw.removeprefix(_MARK), codec)
    lines = [line.strip("\r\n") for line in (text.split("\r") if "\r" in text else text.split("\n"))]
    segments = tuple(_segment(line, header.delimiters, codec) for line in lines if line)
    return Message(segments, tuple(_unreadable(segments)))


def _decoded(raw: bytes, codec: str) -> str:
    """Decode a message. Undecodable bytes are replaced line by line: a stateful character set restarts each line."""
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
    """Parse only MSH, which an acknowledgement needs, even if the rest is invalid.

    Raises:
        MessageError: there is no MSH.
    """
    begin = raw.removeprefix(_MARK).lstrip(b"\r\n")[:_LONGEST_HEADER]
    line = re.split(rb"[\r\n]", begin, maxsplit=1)[0].decode("latin-1")
    if line[:3] != "MSH" or len(line) < 8:
        raise MessageError(SEGMENT_SEQUENCE, "a message must begin with MSH", "MSH^1", reject=True)
    return _segment(line, _delimiters(line), "latin-1")


def write_message(segments: Sequence[Sequence[str]], delimiters: Delimiters | None = None) -> str:
    """Write segments, each a name and its encoded fields (see :func:`composed`), terminated by CR.

    MSH is given without MSH-1 and MSH-2: ``("MSH", sending application, …)``.
    """
    chosen = delimiters or Delimiters()
    lines = []
    for name, *fields in segments:
        head = [name, chosen.encoding] if name == "MSH" else [name]
        lines.append(chosen.field.join([*head, *fields]).rstrip(chosen.field) + "\r")
    return "".join(lines)


def composed(*components: str, delimiters: Delimiters | None = None) -> str:
    """Encode a field of components, each escaped; empty ones at the end are left out."""
    chosen = delimiters or Delimiters()
    return chosen.component.join(escape(component, chosen) for component in components).rstrip(chosen.component)


def _delimiters(line: str) -> Delimiters:
    separator = line[3]
    encoding = line[4:].partition(separator)[0]
    chosen = separator + encoding
    usable = 4 <= len(encoding) <= 5 and len(set(chosen)) == len(chosen)
    if not usable or any(character.isalnum() or not "!" <= character <= "~" for character in chosen):
        raise MessageError(DATA_TYPE, "the delimiters in MSH-1 and MSH-2 are not usable", "MSH^1^2", reject=True)
    return Delimiters(separator, *list(encoding[:4]))


def _codec(header: Segment, default: str, character_sets: Mapping[str, str]) -> str:
    """The codec of MSH-18. A stateful codec reads ASCII too, so it has precedence over the others."""
    names = [name for name in (header.part(one) for one in header.repetitions(18)) if name]
    codecs = [codec_of(name, character_sets) for name in names or [default]]
    chosen = next((codec for codec in codecs if codec == "iso2022_jp_2"), codecs[0])
    if chosen is None:
        raise MessageError(TABLE_VALUE, "the character set in MSH-18 is unknown", "MSH^1^18", reject=True)
    return chosen


def _segment(line: str, delimiters: Delimiters, codec: str) -> Segment:
    name, *fields = line.split(delimiters.field)
    if not _SEGMENT.fullmatch(name):
        raise MessageError(SEGMENT_SEQUENCE, "a line does not begin with a segment name")
    if name == "MSH":
        fields.insert(0, delimiters.field)
    return Segment(name, tuple(fields), delimiters, codec)


def _nth(text: str, separator: str, number: int) -> str:
    parts = text.split(separator)
    return parts[number - 1] if number <= len(parts) else ""
