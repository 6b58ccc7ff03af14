"""A node's admin page on a database of made-up studies, with a clock that stands still and a task queue that is
heard.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from starlette.applications import Starlette
from starlette.testclient import TestClient

from config.destinations import Destination
from config.settings import Settings
from db.users import Accounts
from models.contract import Finding, ModelInput, Prediction
from models.model_spec import Code
from node.openid import Provider
from node.web.app import create_app, create_services
from node.web.dependencies import Services
from node.web.image_reader import Readers, ReadingLimits
from tests.fakes import RecordingTaskQueue
from tests.node.web.demo import CASES, PASSWORD, Demo, region, settings_for
from workers.services.trial_delivery import TrialDelivery

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
USERS = {"viewer": "vera", "radiologist": "rosa", "admin": "ada"}
FEW = (CASES[0], CASES[2], CASES[4])


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


def predict_pneumothorax(model_input: ModelInput, _models: object = None) -> Prediction:
    """Find a pneumothorax in everything."""
    mask = region("pneumothorax", model_input.shape)
    code = Code("36118008", "SCT", "Pneumothorax")
    finding = Finding("pneumothorax", code, "chest-classifier", 0.9, 0.5, mask=mask)
    return Prediction(model_input.shape, (finding,))


@dataclass
class Site:
    """The page and what is behind it."""

    app: Starlette
    demo: Demo
    clock: Clock
    task_queue: RecordingTaskQueue
    studies: list[int]
    echoed: list[str] = field(default_factory=list)
    on_disk: list[Callable[[], Settings]] = field(default_factory=list)
    """How the settings are read again; the last one counts."""

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    @property
    def settings(self) -> Settings:
        return self.services.settings

    def user(self, address: str = "127.0.0.1") -> TestClient:
        """Somebody who has not logged in."""
        return TestClient(self.app, base_url="http://node", client=(address, 50000), follow_redirects=False)

    def logged_in(self, role: str) -> TestClient:
        """The user of that role, logged in by the form; unsafe requests carry the CSRF token by themselves."""
        client = self.user()
        answer = log_in(client, USERS[role])
        assert answer.status_code == 303, answer.text
        client.headers["x-csrf-token"] = csrf_of(client)
        return client


def log_in(client: TestClient, name: str, password: str = PASSWORD):
    form = client.get("/login").text
    found = re.search(r'name="login_token" value="([^"]+)"', form)
    assert found, form
    return client.post("/login", data={"login_token": found[1], "name": name, "password": password, "next": "/"})


def csrf_of(client: TestClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/account").text)
    assert found
    return found[1]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three studies and three users, to copy."""
    folder = tmp_path_factory.mktemp("node") / "store"
    demo = Demo(folder)
    demo.add_users(Accounts(demo.engine, CHEAP))
    demo.fill(NOW, FEW)
    demo.engine.dispose()
    return folder


@cache
def readers() -> Readers:
    """The processes that read images, shared by all sites of a test run."""
    made = Readers(ReadingLimits(settings_for(Path()).admin.upload_bytes))
    atexit.register(made.__exit__)
    return made


def make_site(filled: Path, folder: Path, openid: Provider | None = None, **admin: Any) -> Site:
    import shutil

    shutil.copytree(filled, folder, dirs_exist_ok=True)
    demo, clock, task_queue = Demo(folder), Clock(), RecordingTaskQueue()
    echoed: list[str] = []

    def echo(destination: Destination) -> str | None:
        echoed.append(destination.name)
        return None if destination.name == "archive" else "connection refused"

    settings = settings_for(folder, **admin)
    on_disk: list[Callable[[], Settings]] = [lambda: settings]

    def send_test_object(destination: Destination) -> TrialDelivery:
        taken = destination.name == "archive"
        return TrialDelivery(destination.name, taken, "" if taken else "connection refused", "2.25.1", "2.25.2")

    services = create_services(
        settings,
        demo.database,
        demo.engine,
        task_queue=task_queue,
        clock=clock,
        load_image_predictor=lambda: predict_pneumothorax,
        echo=echo,
        send_test_object=send_test_object,
        readers=readers(),
        accounts=Accounts(demo.engine, CHEAP),
        reload=lambda: on_disk[-1](),
        openid=openid,
    )
    return Site(create_app(services), demo, clock, task_queue, [1, 2, 3], echoed, on_disk)


@pytest.fixture
def site(filled: Path, tmp_path: Path) -> Iterator[Site]:
    made = make_site(filled, tmp_path / "store")
    yield made
    made.demo.engine.dispose()
