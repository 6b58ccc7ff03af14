"""The weekly drift report on models, images and readers, for the system page, the API and ``pleura drift``.

A week is an ISO week (Monday 0:00 UTC). The reference of a model version is its first 28 days at this node. The
reference of the images is the first 28 days of the oldest version still in use. Weeks within a reference are not
compared with it. Figures are shares and quantiles with 95 % intervals; none is a statement about a patient.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from db.queries.monitoring import Discrepancy, ModelMonitoring, Pair, PairCount, ScoreCount, VerdictCount
from db.user_tables import Verdict
from node.monitoring.drift_statistics import Agreement, Shift, correlation, quantile, shift, shift_of_mix, wilson

REFERENCE = timedelta(days=28)
_KEEP_PAST, _KEEP_CURRENT = timedelta(hours=6), timedelta(minutes=1)
NUMBERS = ("brightness", "contrast", "dark", "bright", "rows", "columns", "spacing")
CATEGORIES = ("view", "manufacturer", "device", "photometric")
_MISSING = "not given"
_MOST_PAIRS = 600
_DIFFERING = 25


@dataclass(frozen=True, slots=True)
class Week:
    """One ISO week: its label (``2026-W09``), its Monday, and the Monday after it."""

    label: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class ScoreWeek:
    """Scores of a model for a label in a week.

    ``analysed`` counts scores, ``not_assessed`` images without a score. ``psi`` compares the week with the reference;
    it is None if the week is within the reference or has too few scores. ``noise`` is the PSI that chance reaches.
    ``status`` is reference, too few, stable, moving or drifted. ``histogram`` counts scores by tenths.
    """

    model: str
    version: str
    label: str
    week: str
    analysed: int
    not_assessed: int
    present: int
    share: float
    share_low: float
    share_high: float
    median: float | None
    p90: float | None
    psi: float | None
    noise: float | None
    status: str
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MeasureWeek:
    """One measure of a week's images: median and quartiles of a number, or shares of the most common categories."""

    name: str
    median: float | None
    low: float | None
    high: float | None
    mix: dict[str, float]
    psi: float | None
    noise: float | None
    status: str


@dataclass(frozen=True, slots=True)
class ImageWeek:
    """The images of a week: number of finished jobs, number not analysed with reasons, and measures."""

    week: str
    jobs: int
    not_analysed: int
    not_analysed_share: float
    not_analysed_low: float
    not_analysed_high: float
    failed: int
    reasons: dict[str, int]
    measures: tuple[MeasureWeek, ...]


@dataclass(frozen=True, slots=True)
class VerdictWeek:
    """Readers' verdicts on a model's findings in a week; ``agreed`` is the share accepted, with its interval."""

    model: str
    version: str
    label: str
    week: str
    accepted: int
    modified: int
    rejected: int
    agreed: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of an active model with a model in shadow on the same images, for one label."""

    active: str
    shadow: str
    label: str
    both: int
    only_active: int
    only_shadow: int
    neither: int
    agreed: float
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    correlation: float | None
    pairs: tuple[Pair, ...]
    differing: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The whole report; the latest week comes first."""

    weeks: tuple[str, ...]
    scores: tuple[ScoreWeek, ...]
    images: tuple[ImageWeek, ...]
    verdicts: tuple[VerdictWeek, ...]
    discrepancies: tuple[Discrepancy, ...]
    comparisons: tuple[Comparison, ...]


def weeks_before(now: datetime, count: int) -> tuple[Week, ...]:
    """The week of ``now`` and those before it, the latest first."""
    monday = (now.astimezone(UTC) - timedelta(days=now.astimezone(UTC).weekday())).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    return tuple(week_of(monday - timedelta(weeks=back)) for back in range(count))


def week_of(monday: datetime) -> Week:
    """The week that begins on ``monday``."""
    year, number, _ = monday.isocalendar()
    return Week(f"{year}-W{number:02d}", monday, monday + timedelta(weeks=1))


@dataclass(frozen=True, slots=True)
class WeekCounts:
    """Counts of a week, from which every report is made."""

    scores: tuple[ScoreCount, ...]
    outcomes: dict[str, int]
    measures: tuple[dict[str, Any], ...]
    pairs: tuple[PairCount, ...]


