"""The queueing model: against what is known in closed form, and against a simulation of its own assumptions."""

from __future__ import annotations

import math
import random
import statistics
from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks.queueing import Measured, Service, compared, erlang_c, predict, read_jobs, waits_of
from db import jobs
from db.database import Database
from db.engine import connect
from db.leases import LEASE
from tests.db.examples import NOW, outcome, record
from tests.migrated import migrate
from tests.rules import NO_RULES


def test_one_worker_is_pollaczek_and_khinchine() -> None:
    """M/M/1: the share that waits is the load, the mean wait load/(1 - load) service times; M/D/1: half of that."""
    assert erlang_c(1, 0.6) == pytest.approx(0.6)
    exponential, constant = (predict(Service(2.0, variation, 0.0, 2), 0.3, 1) for variation in (1, 0))
    assert exponential.mean_wait_seconds == pytest.approx(2 * 0.6 / 0.4)
    assert constant.mean_wait_seconds == pytest.approx(0.6 / 0.4)


def test_erlang_c_is_that_of_the_tables() -> None:
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(10, 8.0) == pytest.approx(0.4092, abs=1e-4)


def test_more_comes_than_goes() -> None:
    assert predict(Service(1.0, 0.3, 0.0, 2), 2.1, 2).mean_wait_seconds == math.inf


def test_workers_of_one_host_share_its_cores() -> None:
    service = Service(0.3, 0.3, 0.4, 2)
    assert [round(predict(service, 0.1, workers).most_a_minute) for workers in (1, 2, 4, 8)] == [200, 300, 300, 300]


@pytest.mark.parametrize(("workers", "rate"), [(1, 2.0), (2, 5.0), (4, 11.0)])
def test_the_formula_agrees_with_a_simulation(workers: int, rate: float) -> None:
    """To a tenth, of 40000 jobs with service times of a gamma distribution."""
    chance, mean, variation = random.Random(workers), 0.3, 0.5
    shape = 1 / variation**2
    arrivals, now = [], 0.0
    for _ in range(40_000):
        now += chance.expovariate(rate)
        arrivals.append(now)
    services = [chance.gammavariate(shape, mean / shape) for _ in arrivals]
    simulated = statistics.fmean(waits_of(arrivals, services, workers))
    predicted = predict(Service(mean, variation, 0.0, workers), rate, workers).mean_wait_seconds
    assert predicted == pytest.approx(simulated, rel=0.1)


def test_the_jobs_of_a_node_are_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/test.sqlite"
    engine = connect(url)
    migrate(engine)
    database = Database(engine, NO_RULES)
    for number, (worker, waited, took) in enumerate([("h/jobs/0/0#a", 1, 2), ("i/jobs/0/0#b", 3, 4)], 1):
        job = record(database, number=number, study=number)
        begun = NOW + timedelta(seconds=waited)
        database.write(jobs.claim, job, worker, begun, LEASE)
        database.write(jobs.finish, job, worker, outcome(100 * number), begun + timedelta(seconds=took))
    engine.dispose()
    assert read_jobs(url, NOW) == Measured((0, 0), (1, 3), (2, 4), 2)


def test_a_burst_is_put_through_as_many_workers_as_there_were() -> None:
    measured = Measured((0, 0, 0, 0), (0, 0, 1, 1), (1, 1, 1, 1), 2)
    assert compared(measured) == {
        "jobs": 4,
        "workers": 2,
        "seconds a job": 1.0,
        "variation": 0.0,
        "busy": math.inf,
        "mean wait by M/G/k": math.inf,
        "mean wait measured": 0.5,
        "mean wait predicted": 0.5,
        "predicted by measured": 1.0,
    }
