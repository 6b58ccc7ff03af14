"""Group commit: threads of one process that write at the same time share a transaction.

SQLite has one writer, and each commit waits for the disk. Where many associations bring images, each would wait for the
commits of all others. Here those that come while a transaction runs are written together in the next one, by the first
of them. A single writer waits for nobody.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy import Connection, Engine, event

from db.database import Database
from db.node_rules import Rules

P = ParamSpec("P")
T = TypeVar("T")

_MOST_TOGETHER = 16
"""Other processes wait for a transaction as long as it takes."""


class _CommandError(Exception):
    """One of several commands has failed, and nothing of the transaction was committed."""


class _Entry:
    """A command of one thread, and what became of it. ``wake`` is held until it is done, or its thread is to lead."""

    def __init__(self, command: Callable[[Connection], Any]) -> None:
        self.command = command
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.wake = threading.Lock()
        self.wake.acquire()


class GroupCommit(Database):
    """A :class:`Database` for many threads of one process, whose writes are committed together.

    Each call of :meth:`write` returns or raises what it would alone, after its commit. Where one command of several
    fails, the transaction is rolled back and each runs again in one of its own, so that a bad instance harms no other.
    """

    def __init__(self, engine: Engine, rules: Rules) -> None:
        super().__init__(engine, rules)
        self._lock = threading.Lock()
        self._waiting: deque[_Entry] = deque()
        self._is_led = False
        self._kept: Connection | None = None
        self._process = os.getpid()
        event.listen(engine, "engine_disposed", self._on_disposed)

    def write(self, command: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``command`` and commit; see the base class."""
        entry = _Entry(lambda connection: command(connection, *args, **kwargs))
        with self._lock:
            self._waiting.append(entry)
            leads = not self._is_led
            self._is_led = True
        if not leads:
            entry.wake.acquire()
        if not entry.done:
            self._lead()
        if entry.error is not None:
            raise entry.error
        return cast(T, entry.result)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction of the connection that is kept for all of them: one thread leads at a time, and it alone uses
        it. To fetch one from the pool each time takes longer than to begin and to commit."""
        connection = self._kept or self._writer.connect()
        self._kept = connection
        try:
            with connection.begin():
                yield connection
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Give the connection back to the pool, which looks after one that has failed."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def _on_disposed(self, _engine: object) -> None:
        """Close the connection with those of the pool, unless a thread writes by it; a child after a fork forgets it,
        without closing its parent's."""
        if self._is_led:
            return
        kept, self._kept = self._kept, None
        if kept is not None and self._process == os.getpid():
            kept.detach()
            kept.close()

    def _lead(self) -> None:
        """Write what waits, let the next thread lead, and wake those whose commands are done."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(_MOST_TOGETHER, len(self._waiting)))]
        try:
            self._write_together(group)
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._is_led = following is not None
            if following is not None:
                following.wake.release()
            for entry in group:
                entry.done = True
                entry.wake.release()

    def _write_together(self, group: list[_Entry]) -> None:
        if len(group) > 1:
            try:
                results = super().write(_run, group)
            except _CommandError:
                pass  # which one it was shows when each runs alone
            except BaseException as error:
                _fail(group, error)
                return
            else:
                for entry, result in zip(group, results, strict=True):
                    entry.result = result
                return
        for entry in group:
            try:
                entry.result = super().write(entry.command)
            except BaseException as error:
                _fail([entry], error)


def _run(connection: Connection, group: list[_Entry]) -> list[Any]:
    try:
        return [entry.command(connection) for entry in group]
    except Exception as error:
        raise _CommandError from error


def _fail(group: list[_Entry], error: BaseException) -> None:
    for entry in group:
        entry.error = error
