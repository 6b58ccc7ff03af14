"""An operation of the JSON API: its route, its parameters and its response, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from db.errors import DatabaseError, RecordNotFoundError
from db.user_tables import Role
from node.web.middleware import Endpoint, RequestContext

Body = TypeVar("Body", bound=BaseModel)


class Strict(BaseModel):
    """Parameters or a body; anything that is not asked for is an error."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class NoQuery(Strict):
    """No query parameters."""


@dataclass(frozen=True)
class Operation:
    """One operation of the API: route, parameters, response and least role."""

    method: str
    path: str
    summary: str
    role: Role
    run: Callable[[RequestContext], BaseModel]
    answer: type[BaseModel]
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None

    def endpoint(self) -> Endpoint:
        """The route of this operation. Status 422: invalid input. Status 409: the state forbids the action."""

        def handle(context: RequestContext) -> Response:
            try:
                _parsed(self.query, dict(context.request.query_params))
                made = self.run(context)
            except RecordNotFoundError as error:
                raise HTTPException(404, str(error)) from error
            except DatabaseError as error:
                raise HTTPException(409, str(error)) from error
            return JSONResponse(made.model_dump(mode="json"))

        return Endpoint(self.method, self.path, handle, self.role, api=True)


def _parsed(kind: type[Body], values: Any) -> Body:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise HTTPException(422, f"{place}: {first['msg']}") from error


def body_of(context: RequestContext, kind: type[Body]) -> Body:
    """The body of the request."""
    return _parsed(kind, context.body)


def query_of(context: RequestContext, kind: type[Body]) -> Body:
    """The query parameters of the request."""
    return _parsed(kind, dict(context.request.query_params))
