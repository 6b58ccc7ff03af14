"""The task queue: how Pleura publishes, and what every message looks like.

The database is the truth and the broker only says "there is something to do": a message carries one row id. So a
broker that is down costs a delay (the scheduler enqueues again) and never an image, and enqueueing must never keep a
caller waiting: the listener enqueues before it answers a C-STORE.

Importing this module imports no network library and no encoder.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from celery import Celery
from kombu import Queue
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from config.sentinel import is_sentinel, read_sentinel_url
from db.states import JOBS, JOBS_CPU, JOBS_GPU
from workers.clock import Elapsed
from workers.message_template import MessageTemplate

DELIVERIES = "deliveries"
ANALYSE = "pleura.analyse"
DELIVER = "pleura.deliver"
READY = "pleura_ready"
"""A command of Celery's remote control, beside its own: whether the processes of a worker are set up."""

# On Redis the *lowest* number is served first (kombu keeps one list per step and asks for them in this order).
STAT_PRIORITY = 0
PRIORITY = 9
PRIORITY_STEPS = (STAT_PRIORITY, PRIORITY)

T = TypeVar("T")

_PAGE = 1000
_ANSWER_SECONDS = 5.0
_PUBLISH_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_REPLY_SECONDS = 1.0

log = logging.getLogger(__name__)


def message_settings(broker_url: str) -> dict[str, Any]:
    """Celery's settings that publishers and workers share: broker, queues, routes, priorities, JSON, no results."""
    url, options, tls = _address(broker_url)
    return tls | {
        "broker_url": url,
        "broker_transport_options": options
        | {
            "priority_steps": list(PRIORITY_STEPS),
            "queue_order_strategy": "priority",
            # Redis keeps no second copy of what a worker has taken: the scheduler finds in the database what a worker
            # has lost. To delete the copy, kombu would need the connection that brought the message; where the broker
            # has died since, the worker would end of that.
            "ack_emulation": False,
            "socket_keepalive": True,
            "socket_timeout": _ANSWER_SECONDS,
            "socket_connect_timeout": _ANSWER_SECONDS,
        },
        "task_queues": [Queue(name) for name in (JOBS, JOBS_CPU, JOBS_GPU, DELIVERIES)],
        "task_routes": {ANALYSE: {"queue": JOBS}, DELIVER: {"queue": DELIVERIES}},
        "task_default_queue": JOBS,
        "task_default_priority": PRIORITY,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
    }


