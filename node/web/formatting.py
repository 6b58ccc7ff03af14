"""Formatting of values for people: names, ages, times, and sizes."""

from __future__ import annotations

import re
from datetime import date, datetime

from db.records import FindingRecord, WorklistRow
from workers.laterality import BOTH, LEFT, RIGHT, place_text

NAME_HIDDEN = "name hidden"
NO_VALUE = "\u2013"


def person(name: str, hidden: bool = False) -> str:
    """A person name (PS3.5 6.2, VR PN) as ``Family, Given Middle``; the alphabetic component group only."""
    if hidden:
        return NAME_HIDDEN
    parts = [part.strip() for part in name.split("=", 1)[0].split("^")]
    family, given = parts[0], " ".join(part for part in parts[1:3] if part)
    return ", ".join(part for part in (family, given) if part) or "no name"


def age(birth_date: str, at: datetime) -> str:
    """Age in years from a DICOM date; in months below two years; empty if the date is invalid."""
    born = dicom_date(birth_date)
    if born is None or born > at.date():
        return ""
    months = (at.year - born.year) * 12 + at.month - born.month - (at.day < born.day)
    return f"{months} mo" if months < 24 else f"{months // 12} y"


def dicom_date(value: str) -> date | None:
    """A date (VR DA); None if it is invalid."""
    if not re.fullmatch(r"\d{8}", value):
        return None
    try:
        return date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return None


def day(value: str) -> str:
    """A DICOM date as ISO date, or unchanged if it is invalid."""
    found = dicom_date(value)
    return found.isoformat() if found else value


def moment(value: datetime | None) -> str:
    """A time to the second, in UTC."""
    return value.strftime("%Y-%m-%d %H:%M:%S") if value else NO_VALUE


def clock(value: datetime | None) -> str:
    """Hours and minutes, in UTC."""
    return value.strftime("%H:%M") if value else NO_VALUE


def span(seconds: float) -> str:
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
    return f"{hours // 24} d {hours % 24} h"


def since(value: datetime, now: datetime) -> str:
    """Time from ``value`` to ``now``."""
    return span((now - value).total_seconds())


def seconds(value: float) -> str:
    """A short duration: in milliseconds below a second."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def size(value: float) -> str:
    """A number of bytes in a suitable unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def label(value: str) -> str:
    """``lung_opacity`` as ``Lung opacity``."""
    spaced = value.replace("_", " ").replace("-", " ").strip()
    return spaced[:1].upper() + spaced[1:]


def place_words(finding: FindingRecord) -> str:
    """Side and zones: ``right lower zone``; empty where neither may be told."""
    return place_text(finding.side, filter(None, finding.zones.split(",")))


def place(finding: FindingRecord) -> str:
    """Side, zones and share of the lung: ``right lower zone, 12 % of the lung``; empty where nothing is known."""
    words = [place_words(finding)]
    if finding.zones and finding.side not in (LEFT, RIGHT, BOTH):
        words.append("side not told")
    if finding.lung_share:
        words.append(f"{percent(finding.lung_share)} of the lung")
    return ", ".join(filter(None, words))


def plain(value: str | None) -> str:
    """A state or code as words: ``not_eligible`` as ``not eligible``; a sentence stays as it is."""
    value = value or ""
    return re.sub("[_-]", " ", value) if re.fullmatch(r"[a-z]+([_-][a-z]+)+", value) else value


def percent(value: float | None) -> str:
    """A probability in percent; never 0 or 100 %, which would claim certainty."""
    if value is None:
        return NO_VALUE
    return f"{min(99.9, max(0.1, value * 100)):.1f} %" if value < 0.1 or value > 0.99 else f"{value * 100:.0f} %"


def cell(text: str) -> str:
    """A cell of a CSV file: what a spreadsheet would take for a formula begins with an apostrophe. Headers are not
    trusted.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def figure(value: float) -> str:
    """A measured value with three significant digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def area(mm2: float | None, fraction: float | None) -> str:
    """Area in square centimetres if the spacing is known, else as a share of the image."""
    if mm2 is not None:
        return f"{mm2 / 100:.1f} cm²"
    return f"{fraction * 100:.1f} % of the image" if fraction is not None else NO_VALUE


def progress(received: datetime, due: datetime, now: datetime) -> int:
    """The share of the time until ``due`` that has passed, in percent, at most 100."""
    whole = (due - received).total_seconds()
    return max(0, min(100, round(100 * (now - received).total_seconds() / whole))) if whole > 0 else 100


def only_shadow(row: WorklistRow) -> bool:
    """Whether only models in shadow have analysed a study: then the absence of findings has no meaning."""
    return bool(row.findings) and all(finding.shadow for finding in row.findings)
