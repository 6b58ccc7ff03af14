"""The task queue: all that the rest of Pleura needs of Celery.

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
from celery.app.amqp import AMQP
from kombu import Connection, uuid
from kombu.exceptions import KombuError, OperationalError
from kombu.serialization import dumps
from kombu.transport import redis, virtual
from redis.exceptions import RedisError

from workers.clock import Elapsed

JOBS = "jobs"
DELIVERIES = "deliveries"
ANALYSE = "pleura.analyse"
DELIVER = "pleura.deliver"

# On Redis the *lowest* number is served first (kombu keeps one list per step and asks for them in this order).
STAT_PRIORITY = 0
PRIORITY = 9
PRIORITY_STEPS = [STAT_PRIORITY, PRIORITY]

T = TypeVar("T")

_PAGE = 1000
_ORIGIN = "pleura"
_PERSISTENT = 2  # AMQP's delivery mode
_PUBLISH_SECONDS = 0.5
_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


class ForgetfulQoS(redis.QoS):  # type: ignore[misc]
    """Counts a message as complete even where the broker could not be told.

    kombu keeps counting it, and swallows the error: a worker that may hold one message at a time would then wait for
    ever, without noticing that its connection is gone. The broker hands the message out again later, which is harmless.
    """

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; see above for a broker that is down."""
        try:
            super().ack(delivery_tag)
        except BaseException:
            virtual.QoS.ack(self, delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject; see above for a broker that is down."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        except BaseException:
            virtual.QoS.ack(self, delivery_tag)
            raise


class ForgetfulChannel(redis.Channel):  # type: ignore[misc]
    """A channel with :class:`ForgetfulQoS`, that does not make a new client for every message."""

    QoS = ForgetfulQoS

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous)
        # Of a pool only: the pool is renewed with the connection, and then the client is.
        client: Any = getattr(self, "_kept_client", None)
        if client is None or client.connection_pool is not self.pool:
            client = self._kept_client = super()._create_client()
        return client

    def row_ids(self, queue: str) -> frozenset[int]:
        """Ids of the rows for which a message waits in ``queue``; what a worker holds does not wait any more."""
        found: set[int] = set()
        with self.conn_or_acquire() as client:
            for priority in self.priority_steps:
                found.update(_row_id(message) for message in _whole_list(client, self._q_for_pri(queue, priority)))
        return frozenset(found)


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


class ForgetfulTransport(redis.Transport):  # type: ignore[misc]
    """Redis with :class:`ForgetfulChannel`."""

    Channel = ForgetfulChannel


class QuickConnection(Connection):  # type: ignore[misc]
    """A broker connection that comes back within a second or two: kombu's own patience grows to half a minute."""

    def get_transport_cls(self) -> Any:
        """Use our transport for Redis, over TCP, TLS or a socket; others as they are."""
        transport = super().get_transport_cls()
        return ForgetfulTransport if transport is redis.Transport else transport

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, retrying after 0.2 s at first and every 2 s at last."""
        quick = {"interval_start": 0.2, "interval_step": 0.3, "interval_max": 2.0}
        return super().ensure_connection(*args, **(quick | kwargs))


class QuickAMQP(AMQP):  # type: ignore[misc]
    """Celery's broker interface, with :class:`QuickConnection`."""

    Connection = QuickConnection


def celery_app(broker_url: str, *, visibility_seconds: float = 3600, **transport: Any) -> Celery:
    """Make a Celery application that speaks JSON, keeps no results and knows the queues' priorities.

    ``visibility_seconds`` is the time after which Redis hands an unacknowledged message to another worker; it must be
    longer than any job, or long jobs would be announced twice. ``transport`` is added to kombu's transport options.
    """
    app = Celery("pleura", broker=broker_url, amqp=QuickAMQP, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_priority=PRIORITY,
        task_default_queue=JOBS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": visibility_seconds,
            "priority_steps": PRIORITY_STEPS,
            "queue_order_strategy": "priority",
            "socket_keepalive": True,
            **transport,
        },
    )
    return app


