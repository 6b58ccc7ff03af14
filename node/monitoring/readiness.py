"""Whether the node can do its work: the probe ``/readyz``, and the parts that ``/metrics`` tells of."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

from config.settings import Settings
from db.database import Database
from db.engine import schema_problem
from db.queries.statistics import Remembered
from node.monitoring.broker_health import check_broker, embedded_broker_runs
from node.monitoring.health import check_models
from node.monitoring.parts import LISTENER, part_names
from workers.worker_id import occupied_places


class Readiness:
    """Checks that take no more than some milliseconds, because a probe asks every few seconds."""

    def __init__(self, settings: Settings, database: Database, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._database = database
        self.parts = part_names(settings)
        """Parts that are processes of their own."""
        # To compare the digests of models, all their files are read.
        self._models = Remembered(lambda: check_models(settings).ok, elapsed)

    def checks(self) -> dict[str, bool]:
        """What must be right so that a study that is sent now is accepted and analysed."""
        return {
            "database": self.database(),
            "broker": self.broker(),
            "listener": LISTENER in occupied_places(self._settings.store.folder).values(),
            "store": self.store(),
            "models": self._models.get(),
        }

    def database(self) -> bool:
        """The database answers, and its schema is this version's."""
        return schema_problem(self._database.engine) is None

    def broker(self) -> bool:
        """The broker runs and takes messages."""
        if self._settings.broker.url is None:
            return embedded_broker_runs(self._settings)
        return check_broker(self._settings).ok

    def store(self) -> bool:
        """The store can be written, and C-STORE is not refused for lack of space."""
        folder, limit = self._settings.store.folder, self._settings.store.minimum_free_bytes
        return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= limit
