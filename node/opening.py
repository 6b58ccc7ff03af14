"""Opens the database of a part of a node: waits while it is down, and shows why."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings
from db.connection_problem import connection_problem
from db.engine import connect, migrate, schema_problem
from db.errors import DatabaseURLError

ShowMessage = Callable[[str], None]

_PAUSE_SECONDS = 2.0


class ServeError(RuntimeError):
    """The node, or a part of it, cannot start; the message says how to fix it."""


def open_database(settings: Settings, stop: threading.Event, show: ShowMessage) -> bool:
    """Wait for the database, and create or migrate its tables; False where ``stop`` was set before.

    Raises:
        ServeError: it can never be used so: a wrong password, no such database, a newer schema.
    """
    try:
        if settings.database.url is None:
            settings.store.folder.mkdir(parents=True, exist_ok=True)
        engine = connect(settings.database_url)
    except DatabaseURLError as error:
        raise ServeError(f"{error}; correct database.url") from error
    except OSError as error:
        raise ServeError(f"store.folder {settings.store.folder} cannot be written: {error.strerror}") from error
    last_message = ""
    try:
        while not stop.is_set():
            try:
                engine.connect().close()
                if (problem := schema_problem(engine)) is not None and "`pleura serve`" not in problem:
                    raise ServeError(problem)
                migrate(engine)
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
