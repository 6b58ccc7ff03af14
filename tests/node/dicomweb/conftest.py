"""A real DICOMweb server in a thread: its own port, store and database, and a token of each role."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session
from sqlalchemy import Engine, text

from config.destinations import Destination
from config.settings import Settings
from db.engine import connect
from db.queries.own_results import OwnResult, ResultKeys
from db.user_tables import Role
from db.users import Accounts
from node.dicom.own_results import OwnResults
from node.dicomweb.app import SPOOL, run_dicomweb
from tests.migrated import migrate
from tests.node.web.demo import CASES, Demo
from workers.clock import utc_now

SENDER = "MODALITY_1"
VIEWERS = {"name": "viewers", "kind": "on-request", "kinds": ("seg", "sr", "sc", "gsps", "lungs")}
SHOWN = (CASES[0], replace(CASES[6], description="Chest PA, 100%"), replace(CASES[1], fate="on_hold"))


@dataclass
class DicomWeb:
    """The running server, and what a test looks at."""

    port: int
    settings: Settings
    engine: Engine
    tokens: dict[Role, str]
    results: list[OwnResult] = field(default_factory=list)
    root: str = ""

    @property
    def url(self) -> str:
        """The root of the services."""
        return self.root or f"http://127.0.0.1:{self.port}/dicom-web"

    def client(self, role: Role) -> DICOMwebClient:
        """dicomweb-client with the token of a role."""
        session = create_session()
        session.headers["Authorization"] = f"Bearer {self.tokens[role]}"
        return DICOMwebClient(self.url, session=session)

    def rows(self, what: str = "sop_instance_uid") -> list[Any]:
        """One column, or several, of the recorded instances."""
        with self.engine.connect() as connection:
            found = connection.execute(text(f"select {what} from instances order by id")).all()
        return [row[0] if len(row) == 1 else tuple(row) for row in found]

    def leftovers(self) -> list[Path]:
        """Files that were not received to their end."""
        return list((self.settings.store.folder / SPOOL).iterdir())


def with_results(folder: Path) -> list[OwnResult]:
    """Fill a store with results that may be asked for: three studies of the demonstration, one of them on hold."""
    demo = Demo(folder)
    demo.kinds = frozenset(VIEWERS["kinds"])
    demo.settings = demo.settings.model_copy(update={"destinations": (Destination.model_validate(VIEWERS),)})
    demo.fill(datetime(2026, 3, 1, 3, 0, tzinfo=UTC), SHOWN)
    results = OwnResults(demo.settings, demo.database).objects(ResultKeys())
    demo.engine.dispose()
    return list(results)


@contextmanager
def running_dicomweb(folder: Path, **changes: Any) -> Iterator[DicomWeb]:
    """Run the server until the end of the block."""
    store = {"folder": folder, **changes.pop("store", {})}
    web = {"enabled": True, "port": 0, **changes.pop("dicomweb", {})}
    settings = Settings.model_validate({"store": store, "dicomweb": web, **changes})
    folder.mkdir(parents=True, exist_ok=True)
    engine = connect(settings.database_url)
    migrate(engine)
    accounts = Accounts(engine)
    tokens = {
        role: accounts.add_token(SENDER if role is Role.SENDER else role.value, role, utc_now(), actor="test")[1]
        for role in Role
    }
    stop, ready, port = threading.Event(), threading.Event(), []

    def is_ready(number: int) -> None:
        port.append(number)
        ready.set()

    thread = threading.Thread(target=run_dicomweb, args=(settings, is_ready, stop), daemon=True)
    thread.start()
    try:
        assert ready.wait(60), "the server does not start"
        yield DicomWeb(port[0], settings, engine, tokens)
    finally:
        stop.set()
        thread.join(30)
        engine.dispose()


@pytest.fixture(scope="package")
def dicomweb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DicomWeb]:
    """One server for the tests of this folder; each sends instances of its own."""
    folder = tmp_path_factory.mktemp("dicomweb")
    results = with_results(folder)
    with running_dicomweb(folder, destinations=[VIEWERS]) as running:
        running.results = results
        yield running
