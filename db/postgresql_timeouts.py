"""Connections to PostgreSQL that do not wait for ever for a server that hangs.

The server's own time limits end what is slow or blocked while it runs. A server that is stopped, or that a
broken network hides, enforces none of them: then the client ends the wait and closes the connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")

CONNECT_SECONDS = 5
_MARGIN_SECONDS = 1.0
_IDLE_FACTOR = 3


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which no wait takes longer than ``answer_seconds``; None: as long as it takes."""

    answer_seconds: float | None = None

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """Run what waits for the server to its end.

        Raises:
            psycopg.OperationalError: there was no answer in time; the connection is closed.
        """
        if self.answer_seconds is None:
            return super().wait(gen, *arguments, **options)
        return super().wait(_until(gen, self.answer_seconds, self._give_up), *arguments, **options)

    def _give_up(self) -> None:
        self.pgconn.finish()


def _until(gen: Generator[Any, Any, T], seconds: float, give_up: Callable[[], None]) -> Generator[Any, Any, T]:
    """``gen``, given up where nothing has come for it (a ready state of 0) when ``seconds`` are over.

    psycopg resumes what waits several times a second, with 0 where its socket is silent.
    """
    end = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > end:
                give_up()
                raise psycopg.OperationalError(f"the database has not answered for {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        result: T = done.value
        return result


def open_bounded(parameters: dict[str, Any], answer_seconds: float) -> BoundedConnection:
    """Connect, with limits on this side and, a little shorter, on the server's. Times come in UTC."""
    connection = BoundedConnection.connect(**{"connect_timeout": CONNECT_SECONDS, **parameters})
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
