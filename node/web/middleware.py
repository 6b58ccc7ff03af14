"""Middleware of every handler: authentication, authorisation, protection against forged forms, security headers.

A handler is a function from a :class:`RequestContext` to a response. It runs in a thread, so that it may query the
database; a coroutine runs in the event loop. Roles and forged forms are handled here and not in the handlers.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.settings import Admin
from db.audit import AuditEntry
from db.audit_events import VIEW_STUDY
from db.user_tables import Role
from db.users import User
from node.web.authentication import Principal, csrf_matches, origin_of, principal_of, same_site
from node.web.formatting import Formatting
from node.web.languages import Language, language_of
from node.web.translatable import gettext_noop
from workers.services.actions import Actions

if TYPE_CHECKING:
    from node.web.dependencies import Services

SMALL_BODY = 64 * 1024
SAFE_METHODS = ("GET", "HEAD")
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def whole_number(given: str, digits: int = 7) -> int | None:
    """A number from a query or a form, of so many digits at most; None where it is none."""
    return int(given) if given.isascii() and given.isdigit() and len(given) <= digits else None


@dataclass(frozen=True)
class RequestContext:
    """One request with everything that a handler needs to answer it."""

    request: Request
    services: Services
    now: datetime
    address: str
    secure: bool
    principal: Principal | None = None
    form: FormData = field(default_factory=FormData)

    @property
    def who(self) -> Principal:
        """The principal. Handlers of routes without a role must not use it."""
        assert self.principal is not None
        return self.principal

    @property
    def actor(self) -> str:
        """Name of the principal in the audit trail and the history."""
        return self.who.name

    @property
    def actions(self) -> Actions:
        """The actions on studies and models, by the user of this request."""
        services = self.services
        return Actions(services.settings, services.database, services.task_queue, self.actor, self.now, self.address)

    def number(self, name: str) -> int:
        """A row number in the path (the router accepts digits only); one too large for the database is answered 404."""
        value = int(self.request.path_params[name])
        if value > 2**31 - 1:
            raise HTTPException(404)
        return value

    def field(self, name: str, default: str = "") -> str:
        """A text field of the form."""
        value = self.form.get(name, default)
        return value if isinstance(value, str) else default

    def query(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self.request.query_params.get(name, default)

    @property
    def formatting(self) -> Formatting:
        """Formatting of values for the user of this request."""
        return self.services.templates.formatting(page_language(self.request, self.services))

    def page(self, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """Render a template; it always gets the principal and the time."""
        values = {"context": self, "who": self.principal, "now": self.now, **context}
        return render(self.request, self.services, template, status, values)

    def audit(self, action: str, subject: str = "", study_id: int | None = None, detail: str = "") -> None:
        """Write an entry of the audit trail."""
        entry = AuditEntry(self.now, self.actor, action, subject, study_id, self.address, detail)
        self.services.audit.add(entry)

    def viewed(self, study_id: int, what: str = "") -> None:
        """Write to the audit trail that a study is seen: its page each time, ``what`` belongs to it once in a while."""
        if self.services.views.note(self.actor, study_id, self.now) or not what:
            self.audit(VIEW_STUDY, "study", study_id, what)


def page_language(request: Request, services: Services) -> Language:
    """The language of a page: the user's choice, else that of the browser, else the site's."""
    user: User | None = getattr(request.state, "user", None)
    accepted = request.headers.get("accept-language", "")
    return language_of(user.language if user else "", accepted, services.settings.site.language)


def render(request: Request, services: Services, template: str, status: int, values: Mapping[str, Any]) -> HTMLResponse:
    """A page in the language and theme of the user; an empty theme is that of the browser."""
    user: User | None = getattr(request.state, "user", None)
    who: Principal | None = values["who"]
    navigation = [one for one in request.app.state.navigation if who is not None and who.may(one.role)]
    made = services.templates.of(page_language(request, services)).get_template(template)
    theme = user.theme if user else ""
    page = made.render(theme=theme, user=user, path=request.url.path, navigation=navigation, **values)
    return HTMLResponse(page, status)


Handler = Callable[[RequestContext], Response] | Callable[[RequestContext], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """One route with the least role that may use it (``None``: no log-in needed) and its limits.

    ``title``: its entry in the navigation; without one it has none. ``api``: errors are answered as JSON. ``probe``:
    nobody asks who asks, so it answers without the database, too. ``body_limit``: maximum size of a request body in
    bytes. ``at_once``: maximum number of requests that hold a body and a thread at the same time; one more is answered
    503.
    """

    method: str
    path: str
    handler: Handler
    role: Role | None
    title: str = ""
    api: bool = False
    probe: bool = False
    body_limit: int = SMALL_BODY
    at_once: int | None = None

    def as_asgi(self, services: Services) -> Callable[[Request], Awaitable[Response]]:
        """The function that the router calls."""
        under_way = 0

        async def answer(request: Request) -> Response:
            nonlocal under_way
            if self.at_once is not None and under_way >= self.at_once:
                raise HTTPException(503, gettext_noop("too many requests are being handled; try again in a moment"))
            under_way += 1
            try:
                return await self._answer(request, services)
            finally:
                under_way -= 1

        return answer

    async def _answer(self, request: Request, services: Services) -> Response:
        context = await admit(request, services, self.role, api=self.api, probe=self.probe)
        if isinstance(context, Response):
            return context
        if request.method not in SAFE_METHODS:
            try:
                form = await _form(limited(request, self.body_limit))
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is there to read it
            context = replace(context, form=form)
            refuse_forged(context, request.headers.get("x-csrf-token") or context.field("csrf"))
        if inspect.iscoroutinefunction(self.handler):
            return cast(Response, await self.handler(context))
        return cast(Response, await run_in_threadpool(self.handler, context))


async def admit(
    request: Request, services: Services, role: Role | None, *, api: bool = False, probe: bool = False
) -> RequestContext | Response:
    """Authenticate and authorise a request before its body is read; a response if it is denied.

    Raises:
        HTTPException: 403, the role is not sufficient or an unsafe request comes from another site.
    """
    now = services.clock()
    settings = services.settings.admin
    origin = origin_of(request, settings.trusted_proxies)
    principal = None if probe else await run_in_threadpool(principal_of, request, services.accounts, settings, now)
    request.state.user = principal.user if principal else None  # an error page is in the user's language, too
    if role is not None:
        denied = _denied(request, principal, role, api)
        if denied is not None:
            return denied
    if request.method not in SAFE_METHODS and not same_site(request):
        raise HTTPException(403, gettext_noop("this request comes from another site"))
    return RequestContext(request, services, now, origin.address, origin.secure, principal)


def refuse_forged(context: RequestContext, csrf: str) -> None:
    """Refuse an unsafe request of a session without its CSRF token; an API token needs none.

    Raises:
        HTTPException: 403.
    """
    principal = context.principal
    if principal is not None and principal.user is not None and not csrf_matches(csrf, principal.csrf):
        raise HTTPException(403, gettext_noop("this form is not from your session; reload the page and try again"))


def _denied(request: Request, principal: Principal | None, role: Role, api: bool) -> Response | None:
    if principal is None and api:
        return problem(401, "a token or a log-in is needed", {"WWW-Authenticate": "Bearer"})
    if principal is None:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        back = f"?{urlencode({'next': wanted})}" if request.method == "GET" and wanted != "/" else ""
        return RedirectResponse(f"/login{back}", 303)
    if not principal.may(role):
        raise HTTPException(403, f"this needs the role {role.value}; your role is {principal.role.value}")
    return None


class _InMemory(MultiPartParser):
    """Starlette's parser without temporary files; by default it writes files of more than a megabyte to one.

    The limit on the whole body (:func:`limited`) bounds the memory.
    """

    spool_max_size = 0  # SpooledTemporaryFile: never roll over to a file on disk


async def _form(request: Request) -> FormData:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await request.form(max_fields=32, max_part_size=SMALL_BODY)
    parser = _InMemory(request.headers, request.stream(), max_files=1, max_fields=32, max_part_size=SMALL_BODY)
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error


def limited(request: Request, limit: int) -> Request:
    """The same request; it fails with 413 once more than ``limit`` bytes of its body have been read."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > limit:
        raise HTTPException(413, f"the request is larger than {limit} bytes")
    read = 0

    async def receive() -> Message:
        nonlocal read
        message = await request.receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise HTTPException(413, f"the request is larger than {limit} bytes")
        return message

    return Request(request.scope, receive)


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error of the API."""
    return JSONResponse({"detail": detail}, status, headers)


class SecurityHeaders:
    """Adds the security headers to every response, also to errors, and keeps patient data out of caches."""

    def __init__(self, app: ASGIApp, settings: Admin) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        static = scope["path"].startswith("/static/")
        own = _HEADERS | self._transport_security(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = dict(message.get("headers", []))
                for name, value in own.items():
                    headers.setdefault(name.encode(), value.encode())
                cache = b"public, max-age=300" if static else b"no-store"
                headers.setdefault(b"cache-control", cache)
                # A dictionary would lose a second cookie, so cookies are kept as a list.
                cookies = [pair for pair in message.get("headers", []) if pair[0] == b"set-cookie"]
                headers.pop(b"set-cookie", None)
                message["headers"] = [*headers.items(), *cookies]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _transport_security(self, scope: Scope) -> dict[str, str]:
        """Strict-Transport-Security (RFC 6797), which means something over TLS only."""
        seconds = self._settings.hsts_seconds
        if not seconds or not origin_of(Request(scope), self._settings.trusted_proxies).secure:
            return {}
        return {"strict-transport-security": f"max-age={seconds}"}
