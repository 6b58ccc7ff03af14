"""Formatting of values for people in their language and the site's time zone: names, ages, times, numbers, sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from typing import Any

from markupsafe import Markup

from db.records import FindingRecord
from node.web.languages import ENGLISH, Catalogue, Language, catalogue_of
from node.web.translatable import gettext_noop
from workers.laterality import BOTH, LEFT, RIGHT, place_text

NAME_HIDDEN = gettext_noop("name hidden")
NO_NAME = gettext_noop("no name")
NO_VALUE = "\u2013"
_ISO_DAY = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_TIME = Markup('<time datetime="{}" title="{}">{}</time>')


@dataclass(frozen=True, slots=True)
class Formatting:
    """Turns values into texts of one language; ``hide_names`` shows no patient names."""

    language: Language = ENGLISH
    zone: tzinfo = UTC
    hide_names: bool = False

    @property
    def catalogue(self) -> Catalogue:
        """The texts of the language."""
        return catalogue_of(self.language)

    def gettext(self, message: str, **values: object) -> str:
        """A text of the source with its values, such as ``%(count)s``."""
        return self.catalogue.gettext(message) % values

    def person(self, name: str) -> str:
        """A person name (PS3.5 6.2, VR PN) as ``Family, Given Middle``; the alphabetic component group only."""
        if self.hide_names:
            return self.catalogue.gettext(NAME_HIDDEN)
        parts = [part.strip() for part in name.split("=", 1)[0].split("^")]
        family, given = parts[0], " ".join(part for part in parts[1:3] if part)
        return ", ".join(part for part in (family, given) if part) or self.catalogue.gettext(NO_NAME)

    def age(self, birth_date: str, at: datetime) -> str:
        """Age in years from a DICOM date; in months below two years; empty if the date is invalid."""
        born, today = dicom_date(birth_date), at.astimezone(self.zone).date()
        if born is None or born > today:
            return ""
        months = (today.year - born.year) * 12 + today.month - born.month - (today.day < born.day)
        return (
            self.gettext("%(number)s mo", number=months)
            if months < 24
            else self.gettext("%(number)s y", number=months // 12)
        )

    def day(self, value: str) -> str:
        """A DICOM date as people write it, or unchanged if it is invalid."""
        found = dicom_date(value)
        return found.strftime(self.language.date) if found else value

    def moment(self, value: datetime | None) -> str | Markup:
        """A time to the second in the site's time zone; its UTC appears under the mouse."""
        return self._time(value, f"{self.language.date} %H:%M:%S")

    def clock(self, value: datetime | None) -> str | Markup:
        """Hours and minutes in the site's time zone; date and UTC appear under the mouse."""
        return self._time(value, "%H:%M")

    def plain_clock(self, value: datetime) -> str:
        """Hours and minutes in the site's time zone as plain text."""
        return value.astimezone(self.zone).strftime("%H:%M")

    def short_day(self, value: datetime) -> str:
        """A day of the site's time zone without its year, as plain text."""
        return value.astimezone(self.zone).strftime(self.language.date.replace("%Y", "").strip("-"))

    def since(self, value: datetime, now: datetime) -> Markup:
        """How long ago, or how long until ``value``; the time itself appears under the mouse."""
        utc = value.astimezone(UTC)
        local = utc.astimezone(self.zone).strftime(f"{self.language.date} %H:%M:%S")
        title = f"{local} ({utc:%H:%M:%S} UTC)"
        return _TIME.format(f"{utc:%Y-%m-%dT%H:%M:%SZ}", title, self.span((now - value).total_seconds()))

    def _time(self, value: datetime | None, pattern: str) -> str | Markup:
        if value is None:
            return NO_VALUE
        utc = value.astimezone(UTC)
        title = utc.strftime(f"{self.language.date} %H:%M:%S UTC")
        return _TIME.format(f"{utc:%Y-%m-%dT%H:%M:%SZ}", title, utc.astimezone(self.zone).strftime(pattern))

    def span(self, seconds: float) -> str:
        """A duration in its two largest units."""
        seconds = abs(seconds)
        if seconds < 60:
            return f"{int(seconds)} s"
        minutes = int(seconds // 60)
        if minutes < 60:
            return f"{minutes} min"
        hours = minutes // 60
        if hours < 48:
            return f"{hours} h {minutes % 60:02d} min"
        return self.gettext("%(days)s d %(hours)s h", days=hours // 24, hours=hours % 24)

    def seconds(self, value: float) -> str:
        """A short duration: in milliseconds below a second."""
        return f"{value * 1000:.0f} ms" if value < 1 else f"{self.decimal(value, 1)} s"

    def size(self, value: float) -> str:
        """A number of bytes in a suitable unit."""
        for unit in ("B", "kB", "MB", "GB"):
            if value < 1000:
                return f"{self.decimal(value, 0 if unit == 'B' or value >= 10 else 1)} {unit}"
            value /= 1000
        return f"{self.decimal(value, 1)} TB"

    def stored(self, value: str) -> str:
        """A text of the database; days in what is translated are written as the language does."""
        text = self.catalogue.stored(value)
        return text if text == value else _ISO_DAY.sub(lambda found: self.day("".join(found.groups())), text)

    def words(self, value: str) -> str:
        """``lung_opacity`` as ``lung opacity``."""
        return self.catalogue.stored(spaced_words(value))

    def label(self, value: str) -> str:
        """``lung_opacity`` as ``Lung opacity``."""
        spaced = self.words(value)
        return spaced[:1].upper() + spaced[1:]

    def place_words(self, finding: FindingRecord) -> str:
        """Side and zones: ``right lower zone``; empty where neither may be told."""
        words = place_text(finding.side, filter(None, finding.zones.split(",")))
        return self.catalogue.stored(words) if words else ""

    def place(self, finding: FindingRecord) -> str:
        """Side, zones and share of the lung: ``right lower zone, 12 % of the lung``; empty where nothing is known."""
        words = [self.place_words(finding)]
        if finding.zones and finding.side not in (LEFT, RIGHT, BOTH):
            words.append(self.gettext("side not told"))
        if finding.lung_share:
            words.append(self.gettext("%(share)s of the lung", share=self.percent(finding.lung_share)))
        return ", ".join(filter(None, words))

    def plain(self, value: str | None) -> str:
        """A state, code or stored sentence: ``not_eligible`` as ``not eligible``."""
        words = plain(value)
        text = self.stored(words)
        return text if text != words else ", ".join(map(self.stored, words.split(", ")))

    def capital(self, value: str) -> str:
        """A stored text that begins with a capital letter."""
        text = self.stored(value)
        return text[:1].upper() + text[1:]

    def sentence(self, value: str) -> str:
        """A stored text as a sentence: it begins with a capital letter and ends with a full stop."""
        text = self.capital(value)
        return text if not text or text.endswith((".", "?", "!")) else f"{text}."

    def percent(self, value: float | None) -> str:
        """A probability in percent; never 0 or 100 %, which would claim certainty."""
        if value is None:
            return NO_VALUE
        near_an_end = value < 0.1 or value > 0.99
        shown = min(99.9, max(0.1, value * 100)) if near_an_end else value * 100
        return f"{self.decimal(shown, 1 if near_an_end else 0)} %"

    def decimal(self, value: float, digits: int) -> str:
        """A number with so many digits behind the decimal separator."""
        return f"{value:.{digits}f}".replace(".", self.language.decimal)

    def figure(self, value: float) -> str:
        """A measured value with three significant digits."""
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}".replace(".", self.language.decimal)

    def area(self, mm2: float | None, fraction: float | None) -> str:
        """Area in square centimetres if the spacing is known, else as a share of the image."""
        if mm2 is not None:
            return f"{self.decimal(mm2 / 100, 1)} cm²"
        if fraction is None:
            return NO_VALUE
        return self.gettext("%(share)s %% of the image", share=self.decimal(fraction * 100, 1))

    def filters(self) -> Mapping[str, Any]:
        """The filters of the templates."""
        return {
            "person": self.person,
            "plain": self.plain,
            "capital": self.capital,
            "sentence": self.sentence,
            "stored": self.stored,
            "day": self.day,
            "moment": self.moment,
            "clock": self.clock,
            "span": self.span,
            "seconds": self.seconds,
            "bytes": self.size,
            "words": self.words,
            "label": self.label,
            "place": self.place,
            "place_words": self.place_words,
            "percent": self.percent,
            "decimal": self.decimal,
            "figure": self.figure,
        }


def dicom_date(value: str) -> date | None:
    """A date (VR DA); None if it is invalid."""
    if not re.fullmatch(r"\d{8}", value):
        return None
    try:
        return date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return None


def form_date(value: str) -> str:
    """A DICOM date as a date field of a form takes it (HTML: ``YYYY-MM-DD``); empty if it is invalid."""
    found = dicom_date(value)
    return found.isoformat() if found else ""


def spaced_words(value: str) -> str:
    """A label or state as words: ``lung_opacity`` as ``lung opacity``."""
    return value.replace("_", " ").replace("-", " ").strip()


def plain(value: str | None) -> str:
    """A state or code as words: ``not_eligible`` as ``not eligible``; a sentence stays as it is."""
    value = value or ""
    return re.sub("[_-]", " ", value) if re.fullmatch(r"[a-z]+([_-][a-z]+)+", value) else value


def cell(text: str) -> str:
    """A cell of a CSV file: what a spreadsheet would take for a formula begins with an apostrophe. Headers are not
    trusted.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def progress(received: datetime, due: datetime, now: datetime) -> int:
    """The share of the time until ``due`` that has passed, in percent, at most 100."""
    whole = (due - received).total_seconds()
    return max(0, min(100, round(100 * (now - received).total_seconds() / whole))) if whole > 0 else 100
