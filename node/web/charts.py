"""Coordinates of small charts for inline SVG: pure functions from figures to points in a viewBox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log10

from db.queries.monitoring import Pair

WIDTH, HEIGHT = 600, 150


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in units of the viewBox, with its tooltip."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One week of a trend: its value with its interval, in units of the viewBox, with its tooltip."""

    x: float
    y: float
    low: float
    high: float
    title: str


@dataclass(frozen=True, slots=True)
class Trend:
    """Shares over weeks: ``line`` and ``band`` are SVG points, ``marks`` the weeks with a value."""

    line: str
    band: str
    marks: tuple[Mark, ...]
    top: float
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Columns:
    """Shares of scores by tenths: the latest week as bars, the weeks before as a stepped line."""

    bars: tuple[Bar, ...]
    before: str
    top: float


@dataclass(frozen=True, slots=True)
class Cross:
    """One image in a scatter plot of two models' scores, with its tooltip."""

    x: float
    y: float
    agree: bool
    title: str


SQUARE = 240


def height_of(value: float, top: float) -> float:
    """Where a value is drawn on an axis that ends at ``top``."""
    return round(HEIGHT * (1 - min(value, top) / top), 2)


def trend(weeks: Sequence[str], values: Mapping[str, tuple[float, float, float]]) -> Trend:
    """Draw share, lower and upper bound of each week in ``values``; ``weeks`` are all weeks, the oldest first."""
    top = min(1.0, nice_share(max((high for _, _, high in values.values()), default=0.1)))
    step = WIDTH / max(len(weeks), 1)

    marks = tuple(
        Mark(
            round((index + 0.5) * step, 2),
            height_of(values[week][0], top),
            height_of(values[week][1], top),
            height_of(values[week][2], top),
            f"{week}: {100 * values[week][0]:.1f} % ({100 * values[week][1]:.1f} to {100 * values[week][2]:.1f} %)",
        )
        for index, week in enumerate(weeks)
        if week in values
    )
    line = " ".join(f"{mark.x},{mark.y}" for mark in marks)
    edge = [*((mark.x, mark.high) for mark in marks), *((mark.x, mark.low) for mark in reversed(marks))]
    return Trend(line, " ".join(f"{x},{y}" for x, y in edge), marks, top, weeks[0], weeks[-1])


def histogram(latest: Sequence[int], before: Sequence[int]) -> Columns:
    """Draw counts by tenths as shares, so that weeks of different sizes can be compared."""
    now, earlier = _shares(latest), _shares(before)
    top = nice_share(max((*now, *earlier), default=0.1))
    width = WIDTH / max(len(latest), 1)

    bars = tuple(
        Bar(
            round(index * width + width * 0.1, 2),
            height_of(share, top),
            round(width * 0.8, 2),
            round(HEIGHT - height_of(share, top), 2),
            f"{latest[index]} of {sum(latest)} from {index / 10:g} to {(index + 1) / 10:g}",
        )
        for index, share in enumerate(now)
    )
    steps = [
        f"{round(x, 2)},{height_of(share, top)}"
        for index, share in enumerate(earlier)
        for x in (index * width, (index + 1) * width)
    ]
    return Columns(bars, " ".join(steps), top)


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts] if total else []


def scatter(pairs: Sequence[Pair]) -> tuple[Cross, ...]:
    """Draw each image with the active model's score as x and the shadow model's as y; disagreements on top."""
    made = [
        Cross(
            round(SQUARE * pair.active_score, 1),
            round(SQUARE * (1 - pair.shadow_score), 1),
            pair.active_present == pair.shadow_present,
            f"study {pair.study_id}: {pair.active_score:.2f} and {pair.shadow_score:.2f}",
        )
        for pair in pairs
    ]
    return tuple(sorted(made, key=lambda cross: not cross.agree))


def nice_share(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 and 100 percent."""
    return next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if value <= step), 1.0)


def job_stages(timings: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each stage of a job, in their order: a stage whose parts are known (``predict.gate``) as its parts."""
    stages: dict[str, float] = {}
    for name, seconds in timings.items():
        parts = {key.rpartition(".")[2]: spent for key, spent in timings.items() if key.startswith(f"{name}.")}
        stages |= parts or ({name: seconds} if "." not in name else {})
    return stages


def stage_shares(timings: Mapping[str, float]) -> tuple[tuple[str, float, float, float], ...]:
    """Stages of a job as (name, seconds, start, length), the last two in percent of the whole."""
    stages = job_stages(timings)
    whole = sum(stages.values())
    if whole <= 0:
        return ()
    made, start = [], 0.0
    for name, seconds in stages.items():
        share = 100 * seconds / whole
        made.append((name, seconds, round(start, 2), round(share, 2)))
        start += share
    return tuple(made)


def nice_top(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten; 1 at least."""
    if value <= 1:
        return 1.0
    power = 10.0 ** int(log10(value))
    return power * next(step for step in (1, 2, 5, 10) if step >= ceil(value / power * 100) / 100)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the sorted ``values`` lie; 0 without values."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0
