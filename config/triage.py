"""The settings of triage: by when a study is due, and what makes it urgent."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from config.section import Part as _Part
from config.value_types import Pattern


class Triage(_Part):
    """How studies are ordered."""

    completion_seconds: float = Field(default=30, ge=0)
    """A study is complete when no image of it has arrived or been analysed for so long."""
    critical: tuple[str, ...] = ("pneumothorax",)
    """Findings that make a study critical."""
    urgent: tuple[str, ...] = ("lung_opacity",)
    """Findings that make a study urgent."""
    critical_minutes: float = Field(default=15, gt=0)
    """A critical study is due this long after its first image."""
    urgent_minutes: float = Field(default=60, gt=0)
    """A study that the hospital calls urgent (STAT, or its own priority) is due this long after its first image."""
    urgent_finding_minutes: float = Field(default=420, gt=0)
    """A study that only our own findings make urgent is due this long after its first image. An hour before routine
    ones by default: with many findings, a longer lead would leave others waiting (docs/triage.md has the figures)."""
    routine_minutes: float = Field(default=480, gt=0)
    """Every other study is due this long after its first image."""
    not_analysed_minutes: float = Field(default=120, gt=0)
    """A study that could not be analysed, or whose analysis failed, is due this long after its first image."""
    known_days: int = Field(default=3, ge=0)
    """A finding that the patient's last film within so many days showed too is known: it raises no notification and
    counts one step less. 0: no finding is known."""
    backfill_days: int = Field(default=2, ge=0)
    """A study whose Study Date lies more than so many days before its arrival was sent in later: its findings give it
    no priority and raise no notification. 0: dates are ignored."""
    report_objects: Literal["verified", "any", "ignore"] = "verified"
    """Which Structured Reports that arrive mark their study as reported: complete and verified ones, any, or none.
    Encapsulated documents (PDF, CDA) with the title of a report do too, unless this is ignore."""
    report_titles: tuple[Pattern, ...] = (
        r"\breport\b",
        r"\bbefund",
        r"\bcompte.rendu\b",
        r"\binforme\b",
        r"\breferto\b",
    )
    """Regular expressions (case is ignored) on the title of an encapsulated document that make it a report."""
    stat_descriptions: tuple[Pattern, ...] = (r"\bSTAT\b", r"\bemergen")
    """Regular expressions (case is ignored) on Study Description that make a study STAT."""
