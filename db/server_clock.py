"""The clock of the database server beside ours: hosts that share a database must agree on what time it is.

Claims are compared by the clocks of the hosts (:data:`db.leases.LEASE`); the server's clock is the one that all of them
can ask.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine, func, select

TOLERANCE = timedelta(seconds=5)
"""A difference that no lease notices: the shortest is 15 s, a claim 45 s."""
_TRIES = 3


def ahead_of_server(engine: Engine, clock: Callable[[], datetime]) -> timedelta | None:
    """How far ``clock`` is ahead of the database server's; negative where it is behind, None for SQLite: it has none.

    Of some tries the quickest counts: the answer is as exact as half of the time that it took.

    Raises:
        SQLAlchemyError: the server does not answer.
    """
    if engine.dialect.name != "postgresql":
        return None
    asked: list[tuple[timedelta, timedelta]] = []
    with engine.connect() as connection:
        connection.execute(select(1))
        for _ in range(_TRIES):
            before = clock()
            theirs = connection.execute(select(func.clock_timestamp())).scalar_one()
            took = clock() - before
            asked.append((took, before + took / 2 - theirs))
    return min(asked)[1]


def difference_in_words(ahead: timedelta) -> str:
    """What is wrong with a clock that is ``ahead``; empty where nothing is."""
    if abs(ahead) <= TOLERANCE:
        return ""
    where = "ahead of" if ahead > timedelta() else "behind"
    return f"the clock of this machine is {abs(ahead).total_seconds():.0f} s {where} the database server's"
