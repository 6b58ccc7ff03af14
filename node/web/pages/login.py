"""Log-in, log-out, and changing one's own password."""

from __future__ import annotations

import secrets
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

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
from node.web.languages import LANGUAGES
from node.web.middleware import RequestContext
from node.web.stored_texts import gettext_noop

THEMES = ("light", "dark")


def show_login(context: RequestContext) -> Response:
    """The log-in form; a user whom a trusted proxy has signed on is logged in directly."""
    target = safe_next(context.query("next", "/"))
    settings = context.services.settings.admin
    name = signed_on_name(context.request, settings)
    if name:
        user = signed_on_user(name, context.services.accounts, settings, context.now)
        if user is None:
            raise HTTPException(
                403, gettext_noop("you are signed on, but this node has no account for you; ask an administrator")
            )
        return _open_session(context, user, target, "single sign-on")
    if context.principal is not None and context.principal.user is not None:
        return RedirectResponse(target, 303)
    return _form(context, target)


def log_in(context: RequestContext) -> Response:
    """Check name and password and open a session."""
    target = safe_next(context.field("next", "/"))
    if not csrf_matches(context.field("login_token"), context.request.cookies.get(LOGIN_COOKIE, "")):
        return _form(context, target, gettext_noop("This form has expired. Please try again."), 403)
    name = context.field("name")
    try:
        user = context.services.accounts.log_in(name, context.field("password"), context.address, context.now)
    except TooManyAttemptsError as error:
        answer = _form(context, target, str(error), 429)
        answer.headers["retry-after"] = str(int(error.wait.total_seconds()))
        return answer
    if user is None:
        return _form(context, target, gettext_noop("Name or password is wrong."), 401, name)
    return _open_session(context, user, target, "password")


def log_out(context: RequestContext) -> Response:
    """Close the session."""
    token = context.request.cookies.get(SESSION_COOKIE, "")
    context.services.accounts.close_session(token, context.actor, context.address, context.now)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION_COOKIE, path="/", secure=context.secure)
    answer.headers["clear-site-data"] = '"cache", "storage"'
    return answer


def show_account(context: RequestContext) -> Response:
    """One's own account."""
    return context.page("account.html", problem="", done=context.query("done"))


def change_password(context: RequestContext) -> Response:
    """Change one's own password; other sessions of the same user are closed."""
    user = context.who.user
    if user is None:
        raise HTTPException(403, gettext_noop("a token has no password"))
    if context.field("password") != context.field("again"):
        return context.page("account.html", 400, problem=gettext_noop("The two new passwords differ."), done="")
    try:
        right = context.services.accounts.check_own_password(
            user, context.field("present"), context.address, context.now
        )
    except TooManyAttemptsError as error:
        return context.page("account.html", 429, problem=str(error), done="")
    if not right:
        return context.page("account.html", 400, problem=gettext_noop("The current password is wrong."), done="")
    try:
        context.services.accounts.set_password(
            user.id,
            context.field("password"),
            context.now,
            actor=context.actor,
            keep=context.request.cookies.get(SESSION_COOKIE, ""),
        )
    except AccountError as error:
        return context.page("account.html", 400, problem=str(error), done="")
    return RedirectResponse("/account?done=1", 303)


def set_preferences(context: RequestContext) -> Response:
    """Remember the language and the theme of the page for this user; the page shows itself again."""
    user = context.who.user
    if user is None:
        raise HTTPException(403, gettext_noop("a token has no page"))
    language, theme = context.form.get("language"), context.form.get("theme")
    if language not in (None, "", *LANGUAGES) or theme not in (None, "", *THEMES):
        raise HTTPException(400, gettext_noop("there is no such language or theme"))
    context.services.accounts.set_preferences(
        user.id,
        language=language if isinstance(language, str) else None,
        theme=theme if isinstance(theme, str) else None,
    )
    came_from = urlsplit(context.request.headers.get("referer", ""))
    return RedirectResponse(safe_next(urlunsplit(("", "", came_from.path, came_from.query, ""))), 303)


def _form(context: RequestContext, target: str, problem: str = "", status: int = 200, name: str = "") -> Response:
    token = secrets.token_urlsafe(24)
    users = status == 200 and not context.services.accounts.users()
    answer = context.page(
        "login.html", status, login_token=token, target=target, problem=problem, name=name, no_users=users
    )
    answer.set_cookie(LOGIN_COOKIE, token, max_age=3600, httponly=True, secure=context.secure, samesite="strict")
    return answer


def _open_session(context: RequestContext, user: User, target: str, how: str) -> Response:
    lasting = timedelta(hours=context.services.settings.admin.session_hours)
    token = context.services.accounts.open_session(user, context.address, context.now, lasting, how)
    answer = RedirectResponse(target, 303)
    answer.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=int(lasting.total_seconds()),
        httponly=True,
        secure=context.secure,
        samesite="lax",
        path="/",
    )
    answer.delete_cookie(LOGIN_COOKIE, secure=context.secure)
    return answer
