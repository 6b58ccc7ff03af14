"""The languages of the page: which ones there are, which one a request gets, and their catalogues (GNU gettext).

Texts are English in the source. ``make translations`` extracts them into ``node/web/locale`` and compiles what
translators wrote there. Texts of other rooms, which the database keeps in English, are translated when a page shows
them (:mod:`node.web.stored_texts`).
"""

from __future__ import annotations

import gettext
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from node.web.stored_texts.patterns import PATTERNS

DOMAIN = "pleura"
FOLDER = Path(__file__).parent / "locale"
_LONGEST = 600
_TAKES = {"number": "[0-9.]+", "word": r"[^\s;]+", "all": ".+"}
_PLACE = re.compile(r"\{(\w+)\}")
_WEIGHTED = re.compile(r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?")


@dataclass(frozen=True, slots=True)
class Language:
    """A language of the page: tag (BCP 47), its own name, decimal separator, and dates as ``strftime`` takes them."""

    tag: str
    name: str
    decimal: str
    date: str


ENGLISH = Language("en", "English", ".", "%Y-%m-%d")
LANGUAGES = {one.tag: one for one in (ENGLISH, Language("de", "Deutsch", ",", "%d.%m.%Y"))}
"""English writes dates as ISO 8601 does: 3/1 is March in one country and January in another."""


def language_of(chosen: str, accepted: str, default: str) -> Language:
    """What the user has chosen, else what the browser asks for (Accept-Language), else the site's ``default``."""
    wanted = [chosen, *preferred(accepted), default]
    return next((LANGUAGES[tag] for tag in wanted if tag in LANGUAGES), ENGLISH)


def preferred(accepted: str) -> list[str]:
    """Primary language tags of an Accept-Language header (RFC 9110 12.5.4), the most wanted first."""
    found: list[tuple[float, str]] = []
    for part in accepted[:_LONGEST].split(","):
        weighted = _WEIGHTED.fullmatch(part)
        if weighted and (quality := float(weighted[2] or 1)) > 0:
            found.append((-quality, weighted[1].lower().split("-")[0]))
    return [tag for _, tag in sorted(found, key=lambda each: each[0])]


class Catalogue:
    """The texts of the page in one language; a text without a translation stays English."""

    def __init__(self, translations: gettext.NullTranslations) -> None:
        self._translations = translations
        self.stored = lru_cache(maxsize=4096)(self._stored)

    def gettext(self, message: str) -> str:
        """Translate a text of the source."""
        return self._translations.gettext(message) if message else ""  # the empty text is the head of the catalogue

    def ngettext(self, singular: str, plural: str, number: int) -> str:
        """Translate a text of the source with a number."""
        return self._translations.ngettext(singular, plural, number)

    def _stored(self, text: str) -> str:
        """Translate a text of the database: as a whole, by a pattern, or part by part."""
        if not text or len(text) > _LONGEST:
            return text
        parts, rest = [], text
        while (known := self._known(rest)) is None and "; " in rest:
            first, _, rest = rest.partition("; ")
            parts.append(self._known(first) or first)
        return "; ".join([*parts, known or self._list(rest)])

    def _list(self, text: str) -> str:
        """Translate what is listed with commas if each of it is known: half a sentence would be no help."""
        known = [self._known(each) for each in text.split(", ")]
        return ", ".join(filter(None, known)) if all(known) else text

    def _known(self, text: str) -> str | None:
        """The translation of a text that is listed, with or without its full stop; None if it is not."""
        for ended in (text, f"{text}."):  # triage takes the full stop from a sentence that it quotes
            if (known := self._listed(ended)) is not None:
                return known if ended is text else known.removesuffix(".")
        return None

    def _listed(self, text: str) -> str | None:
        known = self.gettext(text)
        if known != text:
            return known
        for source, pattern in _patterns():
            if found := pattern.fullmatch(text):
                values = {name: self.stored(value) for name, value in found.groupdict().items()}
                return self.gettext(source).format(**values)
        return None


@cache
def catalogue_of(language: Language) -> Catalogue:
    """The catalogue of a language. English needs none."""
    if language is ENGLISH:
        return Catalogue(gettext.NullTranslations())
    return Catalogue(gettext.translation(DOMAIN, FOLDER, [language.tag]))


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Each pattern as a regular expression."""
    return tuple((source, re.compile(_expression(source))) for source in PATTERNS)


def _expression(source: str) -> str:
    """Braces become groups: ``number…`` takes digits, ``word…`` no blank, ``all_…`` all, another name no semicolon."""
    literals, names = _PLACE.split(source)[::2], _PLACE.findall(source)
    groups = [f"(?P<{name}>{_TAKES.get(name.partition('_')[0], '[^;]+?')})" for name in names]
    return "".join(part for pair in zip(map(re.escape, literals), [*groups, ""], strict=True) for part in pair)
