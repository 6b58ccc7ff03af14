"""The characters of an HL7 v2 message: its delimiters, its escape sequences (2.7) and its character set (MSH-18).

Nothing here logs, and no error quotes a message: what is in them is about patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CODECS: Mapping[str, str] = {
    "ASCII": "ascii",
    "8859/1": "iso8859_1",
    "8859/2": "iso8859_2",
    "8859/3": "iso8859_3",
    "8859/4": "iso8859_4",
    "8859/5": "iso8859_5",
    "8859/6": "iso8859_6",
    "8859/7": "iso8859_7",
    "8859/8": "iso8859_8",
    "8859/9": "iso8859_9",
    "8859/15": "iso8859_15",
    "UNICODE UTF-8": "utf_8",
    "UTF-8": "utf_8",
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp_2",
    "ISO IR159": "iso2022_jp_2",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
}
"""HL7 table 0211 and the codec that reads each; UTF-8 is not in it, and is what many systems write."""

NULL = '""'
"""A field with this value says: delete what you have."""

_LONGEST_SKIP = 100


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The characters that MSH-1 and MSH-2 choose."""

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
    """Write ``text`` so that it can stand in a field; :func:`unescape` gives it back as it is.

    Delimiters become letters, control characters their hexadecimal code (both in every character set of table 0211).
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
    """Read what a field holds. A sequence that means nothing here, or has no end, stays as it is."""
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
    """``text`` without white space at its ends. A NUL, which no database keeps, counts as white space.

    Merely left out, one inside a value would make one patient's ID of another's.
    """
    return text.replace("\0", " ").strip()


def _meaning(sequence: str, delimiters: Delimiters, codec: str) -> str | None:
    """What one escape sequence stands for, None where it stands for nothing that is known here."""
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
    """Line ends for ``.sp``, spaces for the others; no more than anybody would read."""
    number = count.strip(" +") or "1"
    if not (number.isascii() and number.isdigit()):
        return None
    return ("\n" if command == ".sp" else " ") * min(int(number[:4]), _LONGEST_SKIP)
