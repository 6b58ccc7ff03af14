"""Users, tokens and the audit trail: for administrators."""

from __future__ import annotations

import secrets

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db.errors import RecordNotFoundError
from db.user_tables import Role
from db.users import AccountError
from node.web.middleware import Visit

_AUDIT_PAGE = 100


def show_people(visit: Visit) -> Response:
    """All users and tokens."""
    return _people(visit)


def add_user(visit: Visit) -> Response:
    """Make a user with a first password, which is shown once."""
    password = secrets.token_urlsafe(12)
    try:
        user = visit.services.accounts.add_user(
            visit.field("name"),
            password,
            _role(visit),
            visit.now,
            actor=visit.actor,
            display_name=visit.field("display_name"),
        )
    except AccountError as error:
        return _people(visit, problem=str(error), status=400)
    return _people(visit, secret=password, secret_of=f"First password of {user.name}")


def change_user(visit: Visit) -> Response:
    """Another role, lock out or let in, or a new first password."""
    user_id, change = visit.number("user"), visit.field("change")
    accounts = visit.services.accounts
    try:
        if change == "role":
            accounts.change_user(user_id, visit.now, actor=visit.actor, role=_role(visit))
        elif change in ("lock", "unlock"):
            accounts.change_user(user_id, visit.now, actor=visit.actor, disabled=change == "lock")
        elif change == "password":
            password = secrets.token_urlsafe(12)
            accounts.set_password(user_id, password, visit.now, actor=visit.actor)
            return _people(visit, secret=password, secret_of="New password")
        else:
            raise HTTPException(400, "nothing to change was named")
    except RecordNotFoundError as error:
        raise HTTPException(404) from error
    except AccountError as error:
        return _people(visit, problem=str(error), status=400)
    return RedirectResponse("/people", 303)


def add_token(visit: Visit) -> Response:
    """Make a token for a program; its secret is shown once."""
    try:
        token, secret = visit.services.accounts.add_token(
            visit.field("name"), _role(visit), visit.now, actor=visit.actor
        )
    except AccountError as error:
        return _people(visit, problem=str(error).replace("user name", "token name"), status=400)
    return _people(visit, secret=secret, secret_of=f"Token {token.name}")


def revoke_token(visit: Visit) -> Response:
    """End a token for good."""
    try:
        visit.services.accounts.revoke_token(visit.number("token"), visit.now, actor=visit.actor)
    except RecordNotFoundError as error:
        raise HTTPException(404) from error
    return RedirectResponse("/people", 303)


def show_audit(visit: Visit) -> Response:
    """The audit trail, the latest first."""
    given = visit.query("page", "1")
    page = min(10_000, max(1, int(given))) if given.isascii() and given.isdigit() and len(given) < 7 else 1
    entries = visit.services.audit.entries(limit=_AUDIT_PAGE + 1, offset=(page - 1) * _AUDIT_PAGE)
    return visit.page("audit.html", entries=entries[:_AUDIT_PAGE], page=page, more=len(entries) > _AUDIT_PAGE)


def _people(visit: Visit, *, problem: str = "", secret: str = "", secret_of: str = "", status: int = 200) -> Response:
    return visit.page(
        "people.html",
        status,
        users=visit.services.accounts.users(),
        tokens=visit.services.accounts.tokens(),
        roles=tuple(Role),
        problem=problem,
        secret=secret,
        secret_of=secret_of,
    )


def _role(visit: Visit) -> Role:
    given = visit.field("role")
    if given not in set(Role):
        raise HTTPException(400, "a role is viewer, radiologist or admin")
    return Role(given)
