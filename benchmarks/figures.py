"""What a benchmark has measured, as JSON and as rows of the one table of ``docs/benchmarks.md``.

``python -P -m benchmarks.figures`` writes the table there, of the JSON files in ``benchmarks/results``.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.campaigns.outcome import fill_in

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
RESULTS = Path(__file__).with_name("results")
_PRIORITIES = {os.SCHED_FIFO: "real-time priority", os.SCHED_RR: "real-time priority"}


@dataclass(frozen=True)
class Figure:
    """One comparison. ``ours`` and ``theirs`` are medians in ``unit``; the ratio is of rounds with both in turn.

    A ratio above 1 is better than the peer. ``limit`` is what this machine allows at best, where it was measured.
    """

    what: str
    unit: str
    ours: float
    peer: str
    theirs: float
    ratio: tuple[float, float, float]
    limit: str = ""
    of_limit: float | None = None

    def row(self) -> str:
        """One row of the Markdown table whose head is :data:`HEAD`."""
        median, low, high = self.ratio
        distance = "" if self.of_limit is None else f"{self.of_limit:.2f} of {self.limit}"
        numbers = f"{_short(self.ours)} {self.unit} | {self.peer}: {_short(self.theirs)} {self.unit}"
        return f"| {self.what} | {numbers} | {median:.2f} ({low:.2f} to {high:.2f}) | {distance} |"


@dataclass(frozen=True)
class Measurement:
    """One run of a benchmark, with what it ran under."""

    benchmark: str
    command: str
    figures: tuple[Figure, ...]
    rounds: int
    load: tuple[float, float]
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    priority: str = field(default_factory=lambda: _PRIORITIES.get(os.sched_getscheduler(0), "normal priority"))
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    python: str = field(default_factory=platform.python_version)

    def conditions(self) -> str:
        """In a sentence."""
        before, after = self.load
        return (
            f"`{self.command}`: {self.date}, {self.rounds} rounds on {self.cores} cores, {self.priority}, Python "
            f"{self.python}, load average {before:.1f} before and {after:.1f} after."
        )

    def write(self, folder: Path = RESULTS) -> None:
        """Write JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.benchmark}.json"
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_measurement(path: Path) -> Measurement:
    """What :meth:`Measurement.write` has written."""
    found = json.loads(path.read_text(encoding="utf-8"))
    figures = tuple(Figure(**{**each, "ratio": tuple(each["ratio"])}) for each in found.pop("figures"))
    return Measurement(**{**found, "figures": figures, "load": tuple(found["load"])})


def spread(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    return statistics.median(ratios), min(ratios), max(ratios)


HEAD = """| what | Pleura | beside | ratio (range), above 1 is better | distance to the limit |
|---|--:|--:|--:|---|"""


def table(folder: Path) -> str:
    """The Markdown table of every measurement in ``folder``, and under which conditions each ran."""
    found = [read_measurement(path) for path in sorted(folder.glob("*.json"))]
    rows = [figure.row() for one in found for figure in one.figures]
    return "\n".join([HEAD, *rows, "", *(f"- {one.conditions()}" for one in found)])


def write_document() -> None:
    """Write the table of ``benchmarks/results`` into ``docs/benchmarks.md``."""
    DOCUMENT.write_text(fill_in(DOCUMENT.read_text(encoding="utf-8"), table(RESULTS)), encoding="utf-8")


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


if __name__ == "__main__":
    write_document()
