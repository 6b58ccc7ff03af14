"""Opens the database of a part of a node: waits while it is down, and shows why."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings
from db.connection_problem import connection_problem
from db.engine import BEFORE_RELEASE_REMEDY, connect, look_at_schema, made_before_release, migrate
from db.errors import DatabaseURLError
from db.instances import is_any_known
from workers.store_files import INSTANCES, is_away

ShowMessage = Callable[[str], None]

_PAUSE_SECONDS = 2.0


_MAY_PASS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN})


class ServeError(RuntimeError):
    """The node, or a part of it, cannot start; the message says how to fix it.

    ``exit_code`` is EX_CONFIG where no other start can help, or EX_UNAVAILABLE where one may: a service manager tries
    it then.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.exit_code = os.EX_UNAVAILABLE if passing else os.EX_CONFIG


def store_problem(folder: Path, error: OSError) -> ServeError:
    """The store folder cannot be used: the configuration is wrong, or its disk or file server is full or away."""
    message = f"store.folder {folder} cannot be written: {error.strerror}"
    return ServeError(message, passing=error.errno in _MAY_PASS)


def demand_own_store(folder: Path, engine: Engine) -> None:
    """Look whether the store is the one that belongs to the database, before a new one is begun in its place.

    Raises:
        ServeError: what the database knows was received into another one, or into one that is not mounted.
    """
    if not is_away(folder):
        return
    with engine.connect() as connection:
        known = is_any_known(connection)
    if known:
        message = (
            f"store.folder {folder} has no folder {INSTANCES}, and the database knows images in it: mount its file"
            f" system or correct store.folder; if these files are lost for good, make {folder / INSTANCES}"
        )
        raise ServeError(message, passing=True)


def _refuse_another_schema(engine: Engine) -> None:
    problem = look_at_schema(engine)
    if problem is not None and not problem.migrates:
        raise ServeError(problem.sentence)
    if problem is None and (lacks := made_before_release(engine)):
        where = engine.url.render_as_string()
        raise ServeError(f"the database {where} cannot be used, {lacks}; {BEFORE_RELEASE_REMEDY}")


def open_database(settings: Settings, stop: threading.Event, show: ShowMessage) -> bool:
    """Wait for the database, and create or migrate its tables; False where ``stop`` was set before.

    Raises:
        ServeError: it can never be used so: a wrong password, no such database, a newer schema, or one of before the
            first release. Whatever is not known to need a person is waited for.
    """
    try:
        if settings.database.url is None:
            settings.store.folder.mkdir(parents=True, exist_ok=True)
        engine = connect(settings.database_url)
    except DatabaseURLError as error:
        raise ServeError(f"{error}; correct database.url") from error
    except OSError as error:
        raise store_problem(settings.store.folder, error) from error
    last_message = ""
    try:
        while not stop.is_set():
            try:
                _refuse_another_schema(engine)
                migrate(engine, stop)
            except SQLAlchemyError as error:
                found = connection_problem(error, engine.url)
                if not found.passing:
                    raise ServeError(str(found)) from error
                if str(found) != last_message:
                    last_message = str(found)
                    show(f"Waiting for the database: {last_message}")
                stop.wait(_PAUSE_SECONDS)
            else:
                return True
        return False
    finally:
        engine.dispose()
