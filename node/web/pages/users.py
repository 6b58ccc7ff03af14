"""Users and tokens: for administrators."""

from __future__ import annotations

import secrets

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db.errors import RecordNotFoundError
from db.user_tables import OF_USERS, Role
from db.users import AccountError
from node.web.middleware import RequestContext
from node.web.translatable import gettext_noop


def show_users(context: RequestContext) -> Response:
    """All users and tokens."""
    return _users(context)


def add_user(context: RequestContext) -> Response:
    """Add a user with an initial password, which is shown once."""
    password = secrets.token_urlsafe(12)
    try:
        user = context.services.accounts.add_user(
            context.field("name"),
            password,
            _role(context, OF_USERS),
            context.now,
            actor=context.actor,
            display_name=context.field("display_name"),
        )
    except AccountError as error:
        return _users(context, problem=str(error), status=400)
    return _users(context, secret=password, secret_of=gettext_noop("Initial password of {name}").format(name=user.name))


def change_user(context: RequestContext) -> Response:
    """Change the role, lock or unlock a user, or set a new password."""
    user_id, change = context.number("user"), context.field("change")
    accounts = context.services.accounts
    try:
        if change == "role":
            accounts.change_user(user_id, context.now, actor=context.actor, role=_role(context, OF_USERS))
        elif change in ("lock", "unlock"):
            accounts.change_user(user_id, context.now, actor=context.actor, disabled=change == "lock")
        elif change == "password":
            password = secrets.token_urlsafe(12)
            accounts.set_password(user_id, password, context.now, actor=context.actor)
            return _users(context, secret=password, secret_of=gettext_noop("New password"))
        else:
            raise HTTPException(400, gettext_noop("a change is role, lock, unlock or password"))
    except RecordNotFoundError as error:
        raise HTTPException(404) from error
    except AccountError as error:
        return _users(context, problem=str(error), status=400)
    return RedirectResponse("/users", 303)


def add_token(context: RequestContext) -> Response:
    """Add an API token; its secret is shown once."""
    try:
        token, secret = context.services.accounts.add_token(
            context.field("name"), _role(context, tuple(Role)), context.now, actor=context.actor
        )
    except AccountError as error:
        return _users(context, problem=str(error).replace("user name", "token name"), status=400)
    return _users(context, secret=secret, secret_of=gettext_noop("Token {name}").format(name=token.name))


def revoke_token(context: RequestContext) -> Response:
    """Revoke a token permanently."""
    try:
        context.services.accounts.revoke_token(context.number("token"), context.now, actor=context.actor)
    except RecordNotFoundError as error:
        raise HTTPException(404) from error
    return RedirectResponse("/users", 303)


def _users(
    context: RequestContext, *, problem: str = "", secret: str = "", secret_of: str = "", status: int = 200
) -> Response:
    return context.page(
        "users.html",
        status,
        users=context.services.accounts.users(),
        tokens=context.services.accounts.tokens(),
        roles=OF_USERS,
        token_roles=tuple(Role),
        problem=problem,
        secret=secret,
        secret_of=secret_of,
    )


def _role(context: RequestContext, allowed: tuple[Role, ...]) -> Role:
    given = context.field("role")
    if given not in allowed:
        raise HTTPException(400, gettext_noop("a role is viewer, radiologist or admin"))
    return Role(given)
