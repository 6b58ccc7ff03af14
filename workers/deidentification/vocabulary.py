"""Words that a cleaned description may keep, and words of the patient that no exported text may contain.

A name cannot be told from other words with certainty. So a description from outside keeps only known words for body
parts, views and procedures (*clean*), and in our own sentences every word is masked that stands in the header of the
image for the patient or the hospital (*masked*).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from pydicom.dataelem import DataElement
from pydicom.valuerep import PersonName

from models.radiograph.body_parts import body_part_in
from models.radiograph.views import views_in

REMOVED = "[removed]"

# English, German, French, Spanish, Italian, Portuguese, Dutch: what was done, to what, and how. No word of it is a
# common name. What names body parts and views is in models.radiograph.
_KNOWN = """
    x ray rays
    xray xrays rx cr dx dr rg radiograph radiographs radiography radiographic radiograf radiografie radiographie
    radiografia radiologie rontgen röntgen roentgen aufnahme übersicht uebersicht film plain projection view views
    images image bild bilder ebene ebenen standard routine control kontrolle follow followup verlauf
    pre post preop postop preoperative postoperative portable mobile bedside bett bettaufnahme liegend stehend sitzend
    erect upright supine prone standing sitting semierect debout couche assis lit pie acostado
    inspiration expiration inspiratory expiratory insp exp left right links rechts gauche droite droit
    izquierda izquierdo derecha derecho sinistra destra esquerda direita linker rechter bilateral both beide
    beidseits l r li re bds low high dose digital computed screening emergency stat notaufnahme urgence urgencias
    icu intensiv intensive care station ambulant outpatient inpatient trauma polytrauma
    pneumothorax pneumonia opacity nodule effusion pleura pleural research use ai
    one two three single double both with without mit ohne avec sans con sin and und et y or of the a an in im am for
    is are was were be by as at on to from no not nothing none any all above below than less more its it this that
    upper middle lower zone zones lung lungs image analysed finding findings threshold probability summary report
    segmentation outlines study area antero postero anterior posterior unilateral
    medical device only diagnosis number referenced segment position company corporation systems healthcare
"""
_WORDS = frozenset(_KNOWN.split())
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae"})
_TOKEN = re.compile(r"[^\W_]+")
_MOMENT = re.compile(r"\b(?:19|20)\d\d([-.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?:\d{2,6})?\b")
_UID = re.compile(r"\b[0-2](?:\.\d+){4,}\b")


def cleaned(text: str, forbidden: Collection[str]) -> str:
    """The known words of ``text``, in their order and parted by blanks; empty if there are none."""
    return " ".join(word for word in _TOKEN.findall(text) if _is_known(word) and _folded(word) not in forbidden)


def masked(text: str, forbidden: Collection[str]) -> str:
    """``text`` with ``[removed]`` in the place of forbidden words, dates and UIDs."""
    without = _MOMENT.sub(REMOVED, _UID.sub(REMOVED, text))
    return _TOKEN.sub(lambda found: REMOVED if _folded(found[0]) in forbidden else found[0], without)


def is_free_of(text: str, forbidden: Collection[str]) -> bool:
    """Whether no word of ``text`` is forbidden."""
    return all(_folded(word) not in forbidden for word in _TOKEN.findall(text))


def forbidden_words(elements: Iterable[DataElement]) -> Iterator[str]:
    """The words that these attributes say and that no text of an export may repeat.

    Those of a person's name from two letters on, whatever they mean; others from three letters (digits: four) on,
    unless a description may keep them.
    """
    for element in elements:
        for value in element.value if element.VM > 1 else [element.value]:
            for word in _TOKEN.findall(_text(value)):
                folded = _folded(word)
                if element.VR == "PN":
                    if len(folded) > 1:
                        yield from _spellings(folded)
                elif len(folded) >= (4 if folded.isdigit() else 3) and not _is_known(word):
                    yield folded


def _text(value: object) -> str:
    if isinstance(value, PersonName):
        # Also the ideographic and the phonetic spelling.
        return str(value)
    return value if isinstance(value, str) else ""


@lru_cache(maxsize=4096)
def _is_known(word: str) -> bool:
    if _folded(word) in _WORDS:
        return True
    if len(word) == 1 or word.isdigit():
        return False
    part = body_part_in(word)
    return part.chest or bool(part.other) or bool(views_in(word))


def _spellings(folded: str) -> set[str]:
    """A word of a name as it is written with and without accents: müller, muller, mueller."""
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(letter))
    return {folded, bare, folded.translate(_UMLAUTS)}


def _folded(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold()
