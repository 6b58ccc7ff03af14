"""Who asks the DICOMweb server: API tokens alone, as Bearer or as the password of HTTP Basic. No sessions, no cookies.

So no page of another site can make a browser send a request with the rights of its user.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from config.settings import Settings
from db.database import Database
from db.user_tables import Role
from db.users import Accounts
from node.dicom.own_results import OwnResults
from node.dicom.receiver_tools import ReceiverTools
from node.web.authentication import Principal, origin_of
from workers.clock import Clock

ROOT = "/dicom-web"
"""Where the services begin."""

log = logging.getLogger(__name__)
_CHALLENGE = {"WWW-Authenticate": 'Bearer, Basic realm="Pleura DICOMweb", charset="UTF-8"'}


@dataclass(slots=True)
class Services:
    """Everything that a handler may use; ``uploads`` is the number of requests that store at this moment."""

    settings: Settings
    database: Database
    accounts: Accounts
    tools: ReceiverTools
    results: OwnResults
    clock: Clock
    uploads: int = 0


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request with a valid token: who sends it, and from where."""

    request: Request
    services: Services
    principal: Principal
    address: str


Handler = Callable[[RequestContext], Response] | Callable[[RequestContext], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One entry of the table of routes: method, path below the root, handler and the role that it needs.

    A handler that is no coroutine runs in a thread.
    """

    method: str
    path: str
    handler: Handler
    role: Role

    def bound(self, services: Services) -> Callable[[Request], Awaitable[Response]]:
        """What Starlette calls: admits a request before a byte of its body is read."""

        async def answer(request: Request) -> Response:
            address = origin_of(request, services.settings.admin.trusted_proxies).address
            try:
                principal = await run_in_threadpool(_principal_of, request, services)
                if principal is None:
                    return problem(401, "an API token is needed", _CHALLENGE)
                if not principal.may(self.role):
                    return problem(403, f"this needs a token with the role {self.role.value}")
                context = RequestContext(request, services, principal, address)
                if inspect.iscoroutinefunction(self.handler):
                    return cast(Response, await self.handler(context))
                return cast(Response, await run_in_threadpool(self.handler, context))
            except SQLAlchemyError as error:
                log.error("the database cannot be used: %s", type(error).__name__)
                return problem(503, "the database cannot be reached", {"Retry-After": "60"})

        return answer


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error, in one shape."""
    return JSONResponse({"detail": detail}, status, headers)


def _principal_of(request: Request, services: Services) -> Principal | None:
    name, secret = _credentials(request.headers.get("authorization", ""))
    token = services.accounts.token(secret, services.clock()) if secret else None
    if token is None or name.lower() not in ("", token.name.lower()):
        return None
    return Principal(f"token:{token.name}", token.name, token.role)


def _credentials(header: str) -> tuple[str, str]:
    """The name of a token, which Bearer does not tell, and its secret; empty where there is none."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() == "bearer":
        return "", given.strip()
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, secret = base64.b64decode(given.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, secret
