"""Words of a header made comparable: capitals, no accents, no punctuation, whichever script they are written in."""

from __future__ import annotations

import re
import unicodedata

# ``P.A.``, ``p/a`` and ``A-P`` are one word each; ``AP/PA`` stays two.
_SPELT = re.compile(r"\b([AP])\s?[./-]\s?([AP])\b")
_FIRST_OF_EAST_ASIA = "\u2e80"
_NOT_A_WORD = re.compile(r"[\W_]+")


def plain_words(text: str) -> str:
    """``text`` in capitals without accents, its words parted and framed by single blanks; empty where it has none.

    A Code String writes ``CHEST_PORTABLE`` for what a description calls "chest, portable" (PS3.5 6.2): both read alike.
    """
    decomposed = unicodedata.normalize("NFKD", text).upper()
    bare = unicodedata.normalize("NFC", "".join(each for each in decomposed if not unicodedata.combining(each)))
    words = _NOT_A_WORD.sub(" ", _SPELT.sub(r"\1\2", bare)).strip()
    return f" {words} " if words else ""


def one_of(table: str) -> re.Pattern[str]:
    """A pattern that finds each of the words of ``table`` (parted by white space) as a whole word of a plain text.

    ``+`` joins the words of a phrase, ``*`` stands for the rest of a word. Chinese, Japanese and Korean put no blanks
    between words, so theirs are found anywhere.
    """
    framed: list[str] = []
    anywhere: list[str] = []
    for word in table.split():
        pattern = re.escape(word).replace(r"\+", " ").replace(r"\*", r"\w*")
        (anywhere if word[0] >= _FIRST_OF_EAST_ASIA else framed).append(pattern)
    return re.compile("|".join([f"(?<= )(?:{'|'.join(framed)})(?= )", *anywhere]))
