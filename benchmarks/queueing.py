"""How many studies a minute, and how long they wait, with 1, 2, 4 and 8 workers: predicted from measured service times.

    python -P -m benchmarks.queueing --config pleura.toml [--hours 24] [--json FILE]
    python -P -m benchmarks.queueing --service 0.28 --variation 0.3 --cpu 0.45 --an-hour 600 --cores 2

With a configuration the node's database says how long workers took (``jobs.started_at`` to ``finished_at``) and when
jobs came, and the model is compared with what was: the same arrivals are put through as many workers as there were.

The model is a queue of Poisson arrivals, one line, k workers and any distribution of service times (M/G/k): the waiting
time is Erlang's for exponential service times, corrected by (1 + c²)/2 for others (Allen and Cunneen). Workers of one
host share its cores: where they would need more of them than there are, each takes longer. What the model leaves out:
bursts (``--config`` shows what those do), STAT before routine, and the waiting of deliveries.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from config.settings import load
from db.engine import connect
from db.tables import Job

WORKERS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Service:
    """What one job takes: seconds by the clock, their coefficient of variation, and processor seconds on ``cores``."""

    seconds: float
    variation: float
    cpu_seconds: float
    cores: int

    def with_workers(self, workers: int) -> float:
        """Seconds of a job while so many workers of one host work: no faster than the cores allow for all of them."""
        return max(self.seconds, workers * self.cpu_seconds / self.cores)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of so many workers. Waiting is from the arrival to the begin of the work; infinite where more comes than goes."""

    workers: int
    most_a_minute: float
    utilisation: float
    mean_wait_seconds: float
    waits_at_all: float


def erlang_c(workers: int, load: float) -> float:
    """The probability that a job must wait: ``load`` is arrival rate times service time, less than ``workers``."""
    term, total = 1.0, 1.0
    for number in range(1, workers):
        term *= load / number
        total += term
    last = term * load / workers * workers / (workers - load)
    return last / (total + last)


def predict(service: Service, arrivals_a_second: float, workers: int) -> Prediction:
    """M/G/k, by the approximation of Allen and Cunneen."""
    seconds = service.with_workers(workers)
    load = arrivals_a_second * seconds
    most = 60 * workers / seconds
    if load >= workers:
        return Prediction(workers, most, load / workers, math.inf, 1.0)
    waits = erlang_c(workers, load)
    mean = waits * seconds / (workers - load) * (1 + service.variation**2) / 2
    return Prediction(workers, most, load / workers, mean, waits)


def waits_of(arrivals: Sequence[float], services: Sequence[float], workers: int) -> list[float]:
    """Waiting times of these jobs, first come first served by so many workers; all in seconds."""
    free = [0.0] * workers
    waits = []
    for arrived, seconds in zip(arrivals, services, strict=True):
        begun = max(arrived, heapq.heappop(free))
        heapq.heappush(free, begun + seconds)
        waits.append(begun - arrived)
    return waits


@dataclass(frozen=True, slots=True)
class Measured:
    """Jobs that are done, in the order of their arrival, in seconds; and how many workers did them."""

    arrivals: tuple[float, ...]
    waits: tuple[float, ...]
    services: tuple[float, ...]
    workers: int

    @property
    def service(self) -> Service:
        """What a job took; the cores are in it already."""
        seconds = statistics.fmean(self.services)
        return Service(seconds, statistics.pstdev(self.services) / seconds, 0.0, 1)

    @property
    def arrivals_a_second(self) -> float:
        """How many came; infinite where all came at once."""
        span = self.arrivals[-1] - self.arrivals[0]
        return (len(self.arrivals) - 1) / span if span else math.inf


def read_jobs(url: str, since: datetime) -> Measured:
    """The jobs of a node's database that were queued ``since`` and done at the first attempt."""
    engine = connect(url)
    query = select(Job.queued_at, Job.started_at, Job.finished_at, Job.worker).where(
        Job.queued_at >= since, Job.finished_at.is_not(None), Job.started_at.is_not(None), Job.attempts == 1
    )
    try:
        with engine.connect() as connection:
            rows: list[Any] = sorted(connection.execute(query).all(), key=lambda row: row.queued_at)
    finally:
        engine.dispose()
    if not rows:
        raise SystemExit("no job was done in this time")
    first = rows[0].queued_at
    return Measured(
        tuple((row.queued_at - first).total_seconds() for row in rows),
        tuple((row.started_at - row.queued_at).total_seconds() for row in rows),
        tuple((row.finished_at - row.started_at).total_seconds() for row in rows),
        len({row.worker.partition("#")[0] for row in rows}),
    )


def compared(measured: Measured) -> dict[str, float]:
    """The waiting that the model gives for what came, beside the waiting that was.

    *Predicted* puts the same arrivals through as many workers; *by M/G/k* knows of them only how many came.
    """
    predicted = waits_of(measured.arrivals, measured.services, measured.workers)
    was = statistics.fmean(measured.waits)
    known = predict(measured.service, measured.arrivals_a_second, measured.workers)
    return {
        "jobs": len(measured.waits),
        "workers": measured.workers,
        "seconds a job": round(measured.service.seconds, 3),
        "variation": round(measured.service.variation, 2),
        "busy": round(known.utilisation, 2),
        "mean wait by M/G/k": round(known.mean_wait_seconds, 3),
        "mean wait measured": round(was, 3),
        "mean wait predicted": round(statistics.fmean(predicted), 3),
        "predicted by measured": round(statistics.fmean(predicted) / was, 2) if was else math.nan,
    }


def table(service: Service, arrivals_a_second: float) -> list[Prediction]:
    """The predictions for each number of workers."""
    return [predict(service, arrivals_a_second, workers) for workers in WORKERS]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="a node's configuration: read its database")
    parser.add_argument("--hours", type=float, default=24, help="so far back (default 24)")
    parser.add_argument("--service", type=float, default=0.28, help="seconds of one job (default 0.28)")
    parser.add_argument("--variation", type=float, default=0.3, help="standard deviation by mean (default 0.3)")
    parser.add_argument("--cpu", type=float, help="processor seconds of one job (default: as --service)")
    parser.add_argument("--an-hour", type=float, default=300, help="studies that come in an hour (default 300)")
    parser.add_argument("--cores", type=int, default=2, help="cores of the host (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    given = parser.parse_args()
    seconds, variation, found = given.service, given.variation, {}
    if given.config is not None:
        measured = read_jobs(load(given.config).database_url, datetime.now(UTC) - timedelta(hours=given.hours))
        seconds, variation = measured.service.seconds, measured.service.variation
        found = compared(measured)
    service = Service(seconds, variation, given.cpu or seconds, given.cores)
    rows = table(service, given.an_hour / 3600)
    print(f"{seconds:.3f} s a job (variation {variation:.2f}), {given.an_hour:g} an hour, {given.cores} cores")
    print("workers   most a minute   busy   must wait   mean wait")
    for row in rows:
        print(
            f"{row.workers:7}{row.most_a_minute:16.0f}{row.utilisation:7.0%}{row.waits_at_all:12.1%}"
            f"{row.mean_wait_seconds:10.2f} s"
        )
    for name, value in found.items():
        print(f"{name}: {value}")
    if given.json:
        given.json.write_text(json.dumps({"model": [asdict(row) for row in rows], "compared": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
