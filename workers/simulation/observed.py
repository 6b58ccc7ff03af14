"""A scenario from the observations of a node; values that it cannot observe are those of a base scenario.

Observed are arrivals by hour, the share not analysed, the share of positives for each finding, the number of people who
report in each hour, and the time between two reports of one person. Not observed are sensitivity and specificity (the
prevalence is computed with those of the base scenario) and the share of readers' time for this worklist.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, timedelta, tzinfo
from itertools import pairwise
from statistics import fmean, pstdev

from db.queries.turnaround import Observation
from workers.simulation.scenario import HOURS, Reading, Scenario, ScenarioError, SimulatedFinding, Week

_FEWEST_STUDIES = 200
_FEWEST_REPORTS = 100
# A longer time between two reports includes other work.
_LONGEST_READING = timedelta(minutes=15)
# Reports from other systems do not name the reader.
_NOT_READERS = ("dicom:", "hl7")
_SATURDAY = 5

_Slot = tuple[bool, int]


def scenario_from(seen: Observation, base: Scenario, zone: tzinfo) -> Scenario:
    """Replace the observed values in ``base``. Days and hours are those of ``zone``.

    Raises:
        ScenarioError: There are too few studies.
    """
    if len(seen.arrivals) < _FEWEST_STUDIES:
        raise ScenarioError(
            f"the database has {len(seen.arrivals)} complete studies of this time; "
            f"at least {_FEWEST_STUDIES} are needed (--observed-days looks further back)"
        )
    local = _local(seen, zone)
    days = _days(local.since, local.until)
    changes: dict[str, object] = {
        "title": f"this node, {local.since:%Y-%m-%d} to {local.until:%Y-%m-%d}",
        "not_analysed": seen.not_analysed / len(seen.arrivals),
        "arrivals": _per_hour(Counter(map(_slot, local.arrivals)), days),
        "findings": tuple(_finding(one, seen) for one in base.findings),
    }
    if len(reports := _by_readers(seen)) >= _FEWEST_REPORTS:
        changes["readers"] = _readers(_by_readers(local), days)
        changes["reading"] = _reading(reports, base.reading)
    return Scenario.model_validate(base.model_dump() | changes)


def _local(seen: Observation, zone: tzinfo) -> Observation:
    """The same moments by the clocks of ``zone``. Times between two of them are to be computed in UTC."""
    return replace(
        seen,
        since=seen.since.astimezone(zone),
        until=seen.until.astimezone(zone),
        arrivals=tuple(at.astimezone(zone) for at in seen.arrivals),
        reports=tuple((reader, at.astimezone(zone)) for reader, at in seen.reports),
    )


def _by_readers(seen: Observation) -> list[tuple[str, datetime]]:
    return [(reader, at) for reader, at in seen.reports if not reader.startswith(_NOT_READERS)]


def _slot(at: datetime) -> _Slot:
    return at.weekday() >= _SATURDAY, at.hour


def _days(since: datetime, until: datetime) -> dict[bool, int]:
    """Numbers of working days and weekend days in this time."""
    first, last = since.date(), until.date()
    days = [first + timedelta(days=number) for number in range(max((last - first).days, 1))]
    weekend = sum(day.weekday() >= _SATURDAY for day in days)
    return {True: max(weekend, 1), False: max(len(days) - weekend, 1)}


def _per_hour(counts: Counter[_Slot], days: dict[bool, int]) -> Week:
    def _hours(weekend: bool) -> tuple[float, ...]:
        return tuple(counts[weekend, hour] / days[weekend] for hour in range(HOURS))

    return Week(weekday=_hours(False), weekend=_hours(True))


def _finding(one: SimulatedFinding, seen: Observation) -> SimulatedFinding:
    """Compute the prevalence from the share of positives (Rogan and Gladen)."""
    share = seen.positives.get(one.label, 0) / max(seen.analysed, 1)
    skill = one.sensitivity + one.specificity - 1
    prevalence = (share + one.specificity - 1) / skill if skill > 0 else share
    return one.model_copy(update={"prevalence": min(max(prevalence, 0.0), 1.0)})


def _readers(reports: Iterable[tuple[str, datetime]], days: dict[bool, int]) -> Week:
    """Mean number of people who report in each hour, rounded; at least one if anybody ever does."""
    present: set[tuple[str, date, _Slot]] = {(reader, at.date(), _slot(at)) for reader, at in reports}
    counts = Counter(slot for _, _, slot in present)

    def _hours(weekend: bool) -> tuple[float, ...]:
        means = (counts[weekend, hour] / days[weekend] for hour in range(HOURS))
        return tuple(float(max(round(mean), 1)) if mean else 0.0 for mean in means)

    return Week(weekday=_hours(False), weekend=_hours(True))


def _reading(reports: Iterable[tuple[str, datetime]], base: Reading) -> Reading:
    """Reading time from the time between two reports of one person, if it is short enough."""
    times: defaultdict[str, list[datetime]] = defaultdict(list)
    for reader, at in reports:
        times[reader].append(at)
    gaps = [later - earlier for ours in times.values() for earlier, later in pairwise(ours)]
    minutes = [gap / timedelta(minutes=1) for gap in gaps if timedelta(0) < gap <= _LONGEST_READING]
    if len(minutes) < _FEWEST_REPORTS // 2:
        return base
    return Reading(mean_minutes=fmean(minutes), deviation_minutes=pstdev(minutes))