class Counts:
    """Cache of the counts of weeks and references: past weeks hardly change, and counting takes time.

    Safe to share between threads; two that request the same week at the same time count it once.
    """

    def __init__(self, monitoring: ModelMonitoring) -> None:
        self.monitoring = monitoring
        self._kept: dict[tuple[datetime, datetime], tuple[datetime, WeekCounts]] = {}
        self._lock = threading.Lock()

    def of(self, start: datetime, end: datetime, now: datetime) -> WeekCounts:
        """The counts of a span; counted again after six hours, or after one minute if the span has not ended."""
        with self._lock:
            kept = self._kept.get((start, end))
            lasting = _KEEP_PAST if end <= now else _KEEP_CURRENT
            if kept is not None and timedelta(0) <= now - kept[0] < lasting:
                return kept[1]
            made = WeekCounts(
                self.monitoring.scores(start, end),
                self.monitoring.outcomes(start, end),
                self.monitoring.measures(start, end),
                self.monitoring.pair_counts(start, end),
            )
            self._kept = {span: one for span, one in self._kept.items() if now - one[0] < _KEEP_PAST}
            self._kept[start, end] = (now, made)
            return made


def drift_report(counts: Counts, now: datetime, *, weeks: int = 8, model: str = "") -> DriftReport:
    """Make the report; with ``model`` it is limited to that model and the images."""
    asked = weeks_before(now, weeks)
    start, end = asked[-1].start, asked[0].end
    monitoring, first_used = counts.monitoring, counts.monitoring.first_used()
    counted = {week.label: counts.of(week.start, week.end, now) for week in asked}
    return DriftReport(
        weeks=tuple(week.label for week in asked),
        scores=_scores(counts, asked, counted, first_used, model, now),
        images=_images(counts, asked, counted, first_used, now),
        verdicts=reader_verdicts(monitoring, asked, model),
        discrepancies=tuple(one for one in monitoring.discrepancies(start, end) if not model or one.model == model),
        comparisons=compare(
            (pair for one in counted.values() for pair in one.pairs),
            monitoring.pairs(start, end, _MOST_PAIRS),
            monitoring.pairs(start, end, _DIFFERING * 4, differing=True),
            model,
        ),
    )


def _scores(
    counts: Counts,
    weeks: Sequence[Week],
    counted: Mapping[str, WeekCounts],
    first_used: Mapping[tuple[str, str], datetime],
    model: str,
    now: datetime,
) -> tuple[ScoreWeek, ...]:
    made: list[ScoreWeek] = []
    for week in weeks:
        by_label: defaultdict[tuple[str, str, str], list[ScoreCount]] = defaultdict(list)
        for count in counted[week.label].scores:
            if not model or count.model == model:
                by_label[count.model, count.version, count.label].append(count)
        for key, found in sorted(by_label.items()):
            since = first_used.get(key[:2])
            reference: list[ScoreCount] | None = None
            if since is not None and week.start >= since + REFERENCE:
                scores = counts.of(since, since + REFERENCE, now).scores
                reference = [one for one in scores if (one.model, one.version, one.label) == key]
            made.append(score_week(week.label, found, reference))
    return tuple(made)


def score_week(week: str, counts: Sequence[ScoreCount], reference: Iterable[ScoreCount] | None) -> ScoreWeek:
    """The figures of one model, label and week; without ``reference`` the week is within the reference."""
    scores = _by_score(counts)
    analysed, present = sum(scores.values()), sum(count.present for count in counts)
    low, high = wilson(present, analysed)
    moved = None if reference is None else shift(_by_score(reference), scores)
    histogram = [0] * 10
    for score, count in scores.items():
        histogram[min(9, int(score * 10))] += count
    return ScoreWeek(
        counts[0].model,
        counts[0].version,
        counts[0].label,
        week,
        analysed,
        sum(count.count for count in counts if count.score is None),
        present,
        present / analysed if analysed else 0.0,
        low,
        high,
        quantile(scores, 0.5),
        quantile(scores, 0.9),
        *_status(moved, reference is None),
        tuple(histogram),
    )


def _by_score(counts: Iterable[ScoreCount]) -> dict[float, int]:
    found: dict[float, int] = {}
    for count in counts:
        if count.score is not None:
            found[count.score] = found.get(count.score, 0) + count.count
    return found


def _status(moved: Shift | None, is_reference: bool) -> tuple[float | None, float | None, str]:
    if moved is None:
        return None, None, "reference" if is_reference else "too few"
    return moved.index, moved.noise, moved.status


def _images(
    counts: Counts,
    weeks: Sequence[Week],
    counted: Mapping[str, WeekCounts],
    first_used: Mapping[tuple[str, str], datetime],
    now: datetime,
) -> tuple[ImageWeek, ...]:
    since = min(first_used.values(), default=None)
    made = []
    for week in weeks:
        found = counted[week.label]
        if found.outcomes:
            over = since is not None and week.start >= since + REFERENCE
            reference = counts.of(since, since + REFERENCE, now).measures if since is not None and over else None
            made.append(image_week(week.label, found.outcomes, found.measures, reference))
    return tuple(made)


