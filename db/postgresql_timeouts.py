"""Connections to PostgreSQL that do not wait for ever for a server that hangs, nor stay with one that takes nothing.

The server's own time limits end what is slow or blocked while it runs. A server that is stopped, or that a
broken network hides, enforces none of them: then the client ends the wait and closes the connection.

Where servers fail over, a connection may reach one that can only be read. Only one that can be written is taken, and a
connection to one that has become read-only is closed: the next one finds the primary.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import psycopg

from db.ending import OF_THIS_PROCESS

T = TypeVar("T")

CONNECT_SECONDS = 5
_MARGIN_SECONDS = 1.0
_IDLE_FACTOR = 3
_LAST_CONNECT_SECONDS = 2  # libpq takes no less
_CONNECTING: dict[str, Any] = {
    # libpq 34.1.2: what "read-write" rejects is a standby, and a server whose transactions are read-only by default.
    "target_session_attrs": "read-write",
    # A host that is gone says nothing more: the kernel asks it after two hours, and sends again for a quarter of one.
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class ReadOnlyServerError(psycopg.OperationalError):
    """The server takes nothing more: it is a standby now, or was made read-only. The connection is closed."""

    sqlstate = psycopg.errors.ReadOnlySqlTransaction.sqlstate


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which no wait takes longer than ``answer_seconds``; None: until ``stop`` is set."""

    answer_seconds: float | None = None
    stop: threading.Event | None = None

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """Run what waits for the server to its end.

        Raises:
            psycopg.OperationalError: there was no answer in time; the connection is closed.
            ReadOnlyServerError: nothing can be written there.
        """
        try:
            wanted = next(gen)
        except StopIteration as done:  # of the driver alone: autocommit is set so, five times for a page
            answered: T = done.value
            return answered
        seconds = math.inf if self.answer_seconds is None else self.answer_seconds
        bounded = _until(gen, wanted, seconds, self.stop, self.pgconn.finish)
        try:
            return super().wait(bounded, *arguments, **options)
        except psycopg.errors.ReadOnlySqlTransaction as error:
            self.pgconn.finish()
            raise ReadOnlyServerError(str(error)) from error


def _until(
    gen: Generator[Any, Any, T],
    wanted: Any,
    seconds: float,
    stop: threading.Event | None,
    give_up: Callable[[], None],
) -> Generator[Any, Any, T]:
    """``gen``, of which ``wanted`` has come, given up where nothing has come for it (a ready state of 0) when
    ``seconds`` are over, or at ``stop``, or some seconds after this process was to end.

    psycopg resumes what waits several times a second, with 0 where its socket is silent.
    """
    begun = time.monotonic()
    try:
        while True:
            ready = yield wanted
            if not ready and stop is not None and stop.is_set():
                give_up()
                raise psycopg.OperationalError("stopped while the database was waited for")
            if not ready and OF_THIS_PROCESS.is_over(begun, seconds):
                give_up()
                waited = time.monotonic() - begun
                raise psycopg.OperationalError(f"the database has not answered for {waited:.0f} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        result: T = done.value
        return result


def connecting(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What libpq is given: ``parameters``, and what they do not say. A process that is to end connects within 2 s."""
    if OF_THIS_PROCESS.since is not None:
        return _CONNECTING | {**parameters, "connect_timeout": _LAST_CONNECT_SECONDS}
    return _CONNECTING | {"connect_timeout": CONNECT_SECONDS, **parameters}


def open_bounded(parameters: dict[str, Any], answer_seconds: float) -> BoundedConnection:
    """Connect to the server that can be written, with limits on this side and, a little shorter, on the server's.

    ``parameters`` (of database.url) may say otherwise. Times come in UTC.
    """
    connection = BoundedConnection.connect(**connecting(parameters))
    connection.answer_seconds = answer_seconds
    limit = int(1000 * max(answer_seconds - _MARGIN_SECONDS, answer_seconds / 2))
    # As statements, not as start-up options: a connection pooler in between may refuse those.
    connection.autocommit = True
    connection.execute(
        f"SET statement_timeout = {limit}; SET idle_in_transaction_session_timeout = {_IDLE_FACTOR * limit};"
        " SET timezone = 'UTC'"
    )
    connection.autocommit = False
    return connection
