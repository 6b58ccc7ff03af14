"""The task queue against a real broker: what is enqueued is heard, STAT first, and a broker that is down keeps
nobody.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from celery import Celery
from redis import Redis

from db.states import JOBS, JOBS_GPU
from tests.workers.conftest import Broker
from workers.enqueue import (
    ANALYSE,
    DELIVER,
    DELIVERIES,
    PRIORITY,
    STAT_PRIORITY,
    TaskQueue,
    message_settings,
    queue_keys,
)


def heard(broker: Broker, queue: str) -> list[tuple[str, int]]:
    """Take every waiting message from ``queue`` in the order in which a worker would."""
    app = Celery(set_as_current=False)
    app.conf.update(message_settings(broker.url))
    messages = []
    with app.connection_for_read() as connection:
        simple = connection.SimpleQueue(app.amqp.queues[queue])
        with suppress(simple.Empty):
            while True:
                message = simple.get_nowait()
                messages.append((message.headers["task"], message.payload[0][0]))
                message.ack()
        simple.close()
    return messages


@pytest.mark.parametrize("kind", ["embedded", pytest.param("redis-server", marks=pytest.mark.peer("redis-server"))])
def test_what_is_enqueued_is_heard(make_broker: Callable[[str], Broker], kind: str) -> None:
    broker = make_broker(kind)
    task_queue = TaskQueue(broker.url)
    assert task_queue.enqueue_jobs([(1, False), (2, False)])
    assert task_queue.enqueue_deliveries([9])
    assert not task_queue.stat_waits()
    assert heard(broker, JOBS) == [(ANALYSE, 1), (ANALYSE, 2)]
    assert task_queue.enqueue_jobs([(3, True)])
    assert task_queue.stat_waits()
    assert heard(broker, JOBS) == [(ANALYSE, 3)]
    assert heard(broker, DELIVERIES) == [(DELIVER, 9)]
    task_queue.close()


def messages_in(broker: Broker, queue: str) -> list[dict[str, Any]]:
    """Take the messages as they lie in the broker, all names on one level."""
    with Redis.from_url(broker.url.replace("redis+socket", "unix")) as client:
        keys = queue_keys(queue)
        found = [json.loads(text) for key in keys for text in cast(list[bytes], client.lrange(key, 0, -1))]
        client.delete(*keys)
    return [message.pop("properties") | message.pop("headers") | message for message in found]


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """A message without the ids that are made anew for each."""
    return {name: value for name, value in message.items() if not name.endswith(("id", "_tag", "_to"))}


@pytest.mark.parametrize(
    ("task", "queue", "priority"),
    [
        (ANALYSE, JOBS, PRIORITY),
        (ANALYSE, JOBS, STAT_PRIORITY),
        (ANALYSE, JOBS_GPU, PRIORITY),
        (DELIVER, DELIVERIES, PRIORITY),
    ],
)
def test_a_message_is_the_one_that_celery_would_send(broker: Broker, task: str, queue: str, priority: int) -> None:
    task_queue = TaskQueue(broker.url)
    if task == DELIVER:
        task_queue.enqueue_deliveries([7])
    else:
        task_queue.enqueue_jobs([(7, priority == STAT_PRIORITY)], queue)
    app = Celery(set_as_current=False)
    app.conf.update(message_settings(broker.url))
    (ours,) = messages_in(broker, queue)
    app.send_task(task, queue=queue, args=(7,), priority=priority, ignore_result=True)
    (celerys,) = messages_in(broker, queue)
    assert ours["argsrepr"] == celerys["argsrepr"] == "(7,)"
    assert without_ids(ours) == without_ids(celerys)
    assert set(ours) == set(celerys)
    task_queue.close()


def test_each_message_has_ids_of_its_own(broker: Broker) -> None:
    task_queue = TaskQueue(broker.url)
    task_queue.enqueue_jobs([(7, False), (8, False)])
    task_queue.enqueue_jobs([(9, False)])
    messages = messages_in(broker, JOBS)
    assert all(message["id"] == message["root_id"] == message["correlation_id"] for message in messages)
    ids = {message[name] for message in messages for name in ("id", "delivery_tag")}
    assert len(ids) == 2 * len(messages)
    assert {message["argsrepr"] for message in messages} == {"(7,)", "(8,)", "(9,)"}
    task_queue.close()


def test_a_stat_study_overtakes_the_queue(broker: Broker) -> None:
    task_queue = TaskQueue(broker.url)
    task_queue.enqueue_jobs([(1, False), (2, False), (3, True), (4, False), (5, True)])
    assert [job_id for _, job_id in heard(broker, JOBS)] == [3, 5, 1, 2, 4]
    task_queue.close()


def test_enqueueing_for_nothing_needs_no_broker(socket_folder: Path) -> None:
    assert TaskQueue(f"redis+socket://{socket_folder}/none.sock").enqueue_jobs([])


def test_a_broker_that_is_down_is_told_once_and_comes_back(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    moment = [0.0]
    task_queue = TaskQueue(broker.url, elapsed=lambda: moment[0])
    assert task_queue.enqueue_jobs([(1, False)])
    broker.kill()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            moment[0] += 2
            assert not task_queue.enqueue_jobs([(2, False)])
        broker.start()
        assert not task_queue.enqueue_jobs([(3, False)]), "within the pause nobody is asked"
        moment[0] += 2
        assert task_queue.enqueue_jobs([(4, False)])
    assert [record.levelname for record in caplog.records if record.name == "workers.enqueue"] == ["WARNING", "INFO"]
    assert [job_id for _, job_id in heard(broker, JOBS)] == [4]
    task_queue.close()


def test_a_broker_without_memory_is_told_once(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """It answers the scheduler's questions and takes no message: two lines a second, for as long as it lasts."""
    moment = [0.0]
    task_queue = TaskQueue(broker.url, elapsed=lambda: moment[0])
    assert task_queue.enqueue_jobs([(1, False)])
    with Redis(unix_socket_path=str(broker.socket_path)) as client, caplog.at_level(logging.INFO):
        client.config_set("maxmemory", 1)
        for _ in range(3):
            moment[0] += 2
            assert not task_queue.enqueue_jobs([(2, False)])
            moment[0] += 2
            assert task_queue.waiting_jobs() == frozenset({1})
        client.config_set("maxmemory", 0)
        assert task_queue.enqueue_jobs([(3, False)])
    assert [record.levelname for record in caplog.records if record.name == "workers.enqueue"] == ["WARNING", "INFO"]
    task_queue.close()


def test_a_broker_that_never_answers_keeps_nobody_for_long() -> None:
    # A port that takes connections and says nothing: the pause after the first attempt spares the others the wait.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        moment = [0.0]
        task_queue = TaskQueue(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", elapsed=lambda: moment[0])
        assert not task_queue.enqueue_jobs([(1, False)])
        assert not task_queue.enqueue_jobs([(2, False)])
        task_queue.close()


def test_a_host_that_does_not_exist_is_no_error() -> None:
    task_queue = TaskQueue("redis://no-such-host.invalid:6379/0")
    assert not task_queue.enqueue_deliveries([1])


def test_the_task_queue_carries_no_networks_and_no_encoders() -> None:
    heavy = "onnxruntime,highdicom,tensorflow,keras,pynetdicom,pydicom,sqlalchemy,numpy"
    code = (
        f"import sys, workers.enqueue; loaded = [m for m in '{heavy}'.split(',') if m in sys.modules]; "
        "sys.exit(' '.join(loaded) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
