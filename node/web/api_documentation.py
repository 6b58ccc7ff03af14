"""The OpenAPI document of the API, and a page that shows it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from node.web.middleware import RequestContext


def _document(context: RequestContext) -> dict[str, Any]:
    api: FastAPI = context.request.app.state.api
    return api.openapi()


def show_document(context: RequestContext) -> Response:
    """The OpenAPI document."""
    return JSONResponse(_document(context))


def show_page(context: RequestContext) -> Response:
    """The OpenAPI document as a page.

    It is a template of this site and not Swagger UI or Redoc: a megabyte of somebody else's script would run in the
    session of people who see patients, and neither has been made for keyboards, screen readers and a strict CSP.
    """
    return context.page("api.html", document=_document(context))
