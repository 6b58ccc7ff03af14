"""Scenario of a reading room: arrivals, readers, reading times, and the performance of the algorithm.

A scenario is a TOML file with the keys below; ``literature.toml`` beside this module is the default. Hours are in local
time and the first one begins at midnight; a week begins on Monday.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from config.file import from_toml, read_toml
from config.section import Part as _Part

DEFAULT = Path(__file__).with_name("literature.toml")
HOURS = 24
MINUTES_PER_DAY = 24 * 60.0
_SATURDAY = 5


class ScenarioError(ValueError):
    """The scenario cannot be used; the message names each key with its error."""


def _a_day(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) != HOURS:
        raise ValueError(f"{HOURS} numbers are needed, one for each hour from midnight, not {len(values)}")
    if min(values) < 0:
        raise ValueError("no hour may have a negative number")
    return values


def _shares(values: tuple[float, ...]) -> tuple[float, ...]:
    if min(_a_day(values)) <= 0 or max(values) > 1:
        raise ValueError("a share must be above 0 and at most 1")
    return values


Hourly = Annotated[tuple[float, ...], AfterValidator(_a_day)]
Shares = Annotated[tuple[float, ...], AfterValidator(_shares)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Week(_Part):
    """A number for each hour of a working day, and one for each hour of a Saturday or Sunday."""

    weekday: Hourly
    """Monday to Friday."""
    weekend: Hourly
    """Saturday and Sunday."""

    def at(self, minute: float) -> float:
        """The number for the time ``minute`` minutes after Monday, 0:00."""
        day, of_day = divmod(minute, MINUTES_PER_DAY)
        hours = self.weekend if int(day) % 7 >= _SATURDAY else self.weekday
        return hours[int(of_day // 60)]


class ShareWeek(Week):
    """As :class:`Week`, for shares."""

    weekday: Shares
    """Monday to Friday."""
    weekend: Shares
    """Saturday and Sunday."""


class Reading(_Part):
    """Time to read and report a study: log-normal, in minutes."""

    mean_minutes: float = Field(gt=0)
    """Mean."""
    deviation_minutes: float = Field(ge=0)
    """Standard deviation."""


class SimulatedFinding(_Part):
    """A finding: its prevalence, and the performance of the algorithm."""

    label: str = Field(min_length=1)
    """Label, as in triage.critical and triage.urgent."""
    prevalence: Fraction
    """Share of studies with the finding."""
    sensitivity: Fraction
    """Share of the studies with the finding in which the algorithm detects it."""
    specificity: Fraction
    """Share of the studies without the finding in which the algorithm does not detect it."""


class Scenario(_Part):
    """A reading room."""

    title: str = Field(min_length=1)
    """Title in reports."""
    days: int = Field(ge=1)
    """Days that are counted in each replication."""
    warm_up_days: int = Field(ge=0)
    """Days at the beginning that fill the worklist and are not counted."""
    analysis_minutes: float = Field(ge=0)
    """Time from the arrival of a study until its findings are known."""
    not_analysed: Fraction
    """Share of studies that the algorithm cannot analyse."""
    maximum_wait_minutes: float = Field(gt=0)
    """Rule of the policy "priority with a maximum wait": after this time a study gets the highest priority."""
    arrivals: Week
    """Studies per hour."""
    readers: Week
    """Readers on duty; fractions are rounded down."""
    attention: ShareWeek
    """Share of a reader's time for this worklist; the rest is other work."""
    reading: Reading
    """Time for one study."""
    findings: tuple[SimulatedFinding, ...]
    """Findings; they are independent of each other."""

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        labels = [finding.label for finding in self.findings]
        if len(set(labels)) != len(labels):
            raise ValueError("findings: two of them have the same label")
        if max(*self.readers.weekday, *self.readers.weekend) < 1:
            raise ValueError("readers: at least one reader is needed at some time of the week")
        return self

    @property
    def load(self) -> float:
        """Work that arrives in a week as a share of the readers' capacity; at 1 the list grows without end."""
        hours = [(day, hour) for day in range(7) for hour in range(HOURS)]
        minutes = [(day * HOURS + hour) * 60.0 for day, hour in hours]
        work = sum(self.arrivals.at(minute) for minute in minutes) * self.reading.mean_minutes
        time = sum(int(self.readers.at(minute)) * self.attention.at(minute) * 60 for minute in minutes)
        return work / time


def read_scenario(path: Path) -> Scenario:
    """Read the scenario in the TOML file at ``path``.

    Raises:
        ScenarioError: The file is not TOML, a key is unknown or missing, or a value is out of range.
    """
    return from_toml(Scenario, read_toml(path, ScenarioError), path, ScenarioError)
