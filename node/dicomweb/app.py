"""The DICOMweb server: composition root.

It is a process of its own, with a spool folder and a port of its own: a flood of uploads takes no thread of the admin
page, no association of the listener, and no memory but its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from config.dicomweb import DicomWebServer
from config.settings import Settings
from db.users import Accounts
from node.dicom.own_results import OwnResults
from node.dicom.receiver_tools import open_receiver_tools, quieten
from node.dicomweb.request_context import ROOT, Services, problem
from node.dicomweb.routes import endpoints
from node.web.connection_limits import Deadlines, Limits
from node.web.server import ServerRules, run_server
from workers.clock import utc_now
from workers.tls import ServerContexts, page_contexts
from workers.worker_id import at_place

PART = "dicomweb"
SPOOL = "spool-dicomweb"
_DEADLINES = Deadlines(header=10.0)
_TOTAL, _WAITING, _WAITING_OF_ONE_ADDRESS = 200, 32, 16


def create_app(services: Services) -> Starlette:
    """Make the application on an open store and database."""
    routes = [Route(each.path, each.bound(services), methods=[each.method]) for each in endpoints()]
    return Starlette(
        routes=[Mount(ROOT, routes=routes)],
        exception_handlers={HTTPException: _http_error, 500: _internal_error},
    )


async def _http_error(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, dict(error.headers or {}))


async def _internal_error(request: Request, error: Exception) -> Response:
    del request, error  # uvicorn logs it with its traceback
    return problem(500, "internal error; see the log of the DICOMweb server")


def run_dicomweb(settings: Settings, ready: Callable[[int], None], stop: threading.Event) -> None:
    """Serve until ``stop`` is set; ``ready`` is called with the port once it is listening.

    Raises:
        OSError: the store cannot be written, the address cannot be bound, or a file for TLS cannot be used.
    """
    quieten()
    with open_receiver_tools(settings, SPOOL) as tools, at_place(settings.store.folder, PART):
        accounts = Accounts(tools.database.engine)
        results = OwnResults(settings, tools.database)
        services = Services(settings, tools.database, accounts, tools, results, utc_now)
        run_server(create_app(services), _server_rules(settings), ready, stop)


def _server_rules(settings: Settings) -> ServerRules:
    rules = settings.dicomweb
    proxies = settings.admin.trusted_proxies
    limits = Limits(_TOTAL, rules.connections_per_address, _WAITING, _WAITING_OF_ONE_ADDRESS, proxies)
    return ServerRules(rules.host, rules.port, limits, _DEADLINES, server_tls(rules))


def server_tls(rules: DicomWebServer) -> ServerContexts | None:
    """The TLS of the server; None where it has no certificate.

    Raises:
        OSError: a file cannot be read or used.
    """
    if rules.tls_certificate is None:
        return None
    return page_contexts(rules.tls_certificate, rules.tls_key, rules.tls_client_ca, "DICOMweb server")