class TaskQueue:
    """Tells the workers that a job or a delivery is waiting. Safe to share between threads.

    A broker that does not answer costs a caller half a second once; for the next second nobody is kept waiting at all.
    """

    def __init__(self, broker_url: str, *, elapsed: Elapsed = time.monotonic) -> None:
        # The last four keep kombu from retrying for ever inside of a publish, which is its default.
        self._app = celery_app(
            broker_url,
            socket_timeout=_PUBLISH_SECONDS,
            socket_connect_timeout=_PUBLISH_SECONDS,
            max_retries=0,
            interval_start=0,
            interval_step=0,
            interval_max=0,
        )
        self._connection = self._app.connection_for_write()
        self._publishing = threading.Lock()
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._silent_until: float | None = None

    def enqueue_jobs(self, jobs: Iterable[tuple[int, bool]]) -> bool:
        """Enqueue ``jobs``, pairs of job id and whether its study is STAT; False where the broker did not hear."""
        return self._enqueue(ANALYSE, JOBS, [(job_id, STAT_PRIORITY if stat else PRIORITY) for job_id, stat in jobs])

    def enqueue_deliveries(self, delivery_ids: Iterable[int]) -> bool:
        """Enqueue deliveries; False where the broker did not hear."""
        return self._enqueue(DELIVER, DELIVERIES, [(delivery_id, PRIORITY) for delivery_id in delivery_ids])

    def waiting_jobs(self) -> frozenset[int] | None:
        """Ids of the jobs for which a message waits; None where the broker does not say."""
        return self._waiting(JOBS)

    def waiting_deliveries(self) -> frozenset[int] | None:
        """Ids of the deliveries for which a message waits; None where the broker does not say."""
        return self._waiting(DELIVERIES)

    def close(self) -> None:
        """Close the connection to the broker."""
        self._connection.release()
        self._app.close()

    def _enqueue(self, task: str, queue: str, messages: list[tuple[int, int]]) -> bool:
        def publish(channel: Any) -> bool:
            for row_id, priority in messages:
                self._publish(channel, task, queue, row_id, priority)
            return True

        return not messages or bool(self._ask(publish))

    def _waiting(self, queue: str) -> frozenset[int] | None:
        return self._ask(lambda channel: frozenset(channel.row_ids(queue)))

    def _ask(self, work: Callable[[Any], T]) -> T | None:
        """Do something with the channel; None where the broker does not answer, or did not a moment ago."""
        if self._silent_until is not None and self._elapsed() < self._silent_until:
            return None
        try:
            with self._publishing:
                done = work(self._connection.default_channel)
        except (OperationalError, KombuError, RedisError, OSError) as error:
            self._note_cancelled(error)
            return None
        self._note_answer()
        return done

    def _publish(self, channel: Any, task: str, queue: str, row_id: int, priority: int) -> None:
        """Publish what Celery's send_task would, without declaring the queue and copying the producer each time."""
        message = self._app.amqp.as_task_v2(
            uuid(), task, args=(row_id,), ignore_result=True, argsrepr=f"({row_id},)", kwargsrepr="{}", origin=_ORIGIN
        )
        content_type, encoding, body = dumps(message.body, serializer="json")
        prepared = channel.prepare_message(
            body, priority, content_type, encoding, message.headers, message.properties | {"delivery_mode": _PERSISTENT}
        )
        channel.basic_publish(prepared, exchange="", routing_key=queue)

    def _note_cancelled(self, error: Exception) -> None:
        with self._lock:
            first = self._silent_until is None
            self._silent_until = self._elapsed() + _PAUSE_SECONDS
        if first:
            log.warning(
                "the broker does not answer (%s); work waits in the database until the scheduler enqueues again",
                type(error).__name__,
            )

    def _note_answer(self) -> None:
        with self._lock:
            back = self._silent_until is not None
            self._silent_until = None
        if back:
            log.info("the broker answers again")
