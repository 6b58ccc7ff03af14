"""The admin page: composition root and server."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from config.destinations import Destination
from config.logging import keeping_warnings
from config.openid import OpenID
from config.settings import Admin, Settings
from db import model_states
from db.audit import AuditTrail
from db.database import Database
from db.engine import connect, migrate
from db.queries.metrics import waiting
from db.queries.monitoring import ModelMonitoring
from db.queries.statistics import TABLE_REST, Remembered, Statistics
from db.queries.system import growth
from db.queries.worklist import Worklist
from db.users import Accounts
from models.contract import ModelInput, Prediction
from node.monitoring.drift import Counts
from node.monitoring.metrics import NodeMetrics
from node.monitoring.parts import PartsWatch
from node.monitoring.queue_health import unserved_here
from node.monitoring.readiness import Readiness
from node.web.api_app import create_api
from node.web.connection_limits import Deadlines, limits_from
from node.web.dependencies import Services
from node.web.event_stream import EventStream
from node.web.image_reader import Readers, ReadingLimits
from node.web.middleware import Endpoint, SecurityHeaders, problem, render
from node.web.page_templates import PageTemplates
from node.web.rendering import Radiographs
from node.web.routes import API, api_operations, page_endpoints
from node.web.server import ServerRules, run_server
from node.web.translatable import gettext_noop
from node.web.trend_cache import TrendCache
from node.web.trials import Predict, Trials, TrialTools
from workers.destinations.destination_kind import PeerError
from workers.destinations.destination_kinds import destination_kinds
from workers.enqueue import TaskQueue
from workers.services.trial_delivery import TrialDelivery, send_trial_object
from workers.tls import page_contexts
from workers.worker_id import PART, WARNINGS, host_name

if TYPE_CHECKING:
    from node.openid import Provider

log = logging.getLogger("pleura.admin")
_HERE = Path(__file__).parent
_REMOVE_SECONDS = 30.0
_LOOK_SECONDS = 10.0


def create_services(
    settings: Settings,
    database: Database,
    engine: Engine,
    *,
    task_queue: TaskQueue,
    clock: Callable[[], datetime],
    load_image_predictor: Callable[[], Predict],
    echo: Callable[[Destination], str | None],
    send_test_object: Callable[[Destination], TrialDelivery],
    readers: Readers,
    accounts: Accounts | None = None,
    reload: Callable[[], Settings] | None = None,
    openid: Provider | None = None,
) -> Services:
    """The services of the handlers, on an open database.

    ``reload`` reads the settings again, as a restart would. ``openid`` is the provider of log-ins beside passwords.
    """
    statistics, counts = Statistics(engine), Counts(ModelMonitoring(engine))
    readiness = Readiness(settings, database)
    return Services(
        settings=settings,
        reload=reload or (lambda: settings),
        engine=engine,
        database=database,
        accounts=accounts or Accounts(engine),
        audit=AuditTrail(engine),
        worklist=Worklist(engine),
        statistics=statistics,
        counts=counts,
        metrics=NodeMetrics(settings, database, statistics, counts, readiness, clock),
        readiness=readiness,
        parts=PartsWatch(settings.store.folder, clock),
        growth=Remembered(lambda: database.read(growth, clock()), time.monotonic, rest=TABLE_REST),
        unserved=Remembered(lambda: unserved_here(settings, database.read(waiting), clock()), time.monotonic),
        trends=TrendCache(database, clock, settings.site.zone),
        task_queue=task_queue,
        templates=PageTemplates(settings),
        event_stream=EventStream(statistics.news),
        radiographs=Radiographs(settings.store.folder, readers.store.read_stored),
        trials=Trials(TrialTools(readers.uploads, load_image_predictor, settings)),
        echo=echo,
        send_test_object=send_test_object,
        clock=clock,
        openid=openid,
    )


def create_app(services: Services) -> Starlette:
    """The application: pages, JSON API and static files; ``app.state`` holds services, API and navigation."""
    on_error: dict[Any, Callable[[Request, Exception], Response]] = {
        HTTPException: _http_error(services),
        SQLAlchemyError: _database_error(services),
        500: _internal_error(services),
    }
    api = create_api(services, api_operations(), API, on_error)
    endpoints = page_endpoints(services.settings.admin.upload_bytes)
    app = Starlette(
        routes=[
            *(_route(endpoint, services) for endpoint in endpoints),
            Mount(API, api, name="api"),
            Mount("/static", _static(), name="static"),
        ],
        middleware=[Middleware(SecurityHeaders, settings=services.settings.admin)],
        exception_handlers=on_error,
        lifespan=_lifespan(services),
    )
    app.state.services = services
    app.state.api = api
    app.state.navigation = tuple(endpoint for endpoint in endpoints if endpoint.title)
    return app


def _route(endpoint: Endpoint, services: Services) -> Route:
    return Route(endpoint.path, endpoint.as_asgi(services), methods=[endpoint.method])


def _static() -> StaticFiles:
    return StaticFiles(directory=_HERE / "static")


def _http_error(services: Services) -> Callable[[Request, Exception], Response]:
    """Answer an HTTPException of a handler: a page for people, JSON for programs."""

    def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405 and request.method == "GET" and not request.url.path.startswith("/api/"):
            # The address of a form's answer, entered or restored: the page that has the form.
            return RedirectResponse(_page_above(request.url.path), 303)
        return _error(services, request, error.status_code, error.detail)

    return answer


def _page_above(path: str) -> str:
    """The page with the form that is sent to ``path``."""
    first, _, rest = path.strip("/").partition("/")
    if first == "studies":
        return f"/studies/{rest.partition('/')[0]}"
    return {"tokens": "/users", "logout": "/", "worklist": "/"}.get(first, f"/{first}")


def _database_error(services: Services) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        log.error("the database cannot be used: %s", type(error).__name__)
        message = gettext_noop("the database cannot be reached")
        return _error(services, request, 503, message, database_is_down=True)

    return answer


def _internal_error(services: Services) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        del error  # uvicorn logs it with its traceback
        return _error(services, request, 500, gettext_noop("internal error; see the log of the admin page"))

    return answer


def _error(
    services: Services, request: Request, status: int, detail: str, *, database_is_down: bool = False
) -> Response:
    if request.url.path.startswith("/api/"):
        return problem(status, detail)
    values = {"status": status, "detail": detail, "database_is_down": database_is_down, "who": None}
    return render(request, services, "error.html", status, values)


def _lifespan(services: Services) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        steady = [asyncio.create_task(task(services)) for task in (_remove_expired_trials, _watch_parts)]
        yield
        for task in steady:
            task.cancel()
        services.event_stream.close()

    return lifespan


async def _remove_expired_trials(services: Services) -> None:
    """Remove expired trials at regular intervals."""
    while True:
        await asyncio.sleep(_REMOVE_SECONDS)
        services.trials.remove_expired(services.clock())


async def _watch_parts(services: Services) -> None:
    """Look at the parts of the node at regular intervals, so that the page can say when one was last seen."""
    while True:
        try:
            await asyncio.to_thread(services.parts.look)
        except OSError as error:
            log.warning("the parts of the node cannot be seen: %s", error)
        await asyncio.sleep(_LOOK_SECONDS)


def call(settings: Settings, destination: Destination) -> str | None:
    """C-ECHO to ``destination``; the problem as text, or None if it answers and supports the set verification."""
    kind = destination_kinds(settings)[destination.kind]
    try:
        kind.verify(destination, settings.listener.ae_title)
        kind.check_verification(destination, settings.listener.ae_title)
    except PeerError as error:
        return str(error)
    return None


def run_admin(
    settings: Settings,
    ready: Callable[[int], None],
    stop: threading.Event,
    reload: Callable[[], Settings] | None = None,
) -> None:
    """Serve the admin page until ``stop`` is set; ``ready`` is called with the port once it is listening.

    With ``reload``, which reads the settings again, the page says what waits for a restart.

    Raises:
        OSError: The address cannot be bound, or a file for TLS cannot be used.
    """
    from workers.composition import equipment_of
    from workers.open_database import database_of

    settings.store.folder.mkdir(parents=True, exist_ok=True)
    engine = connect(settings.database_url)
    migrate(engine)
    task_queue = TaskQueue(settings.broker_url)
    database = database_of(settings, engine)
    warnings = settings.store.folder / f"{PART}-{host_name()}-admin-0{WARNINGS}"
    with keeping_warnings(warnings), Readers(ReadingLimits(settings.admin.upload_bytes)) as readers:
        services = create_services(
            settings,
            database,
            engine,
            task_queue=task_queue,
            clock=lambda: datetime.now(UTC),
            load_image_predictor=lambda: load_image_predictor(settings, database),
            echo=lambda destination: call(settings, destination),
            send_test_object=lambda destination: send_trial_object(
                settings, destination, destination_kinds(settings), equipment_of(settings), datetime.now(UTC)
            ),
            readers=readers,
            reload=reload,
            openid=_provider(settings.admin.openid),
        )
        app = create_app(services)
        run_server(app, _server_rules(settings.admin), ready, stop, services.event_stream.close)
    task_queue.close()
    engine.dispose()


def _server_rules(admin: Admin) -> ServerRules:
    tls = None if admin.tls_certificate is None else page_contexts(admin.tls_certificate, admin.tls_key)
    return ServerRules(admin.host, admin.port, limits_from(admin), Deadlines(admin.header_timeout_seconds), tls)


def _provider(openid: OpenID) -> Provider | None:
    """The provider of log-ins. Its libraries are an extra, so they are imported only where it is enabled."""
    if not openid.enabled:
        return None
    from node.openid import Provider

    return Provider(openid, time.monotonic)


def load_image_predictor(settings: Settings, database: Database) -> Predict:
    """Load the active pipeline on the CPU: the page must not use a worker's GPU.

    Model states that users have set apply here too.
    """
    from models.predictor import load_predictor
    from workers.model_state_resolver import ModelStateResolver
    from workers.pipeline_digest import activated_pipeline, active_pipeline

    loaded = load_predictor(active_pipeline(settings), device="cpu", threads=settings.workers.threads)
    resolver = ModelStateResolver(loaded, activated_pipeline(settings))

    def predict(image: ModelInput, models: Collection[str] | None) -> Prediction:
        predictor = resolver.resolve(database.read(model_states.current_states)).predictor
        return (predictor if models is None else predictor.only(models)).predict(image)

    return predict
