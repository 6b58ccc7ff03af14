"""The JSON API as a FastAPI application, mounted beside the pages.

FastAPI reads the body of a request before it resolves dependencies. Authentication, CSRF protection and the limit of
the body are therefore applied around its handler (:class:`GuardedRoute`), before a byte of the body is read.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import FastAPI, Header, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db.errors import DatabaseError, RecordNotFoundError
from db.user_tables import Role
from node.web.api_models import MOST_DETAIL, CriticalFinding, Error
from node.web.authentication import SESSION_COOKIE
from node.web.dependencies import Services
from node.web.middleware import SAFE_METHODS, SMALL_BODY, admit, limited, problem, refuse_forged


class Tag(StrEnum):
    """Groups of operations."""

    STUDIES = "studies"
    MODELS = "models"
    NODE = "node"


_TAGS = {
    Tag.STUDIES: "Worklist, findings and results, and what a person may do with a study.",
    Tag.MODELS: "State of the models, and how they behave over time.",
    Tag.NODE: "State of the node, and the audit trail.",
}
_DESCRIPTION = """
Worklist and results of a Pleura node. Research use only: not a medical device.

A program sends an API token (`Authorization: Bearer …`; an admin makes one on the page Users). A browser may use the
session of its user; unsafe requests of a session need the header `X-CSRF-Token`.

A study is named in a path by its row number or its Study Instance UID. `GET /studies` finds it by its accession number.

Times are ISO 8601 with a time zone. Dates and times from a DICOM header (`study_date`, `study_time`) stay as they are
there (DA, TM): they have no time zone and may be invalid.

Every error has one shape: `{"detail": "…"}`, a sentence.
"""
_STATUSES = {
    400: "The body is not JSON",
    401: "No valid token or session",
    403: "The role is not sufficient",
    404: "There is no such record",
    409: "Not possible in this state",
    413: "The body is too large",
    422: "A parameter or the body is invalid",
    503: "The database cannot be reached",
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text} for status, text in _STATUSES.items()
}
# For the document alone: GuardedRoute checks both, in the way of the pages.
_SCHEMES = (
    HTTPBearer(scheme_name="token", description="API token", auto_error=False),
    APIKeyCookie(name=SESSION_COOKIE, scheme_name="session", description="Session of a user", auto_error=False),
)


@dataclass(frozen=True)
class Operation:
    """One operation: method, path below the prefix of the API, function, least role and tag.

    The name of the function is the ``operationId``, the first line of its docstring the summary.
    """

    method: str
    path: str
    function: Callable[..., Any]
    role: Role
    tag: Tag


class GuardedRoute(APIRoute):
    """The route of an operation, which admits a request as :class:`node.web.middleware.Endpoint` does."""

    def __init__(self, operation: Operation, services: Services) -> None:
        self._role = operation.role
        self._services = services
        super().__init__(
            operation.path,
            operation.function,
            methods=[operation.method],
            operation_id=operation.function.__name__,
            summary=(operation.function.__doc__ or "").splitlines()[0].rstrip("."),
            description=f"Least role: {operation.role.value}.",
            tags=[operation.tag.value],
            dependencies=[Security(scheme) for scheme in _SCHEMES],
            responses=_ERRORS,
            response_description="Done" if operation.method == "POST" else "Found",
            # A body without a Content-Type is read as JSON. It is no way around CSRF: unsafe requests need the token.
            strict_content_type=False,
        )

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind authentication, authorisation, CSRF protection and the limit of the body."""
        handle = super().get_route_handler()
        takes_query = bool(self.dependant.query_params)

        async def guarded(request: Request) -> Response:
            context = await admit(request, self._services, self._role, api=True)
            if isinstance(context, Response):
                return context
            if request.method not in SAFE_METHODS:
                request = limited(request, SMALL_BODY)
                refuse_forged(context, request.headers.get("x-csrf-token", ""))
            if request.query_params and not takes_query:
                raise HTTPException(
                    422, f"{next(iter(request.query_params))[:64]}: this operation has no such parameter"
                )
            request.state.context = context
            return await handle(request)

        return guarded


def create_api(
    services: Services,
    operations: Sequence[Operation],
    prefix: str,
    on_error: Mapping[Any, Callable[[Request, Exception], Response]],
) -> FastAPI:
    """The application of these operations, to be mounted at ``prefix``; ``on_error`` has the handlers of the pages."""
    handlers: dict[Any, Any] = {
        **on_error,
        RequestValidationError: _invalid,
        RecordNotFoundError: _not_found,
        DatabaseError: _not_possible,
    }
    api = FastAPI(
        title="Pleura",
        version=version("pleura"),
        description=_DESCRIPTION,
        routes=[GuardedRoute(operation, services) for operation in operations],
        servers=[{"url": prefix, "description": "This node"}],
        openapi_tags=[{"name": tag.value, "description": text} for tag, text in _TAGS.items()],
        # Both are pages of the table of routes, with a role.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=handlers,
        # Spans and logs of FastAPI hold addresses with their queries: names of patients.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    api.webhooks.post(
        "critical-finding",
        operation_id="critical_finding",
        summary="A critical finding",
        status_code=204,
        response_description="Taken: any status from 200 to 299",
        responses={"default": {"description": "Not taken: it is sent again"}},
    )(_critical_finding)
    return api


async def _not_found(request: Request, error: RecordNotFoundError) -> Response:
    del request
    return problem(404, str(error))


async def _not_possible(request: Request, error: DatabaseError) -> Response:
    del request
    return problem(409, str(error))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    """One sentence about the first thing that is wrong."""
    del request
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return problem(400, "the body is not JSON")
    where, *place = (str(part) for part in first["loc"])
    return problem(422, f"{'.'.join(place) or where}: {first['msg']}"[:MOST_DETAIL])


_SIGNATURE = "`v1,` and the base64 of the HMAC-SHA256, by the secret, of `webhook-id.webhook-timestamp.body`."


def _critical_finding(
    body: CriticalFinding,
    webhook_id: Annotated[str, Header(description="The same for every attempt; also `Idempotency-Key`.")],
    webhook_timestamp: Annotated[int, Header(description="When it was sent, in seconds since 1970 UTC.")],
    webhook_signature: Annotated[str, Header(description=_SIGNATURE)],
) -> None:
    """Sent to `notifications.webhook.url`, signed as Standard Webhooks (standardwebhooks.com) describes.

    `webhook-signature` is `v1,` and the base64 of the HMAC-SHA256 of `webhook-id.webhook-timestamp.body`. `webhook-id`
    (also `Idempotency-Key`) stays the same over all attempts. Compare the signature first, and refuse messages that are
    older than a few minutes.
    """
