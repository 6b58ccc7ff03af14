"""A row has one message at most, however long it waits, and one again where the broker has lost it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from db.engine import connect, migrate
from db.worklist import Worklist
from tests.db.examples import NOW, PIPELINE, received
from tests.rules import NO_RULES
from tests.workers.conftest import Broker
from tests.workers.test_enqueue import heard
from workers.enqueue import JOBS, Doorbell
from workers.scheduler import ring_jobs

JOBS_WAITING = 300
QUIET = timedelta(seconds=30)


@pytest.fixture
def worklist(tmp_path: Path) -> Worklist:
    engine = connect(f"sqlite:///{tmp_path}/pleura.sqlite")
    migrate(engine)
    return Worklist(engine, NO_RULES)


@pytest.fixture
def doorbell(broker: Broker) -> Iterator[Doorbell]:
    bell = Doorbell(broker.url)
    yield bell
    bell.close()


def take_in(worklist: Worklist, doorbell: Doorbell) -> list[int]:
    """Record images and ring for them, as the listener does; one in ten is STAT."""
    jobs = []
    for number in range(1, JOBS_WAITING + 1):
        stat = number % 10 == 0
        image = received(number, number, stat=stat)
        jobs += [(job_id, stat) for job_id in worklist.record_instance(image, None, PIPELINE, NOW).job_ids]
    doorbell.ring_jobs(jobs)
    return [job_id for job_id, _ in jobs]


def wait(worklist: Worklist, doorbell: Doorbell, first: int, minutes: int) -> None:
    """Let time go by without a worker."""
    for second in range(first, first + 60 * minutes, 10):
        ring_jobs(worklist, doorbell, QUIET, NOW + timedelta(seconds=second))


def test_jobs_that_wait_for_an_hour_have_one_message_each(
    worklist: Worklist, doorbell: Doorbell, broker: Broker
) -> None:
    jobs = take_in(worklist, doorbell)
    wait(worklist, doorbell, 0, 60)
    assert sorted(job_id for _, job_id in heard(broker, JOBS)) == jobs


def test_a_flushed_broker_has_one_message_each_again(worklist: Worklist, doorbell: Doorbell, broker: Broker) -> None:
    jobs = take_in(worklist, doorbell)
    wait(worklist, doorbell, 0, 5)
    Redis(unix_socket_path=str(broker.socket_path)).flushall()
    wait(worklist, doorbell, 300, 5)
    assert sorted(job_id for _, job_id in heard(broker, JOBS)) == jobs


def test_what_a_worker_took_and_lost_is_enqueued_again_beside_those_that_wait(
    worklist: Worklist, doorbell: Doorbell, broker: Broker
) -> None:
    jobs = take_in(worklist, doorbell)
    client = Redis(unix_socket_path=str(broker.socket_path))
    lists = [name.decode() for name in client.keys(f"{JOBS}*")]
    for name in lists:
        for _ in range(5):
            client.rpop(name)
    wait(worklist, doorbell, 60, 5)
    counted = Counter(job_id for _, job_id in heard(broker, JOBS))
    assert sorted(counted) == jobs
    assert set(counted.values()) == {1}


def test_the_doorbell_says_what_waits(doorbell: Doorbell, broker: Broker) -> None:
    doorbell.ring_jobs([(number, number % 2 == 0) for number in range(2500)])
    doorbell.ring_deliveries([7])
    assert doorbell.waiting_jobs() == frozenset(range(2500)), "more than a page, and both priorities"
    assert doorbell.waiting_deliveries() == {7}
    broker.kill()
    assert doorbell.waiting_jobs() is None