def image_week(
    week: str,
    outcomes: Mapping[str, int],
    measured: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]] | None,
) -> ImageWeek:
    """The figures of the images of a week; without ``reference`` the week is within the reference."""
    jobs = sum(outcomes.values())
    failed = outcomes.get("failed", 0)
    reasons = {code: count for code, count in outcomes.items() if code not in ("", "failed")}
    not_analysed = sum(reasons.values())
    low, high = wilson(not_analysed, jobs)
    measures = [_number(name, measured, reference) for name in NUMBERS]
    measures += [_mix(name, measured, reference) for name in CATEGORIES]
    return ImageWeek(
        week,
        jobs,
        not_analysed,
        not_analysed / jobs if jobs else 0.0,
        low,
        high,
        failed,
        dict(sorted(reasons.items(), key=lambda item: -item[1])),
        tuple(one for one in measures if one is not None),
    )


def _number(
    name: str, measured: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]] | None
) -> MeasureWeek | None:
    values = _counted(float(one[name]) for one in measured if name in one)
    if not values:
        return None
    before = None if reference is None else _counted(float(one[name]) for one in reference if name in one)
    moved = None if before is None else shift(before, values)
    quarters = (quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75))
    return MeasureWeek(name, *quarters, {}, *_status(moved, reference is None))


def _mix(
    name: str, measured: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]] | None
) -> MeasureWeek | None:
    values = _counted(str(one.get(name, _MISSING)) for one in measured)
    if not values:
        return None
    before = None if reference is None else _counted(str(one.get(name, _MISSING)) for one in reference)
    moved = None if before is None else shift_of_mix(before, values)
    total = sum(values.values())
    commonest = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:6]
    return MeasureWeek(
        name, None, None, None, {value: count / total for value, count in commonest}, *_status(moved, reference is None)
    )


def _counted(values: Iterable[Any]) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found


def reader_verdicts(monitoring: ModelMonitoring, weeks: Sequence[Week], model: str = "") -> tuple[VerdictWeek, ...]:
    """Readers' verdicts on each model and label, week by week in the order given; ``model``: of that one alone."""
    return tuple(
        one for week in weeks for one in _verdict_week(week.label, monitoring.verdicts(week.start, week.end), model)
    )


def _verdict_week(week: str, counts: Iterable[VerdictCount], model: str = "") -> tuple[VerdictWeek, ...]:
    found: defaultdict[tuple[str, str, str], dict[Verdict, int]] = defaultdict(lambda: dict.fromkeys(Verdict, 0))
    for count in counts:
        if not model or count.model == model:
            found[count.model, count.version, count.label][count.verdict] += count.count
    made = []
    for (name, version, label), verdicts in sorted(found.items()):
        total, accepted = sum(verdicts.values()), verdicts[Verdict.ACCEPT]
        low, high = wilson(accepted, total)
        made.append(
            VerdictWeek(
                name,
                version,
                label,
                week,
                accepted,
                verdicts[Verdict.MODIFY],
                verdicts[Verdict.REJECT],
                accepted / total if total else 0.0,
                low,
                high,
            )
        )
    return tuple(made)


def compare(
    counts: Iterable[PairCount], pairs: Sequence[Pair], differing: Sequence[Pair], model: str = ""
) -> tuple[Comparison, ...]:
    """Compare each active model with each model in shadow, per label; with ``model`` only pairs with that model."""
    tables: defaultdict[tuple[str, str, str], dict[tuple[bool, bool], int]] = defaultdict(dict)
    for count in counts:
        if not model or model in (count.active, count.shadow):
            cell = (bool(count.active_present), bool(count.shadow_present))
            table = tables[count.active, count.shadow, count.label]
            table[cell] = table.get(cell, 0) + count.count
    made = []
    for key, cells in sorted(tables.items()):
        both, first, second, neither = (
            cells.get(cell, 0) for cell in ((True, True), (True, False), (False, True), (False, False))
        )
        agreement = Agreement(both, first, second, neither)
        low, high = agreement.interval or (None, None)
        own = tuple(pair for pair in pairs if (pair.active, pair.shadow, pair.label) == key)
        own_differing = tuple(pair for pair in differing if (pair.active, pair.shadow, pair.label) == key)
        made.append(
            Comparison(
                key[0],
                key[1],
                key[2],
                both,
                first,
                second,
                neither,
                agreement.observed,
                agreement.kappa,
                low,
                high,
                correlation([(pair.active_score, pair.shadow_score) for pair in own]),
                own,
                own_differing[:_DIFFERING],
            )
        )
    return tuple(made)
