"""Encoding of HL7 v2 messages: delimiters, escape sequences (2.7) and character sets (MSH-18).

Nothing here logs and no error quotes a message, because messages contain patient data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

CODECS: Mapping[str, str] = {
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)},
    "UNICODE UTF-8": "utf_8",
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp_2",
    "ISO IR159": "iso2022_jp_2",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
    **{f"WINDOWS-{page}": f"cp{page}" for page in range(1250, 1259)},
    "IBM437": "cp437",
    "IBM850": "cp850",
}
"""Character sets of HL7 table 0211, other code pages that systems use, and the codec of each."""

_OTHER_NAMES: Mapping[str, Sequence[str]] = {
    "ASCII": ("US-ASCII", "ISO 646", "ANSI X3.4", "ISO_IR 6"),
    "8859/1": ("LATIN1", "ISO_IR 100"),
    "8859/2": ("LATIN2", "ISO_IR 101"),
    "8859/3": ("LATIN3", "ISO_IR 109"),
    "8859/4": ("LATIN4", "ISO_IR 110"),
    "8859/5": ("ISO_IR 144",),
    "8859/6": ("ISO_IR 127",),
    "8859/7": ("ISO_IR 126",),
    "8859/8": ("ISO_IR 138",),
    "8859/9": ("LATIN5", "ISO_IR 148"),
    "8859/11": ("ISO_IR 166", "TIS 620"),
    "8859/15": ("LATIN9", "ISO_IR 203"),
    "UNICODE UTF-8": ("UTF-8", "UNICODE", "ISO_IR 192"),
    "ISO IR14": ("ISO_IR 13", "SHIFT_JIS", "SJIS", "MS932", "CP932", "WINDOWS-31J"),
    "ISO IR87": ("ISO 2022 IR 87", "ISO-2022-JP"),
    "ISO IR159": ("ISO 2022 IR 159",),
    "GB 18030-2000": ("GB18030", "GBK", "GB2312", "CP936", "ISO 2022 IR 58"),
    "KS X 1001": ("EUC-KR", "KSC 5601", "KS C 5601", "ISO 2022 IR 149"),
    "BIG-5": ("CP950",),
    "WINDOWS-1252": ("ANSI", "MS-ANSI"),
    "IBM850": ("CP850", "850"),
    "IBM437": ("CP437", "437"),
}
"""Names of the same character sets in DICOM (PS3.3 C.12.1.1.2), at IANA and in manuals of senders."""


def _key(name: str) -> str:
    """Normalise a name to letters and digits: senders write 8859-1, ISO8859/1 and iso_8859-1 for the same set."""
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def _spellings() -> Iterator[tuple[str, str]]:
    for name in CODECS:
        yield _key(name), name
        if name.startswith("8859/"):
            yield _key(f"ISO{name}"), name
        if name.startswith("WINDOWS-"):
            yield from ((_key(f"{prefix}{name[8:]}"), name) for prefix in ("CP", "WIN", ""))
        for other in _OTHER_NAMES.get(name, ()):
            yield _key(other), name


_NAMES: Mapping[str, str] = dict(_spellings())


def codec_of(name: str, site_names: Mapping[str, str] | None = None) -> str | None:
    """The codec of a character set in any spelling of ``name``; None if it is unknown.

    ``site_names`` maps a site's own names to known ones.
    """
    own = {_key(key): value for key, value in (site_names or {}).items()}
    known = _NAMES.get(_key(own.get(_key(name), name)))
    return None if known is None else CODECS[known]


UNREADABLE = "\ufffd"
"""Replacement of bytes outside of the character set of their message."""

NULL = '""'
"""A field with this value means: delete the stored value."""

_LONGEST_SKIP = 100


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The delimiters from MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    @property
    def encoding(self) -> str:
        """The value of MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent


def escape(text: str, delimiters: Delimiters) -> str:
    """Escape ``text`` for a field; :func:`unescape` is the inverse.

    Delimiters become letters and control characters their hexadecimal code (both are in every set of table 0211).
    """
    mark = delimiters.escape
    letters = {
        delimiters.field: "F",
        delimiters.component: "S",
        delimiters.subcomponent: "T",
        delimiters.repetition: "R",
        mark: "E",
    }
    return "".join(
        f"{mark}{letters[character]}{mark}"
        if character in letters
        else f"{mark}X{ord(character):02X}{mark}"
        if ord(character) < 0x20
        else character
        for character in text
    )


def unescape(text: str, delimiters: Delimiters, codec: str = "utf_8") -> str:
    """Unescape a field's value. A sequence that is unknown or not terminated stays unchanged."""
    mark = delimiters.escape
    if mark not in text:
        return text
    parts: list[str] = []
    rest = text
    while mark in rest:
        before, _, behind = rest.partition(mark)
        sequence, end, after = behind.partition(mark)
        meaning = _meaning(sequence, delimiters, codec) if end else None
        if meaning is None:
            parts.append(before + mark)
            rest = behind
        else:
            parts.append(before + meaning)
            rest = after
    return "".join([*parts, rest])


def stripped(text: str) -> str:
    """``text`` without white space at its ends. A NUL, which databases do not store, counts as white space.

    It is not removed inside a value, because that could turn one patient's ID into another's.
    """
    return text.replace("\0", " ").strip()


def _meaning(sequence: str, delimiters: Delimiters, codec: str) -> str | None:
    """The text of one escape sequence; None if it is unknown."""
    letters = {
        "F": delimiters.field,
        "S": delimiters.component,
        "T": delimiters.subcomponent,
        "R": delimiters.repetition,
        "E": delimiters.escape,
        "H": "",  # highlighting on and off
        "N": "",
        ".br": "\n",
        ".ce": "\n",
        ".fi": "",
        ".nf": "",
    }
    if sequence in letters:
        return letters[sequence]
    if sequence[:1] == "X":
        return _hexadecimal(sequence[1:], codec)
    if sequence[:3] in (".sp", ".sk", ".in", ".ti"):
        return _formatting(sequence[:3], sequence[3:])
    return None


def _hexadecimal(digits: str, codec: str) -> str | None:
    try:
        return bytes.fromhex(digits).decode(codec, "replace") if digits else None
    except ValueError:
        return None


def _formatting(command: str, count: str) -> str | None:
    """Line ends for ``.sp``, spaces for the others, up to a limit."""
    number = count.strip(" +") or "1"
    if not (number.isascii() and number.isdigit()):
        return None
    return ("\n" if command == ".sp" else " ") * min(int(number[:4]), _LONGEST_SKIP)