def _address(broker_url: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The broker's URL as Celery takes it, its transport options, and settings for TLS."""
    if not is_sentinel(broker_url):
        return broker_url, {}, {}
    named = read_sentinel_url(broker_url)
    options = {"master_name": named.master_name, "sentinel_kwargs": named.sentinel_options(_PUBLISH_SECONDS)}
    return named.celery_url, options, {"broker_use_ssl": named.tls} if named.tls else {}


def queue_keys(queue: str) -> tuple[str, ...]:
    """The Redis lists of a queue, one for each priority.

    Their names are documented in Celery's user guide, "Routing tasks", "Redis message priorities".
    """
    return tuple(_key(queue, step) for step in PRIORITY_STEPS)


def _key(queue: str, priority: int) -> str:
    return queue if priority == 0 else f"{queue}\x06\x16{priority}"


def _pages(messages: list[tuple[int, int]]) -> Iterator[tuple[int, list[int]]]:
    """Priorities, the pressing one first, each with some of its row ids in their order."""
    for step in PRIORITY_STEPS:
        row_ids = [row_id for row_id, priority in messages if priority == step]
        for start in range(0, len(row_ids), _PAGE):
            yield step, row_ids[start : start + _PAGE]


def _row_ids(client: Any, queue: str) -> frozenset[int]:
    """Ids of the rows for which a message waits in ``queue``; what a worker holds does not wait any more."""
    return frozenset(_row_id(message) for key in queue_keys(queue) for message in _whole_list(client, key))


def _whole_list(client: Any, name: str) -> Iterator[bytes]:
    """Every element of a list that workers shorten meanwhile on the right, and others lengthen on the left.

    What moves to the right between two pages comes twice, and nothing is missed.
    """
    start = 0
    while page := client.lrange(name, start, start + _PAGE - 1):
        yield from page
        start += _PAGE


def _row_id(message: bytes) -> int:
    """The one argument of a message: its body is base64 of JSON, [args, kwargs, embed] (Celery's protocol 2)."""
    return int(json.loads(base64.b64decode(json.loads(message)["body"]))[0][0])


class TaskQueue:
    """Tells the workers that a job or a delivery is waiting. Safe to share between threads.

    A broker that does not answer costs a caller half a second once; for the next second nobody is kept waiting at all.
    """

    def __init__(self, broker_url: str, *, elapsed: Elapsed = time.monotonic) -> None:
        self._app = Celery("pleura", set_as_current=False)
        self._app.conf.update(message_settings(broker_url))
        # By default a connection retries for ever, inside of a publish as well.
        self._connection = self._app.connection_for_write(
            transport_options={
                "socket_timeout": _PUBLISH_SECONDS,
                "socket_connect_timeout": _PUBLISH_SECONDS,
                "max_retries": 0,
                "interval_start": 0,
                "interval_step": 0,
                "interval_max": 0,
            }
        )
        self._templates: dict[tuple[str, str, int], MessageTemplate] = {}
        self._publishing = threading.Lock()
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._silent_until: float | None = None
        self._refuses = self._told = False

    @property
    def silent(self) -> bool:
        """Whether the broker did not answer when it was last asked."""
        return self._silent_until is not None

    def enqueue_jobs(self, jobs: Iterable[tuple[int, bool]], queue: str = JOBS) -> bool:
        """Enqueue ``jobs``, pairs of job id and whether its study is STAT; False where the broker did not hear."""
        return self._enqueue(ANALYSE, queue, [(job_id, STAT_PRIORITY if stat else PRIORITY) for job_id, stat in jobs])

    def enqueue_deliveries(self, delivery_ids: Iterable[int]) -> bool:
        """Enqueue deliveries; False where the broker did not hear."""
        return self._enqueue(DELIVER, DELIVERIES, [(delivery_id, PRIORITY) for delivery_id in delivery_ids])

    def waiting_jobs(self, queue: str = JOBS) -> frozenset[int] | None:
        """Ids of the jobs for which a message waits in ``queue``; None where the broker does not say."""
        return self._waiting(queue)

    def stat_waits(self, queue: str = JOBS) -> bool:
        """Whether a message for a STAT job waits in ``queue``; False where the broker does not say."""
        return bool(self._ask(lambda channel: channel.client.llen(queue_keys(queue)[0])))

    def waiting_deliveries(self) -> frozenset[int] | None:
        """Ids of the deliveries for which a message waits; None where the broker does not say."""
        return self._waiting(DELIVERIES)

    def ready_workers(self) -> frozenset[str] | None:
        """Names (``jobs0@host``) of the workers whose processes are set up; None where the broker does not answer."""
        replies = self._ask(self._ask_workers)
        return None if replies is None else frozenset(name for reply in replies for name, up in reply.items() if up)

    def _ask_workers(self, _: Any) -> list[dict[str, bool]]:
        asked = self._app.control.broadcast(READY, reply=True, timeout=_REPLY_SECONDS, connection=self._connection)
        return list(asked or ())

    def close(self) -> None:
        """Close the connection to the broker."""
        self._connection.release()
        self._app.close()

    def _enqueue(self, task: str, queue: str, messages: list[tuple[int, int]]) -> bool:
        def publish(channel: Any) -> bool:
            for priority, row_ids in _pages(messages):
                template = self._template(task, queue, priority)
                # One command for all of a page: to the broker and back once.
                channel.client.lpush(_key(queue, priority), *map(template.message, row_ids))
            return True

        return not messages or bool(self._ask(publish, publishes=True))

    def _template(self, task: str, queue: str, priority: int) -> MessageTemplate:
        named = (task, queue, priority)
        if named not in self._templates:
            self._templates[named] = MessageTemplate(self._app, *named)
        return self._templates[named]

    def _waiting(self, queue: str) -> frozenset[int] | None:
        return self._ask(lambda channel: _row_ids(channel.client, queue))

    def _ask(self, work: Callable[[Any], T], *, publishes: bool = False) -> T | None:
        """Do something with the channel; None where the broker does not answer, or did not a moment ago."""
        if self._silent_until is not None and self._elapsed() < self._silent_until:
            return None
        try:
            with self._publishing:
                done = work(self._connection.default_channel)
        except (OperationalError, KombuError, RedisError, OSError) as error:
            self._note_cancelled(error, publishes)
            return None
        self._note_answer(publishes)
        return done

    def _note_cancelled(self, error: Exception, publishes: bool) -> None:
        with self._lock:
            first, self._told = not self._told, True
            self._refuses = self._refuses or publishes
            self._silent_until = self._elapsed() + _PAUSE_SECONDS
        if first:
            log.warning(
                "the broker does not answer (%s); work waits in the database until the scheduler enqueues again",
                type(error).__name__,
            )

    def _note_answer(self, publishes: bool) -> None:
        """Tell that it answers again; one without memory still answers questions, and takes no message."""
        with self._lock:
            self._silent_until = None
            self._refuses = self._refuses and not publishes
            back, self._told = self._told and not self._refuses, self._told and self._refuses
        if back:
            log.info("the broker answers again")
