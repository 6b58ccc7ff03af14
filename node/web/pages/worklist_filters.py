"""Filters of the worklist that a user saves under a name, opens again and deletes."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db.errors import RecordNotFoundError
from db.saved_filters import SavedFilterError, delete_filter, save_filter
from db.users import User
from node.web.middleware import RequestContext
from node.web.pages.worklist import view_of
from node.web.translatable import gettext_noop


def save(context: RequestContext) -> Response:
    """Save the view that the address of the form describes, without its page."""
    query = view_of(context.request.query_params).query()
    try:
        context.services.database.write(save_filter, _user(context).id, context.field("name"), query, context.now)
    except SavedFilterError as error:
        raise HTTPException(400, str(error)) from error
    return RedirectResponse(f"/?{query}" if query else "/", 303)


def remove(context: RequestContext) -> Response:
    """Delete a saved filter of one's own."""
    query = view_of(context.request.query_params).query()
    try:
        context.services.database.write(delete_filter, _user(context).id, context.number("filter"))
    except RecordNotFoundError as error:
        raise HTTPException(404, str(error)) from error
    return RedirectResponse(f"/?{query}" if query else "/", 303)


def _user(context: RequestContext) -> User:
    user = context.who.user
    if user is None:
        raise HTTPException(403, gettext_noop("a token saves no filters"))
    return user
