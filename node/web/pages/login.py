"""Log in and out, and one's own password."""

from __future__ import annotations

import secrets
from datetime import timedelta

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db.login_attempts import TooManyAttemptsError
from db.users import AccountError, User
from node.web.authentication import (
    LOGIN_COOKIE,
    SESSION_COOKIE,
    csrf_matches,
    safe_next,
    signed_on_name,
    signed_on_user,
)
from node.web.middleware import Visit


def show_login(visit: Visit) -> Response:
    """The log-in form; a user whom a trusted proxy has signed on goes straight in."""
    target = safe_next(visit.query("next", "/"))
    settings = visit.services.settings.admin
    name = signed_on_name(visit.request, settings)
    if name:
        user = signed_on_user(name, visit.services.accounts, settings, visit.now)
        if user is None:
            raise HTTPException(403, "you are signed on, but this node has no account for you; ask an administrator")
        return _let_in(visit, user, target, "single sign-on")
    if visit.principal is not None and visit.principal.user is not None:
        return RedirectResponse(target, 303)
    return _form(visit, target)


def log_in(visit: Visit) -> Response:
    """Check name and password and begin a session."""
    target = safe_next(visit.field("next", "/"))
    if not csrf_matches(visit.field("login_token"), visit.request.cookies.get(LOGIN_COOKIE, "")):
        return _form(visit, target, "This form was open too long. Please try again.", 403)
    name = visit.field("name")
    try:
        user = visit.services.accounts.log_in(name, visit.field("password"), visit.address, visit.now)
    except TooManyAttemptsError as error:
        answer = _form(visit, target, f"{str(error).capitalize()}.", 429)
        answer.headers["retry-after"] = str(int(error.wait.total_seconds()))
        return answer
    if user is None:
        return _form(visit, target, "Name or password is wrong.", 401, name)
    return _let_in(visit, user, target, "password")


def log_out(visit: Visit) -> Response:
    """End the session."""
    token = visit.request.cookies.get(SESSION_COOKIE, "")
    visit.services.accounts.close_session(token, visit.actor, visit.address, visit.now)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION_COOKIE, path="/")
    answer.headers["clear-site-data"] = '"cache", "storage"'
    return answer


def show_account(visit: Visit) -> Response:
    """One's own account."""
    return visit.page("account.html", problem="", done=visit.query("done"))


def change_password(visit: Visit) -> Response:
    """Change one's own password; other log-ins of the same user end."""
    user = visit.who.user
    if user is None:
        raise HTTPException(403, "a token has no password")
    if visit.field("password") != visit.field("again"):
        return visit.page("account.html", 400, problem="The two new passwords differ.", done="")
    try:
        right = visit.services.accounts.check_own_password(user, visit.field("present"), visit.address, visit.now)
    except TooManyAttemptsError as error:
        return visit.page("account.html", 429, problem=f"{str(error).capitalize()}.", done="")
    if not right:
        return visit.page("account.html", 400, problem="Your present password is another one.", done="")
    try:
        visit.services.accounts.set_password(
            user.id,
            visit.field("password"),
            visit.now,
            actor=visit.actor,
            keep=visit.request.cookies.get(SESSION_COOKIE, ""),
        )
    except AccountError as error:
        return visit.page("account.html", 400, problem=f"{str(error).capitalize()}.", done="")
    return RedirectResponse("/account?done=1", 303)


def _form(visit: Visit, target: str, problem: str = "", status: int = 200, name: str = "") -> Response:
    token = secrets.token_urlsafe(24)
    users = status == 200 and not visit.services.accounts.users()
    answer = visit.page(
        "login.html", status, login_token=token, target=target, problem=problem, name=name, no_users=users
    )
    answer.set_cookie(LOGIN_COOKIE, token, max_age=3600, httponly=True, secure=visit.secure, samesite="strict")
    return answer


def _let_in(visit: Visit, user: User, target: str, how: str) -> Response:
    lasting = timedelta(hours=visit.services.settings.admin.session_hours)
    token = visit.services.accounts.open_session(user, visit.address, visit.now, lasting, how)
    answer = RedirectResponse(target, 303)
    answer.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=int(lasting.total_seconds()),
        httponly=True,
        secure=visit.secure,
        samesite="lax",
        path="/",
    )
    answer.delete_cookie(LOGIN_COOKIE)
    return answer
