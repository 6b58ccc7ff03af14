"""A patient's age at the study, from a header that may say it badly or not at all."""

from __future__ import annotations

import re
from datetime import date

from models.radiograph.tolerant_header import TolerantHeader

_AGE = re.compile(r"(\d{1,3})([DWMY]?)", re.IGNORECASE)
_YEARS_PER = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}
_OLDEST = 130.0


def age_at_study(header: TolerantHeader) -> float | None:
    """The age in years that a header gives, or None where it gives no plausible one."""
    dates = (header.text(name) for name in ("StudyDate", "AcquisitionDate", "SeriesDate"))
    return age_in_years(header.text("PatientAge"), header.text("PatientBirthDate"), next(filter(None, dates), ""))


def age_in_years(age: str, birth_date: str, study_date: str) -> float | None:
    """Compute a patient's age at the study in years, or None if there is no plausible value.

    A value of VR AS (PS3.5 6.2: ``018M``, ``055Y``) comes first, then the two dates (VR DA), and last a bare number:
    it is not a valid AS, but common, and it means years in all files seen so far.
    """
    stated = _AGE.fullmatch(age.strip())
    if stated and stated[2]:
        return _plausible(int(stated[1]) * _YEARS_PER[stated[2].upper()])
    born, studied = _date(birth_date), _date(study_date)
    if born and studied and (between := _plausible(_years_between(born, studied))) is not None:
        return between
    return _plausible(float(stated[1])) if stated else None


def _plausible(years: float) -> float | None:
    return years if 0 <= years <= _OLDEST else None


def _date(text: str) -> date | None:
    """Read a value of VR DA; the dots of ACR-NEMA are accepted too."""
    digits = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", text.strip())
    try:
        return date(int(digits[1]), int(digits[2]), int(digits[3])) if digits else None
    except ValueError:
        return None


def _years_between(born: date, then: date) -> float:
    """Whole calendar years, exact on the birthday, plus the fraction of the current year."""
    had_birthday = (then.month, then.day) >= (born.month, born.day)
    whole = then.year - born.year - (not had_birthday)
    days_since = (then.month - born.month) * 30.4 + then.day - born.day + (0 if had_birthday else 365)
    return whole + min(max(days_since, 0) / 366, 0.999)
