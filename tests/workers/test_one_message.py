"""A row has one message at most, however long it waits, and one again where the broker has lost it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest
from redis import Redis

from db.database import Database
from db.states import JOBS
from tests.commands import record_instance
from tests.db.examples import NOW, PIPELINE, received
from tests.workers.conftest import Broker
from tests.workers.test_enqueue import heard
from workers.enqueue import TaskQueue
from workers.scheduler import enqueue_jobs

JOBS_WAITING = 300
QUIET = timedelta(seconds=30)


@pytest.fixture
def task_queue(broker: Broker) -> Iterator[TaskQueue]:
    task_queue = TaskQueue(broker.url)
    yield task_queue
    task_queue.close()


def take_in(database: Database, task_queue: TaskQueue) -> list[int]:
    """Record images and enqueues them, as the listener does; one in ten is STAT."""
    jobs = []
    for number in range(1, JOBS_WAITING + 1):
        stat = number % 10 == 0
        image = received(number, number, stat=stat)
        jobs += [(job_id, stat) for job_id in record_instance(database, image, None, PIPELINE, NOW).job_ids]
    task_queue.enqueue_jobs(jobs)
    return [job_id for job_id, _ in jobs]


def wait(database: Database, task_queue: TaskQueue, first: int, minutes: int) -> None:
    """Let time go by without a worker."""
    for second in range(first, first + 60 * minutes, 10):
        enqueue_jobs(database, task_queue, QUIET, NOW + timedelta(seconds=second))


def test_jobs_that_wait_for_an_hour_have_one_message_each(
    database: Database, task_queue: TaskQueue, broker: Broker
) -> None:
    jobs = take_in(database, task_queue)
    wait(database, task_queue, 0, 60)
    assert sorted(job_id for _, job_id in heard(broker, JOBS)) == jobs


def test_a_flushed_broker_has_one_message_each_again(database: Database, task_queue: TaskQueue, broker: Broker) -> None:
    jobs = take_in(database, task_queue)
    wait(database, task_queue, 0, 5)
    Redis(unix_socket_path=str(broker.socket_path)).flushall()
    wait(database, task_queue, 300, 5)
    assert sorted(job_id for _, job_id in heard(broker, JOBS)) == jobs


def test_what_a_worker_took_and_lost_is_enqueued_again_beside_those_that_wait(
    database: Database, task_queue: TaskQueue, broker: Broker
) -> None:
    jobs = take_in(database, task_queue)
    client = Redis(unix_socket_path=str(broker.socket_path))
    lists = [name.decode() for name in client.keys(f"{JOBS}*") if isinstance(name, bytes)]
    for name in lists:
        for _ in range(5):
            client.rpop(name)
    wait(database, task_queue, 60, 5)
    counted = Counter(job_id for _, job_id in heard(broker, JOBS))
    assert sorted(counted) == jobs
    assert set(counted.values()) == {1}


def test_the_task_queue_says_what_waits(task_queue: TaskQueue, broker: Broker) -> None:
    task_queue.enqueue_jobs([(number, number % 2 == 0) for number in range(2500)])
    task_queue.enqueue_deliveries([7])
    assert task_queue.waiting_jobs() == frozenset(range(2500)), "more than a page, and both priorities"
    assert task_queue.waiting_deliveries() == frozenset({7})
    broker.kill()
    assert task_queue.waiting_jobs() is None
