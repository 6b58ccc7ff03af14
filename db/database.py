"""One transaction for each query or command: the functions of the repositories beside this module run in it.

A repository function takes a connection and what it needs, and never begins or ends a transaction. Callers name it::

    job = database.write(jobs.claim, job_id, worker, now, lease)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from db.engine import writing
from db.node_rules import Rules

P = ParamSpec("P")
T = TypeVar("T")

_TRIES = 10
_PAUSE_SECONDS = 0.02
_WORTH_ANOTHER_TRY = {
    "40001": "serialization failure",
    "40P01": "deadlock",
    "23505": "another process has inserted the same row",
}


Step = tuple[Callable[..., Any], Sequence[Any]]
"""A command and what it takes after the connection."""


class Database:
    """The database of a node, safe for many threads and many processes.

    Each call is one transaction: what it returns is committed, and on an exception nothing was written. Times are
    aware. Functions that name a ``worker`` act on its claim and return None or False where the claim is lost (its
    lease ran out and another worker took over, or a person stepped in).

    Every call may raise ``sqlalchemy.exc.DBAPIError`` where the database does not answer. Functions that name a record
    raise ``db.errors.RecordNotFoundError`` where it does not exist, and ``db.errors.TransitionError`` where the tables
    of :mod:`db.records` forbid what is asked.

    ``rules`` are what triage and patients need of the node's settings; whoever opens the database must give them.
    """

    def __init__(self, engine: Engine, rules: Rules) -> None:
        """Use the database of ``engine``; :func:`workers.open_database.database_of` makes a node's own."""
        self.engine = engine
        self.rules = rules
        self._writer = writing(engine)

    def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``query`` on one state of the database."""
        with self.engine.connect() as connection:
            return query(connection, *args, **kwargs)

    def write(self, command: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``command`` and commit; it is run again where two writers have met (a deadlock, the same new row)."""
        for attempt in range(1, _TRIES + 1):
            try:
                with self._transaction() as connection:
                    return command(connection, *args, **kwargs)
            except DBAPIError as error:
                if attempt == _TRIES or getattr(error.orig, "sqlstate", None) not in _WORTH_ANOTHER_TRY:
                    raise
            # Those that stopped each other must not start together again; attempts have an order of milliseconds.
            time.sleep(random.uniform(0, _PAUSE_SECONDS * attempt))  # noqa: S311 - a pause is no secret
        raise AssertionError("the last try returns or raises")

    def _transaction(self) -> AbstractContextManager[Connection]:
        """A transaction that writes: committed at its end, rolled back where an exception ends it."""
        return self._writer.begin()

    def write_all(self, steps: Sequence[Step]) -> list[Any]:
        """Run the commands of ``steps`` in their order, commit once (each commit waits for the disk), and give what
        each has returned."""
        return self.write(_run, steps) if steps else []


def _run(connection: Connection, steps: Sequence[Step]) -> list[Any]:
    return [command(connection, *arguments) for command, arguments in steps]
