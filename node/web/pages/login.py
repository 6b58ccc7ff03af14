"""Log-in with a password or a proxy's sign-on, log-out, and changing one's own password."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db.login_attempts import TooManyAttemptsError
from db.users import OPENID, PASSWORD, SINGLE_SIGN_ON, AccountError, User
from node.sign_on import ProviderError
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
from node.web.translatable import gettext_noop

THEMES = ("light", "dark")

log = logging.getLogger("pleura.admin")


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
        return open_session(context, user, target, SINGLE_SIGN_ON)
    if context.principal is not None and context.principal.user is not None:
        return RedirectResponse(target, 303)
    return form(context, target)


def log_in(context: RequestContext) -> Response:
    """Check name and password and open a session."""
    target = safe_next(context.field("next", "/"))
    if not csrf_matches(context.field("login_token"), context.request.cookies.get(LOGIN_COOKIE, "")):
        return form(context, target, gettext_noop("This form has expired. Please try again."), 403)
    name = context.field("name")
    try:
        user = context.services.accounts.log_in(name, context.field("password"), context.address, context.now)
    except TooManyAttemptsError as error:
        answer = form(context, target, str(error), 429)
        answer.headers["retry-after"] = str(int(error.wait.total_seconds()))
        return answer
    if user is None:
        return form(context, target, gettext_noop("Name or password is wrong."), 401, name)
    return open_session(context, user, target, PASSWORD)


def log_out(context: RequestContext) -> Response:
    """Close the session; a user who logged in by OpenID Connect is redirected to log out there."""
    token = context.request.cookies.get(SESSION_COOKIE, "")
    context.services.accounts.close_session(token, context.actor, context.address, context.now)
    elsewhere = _log_out_elsewhere(context)
    if elsewhere is None:
        answer: Response = RedirectResponse("/login", 303)
    else:
        # A page that goes on by itself: browsers hold the redirects of a form to form-action of the policy.
        answer = replace(context, principal=None).page("logged_out.html", elsewhere=elsewhere)
        answer.headers["refresh"] = f"0; url={elsewhere}"
    answer.delete_cookie(SESSION_COOKIE, path="/", secure=context.secure)
    answer.headers["clear-site-data"] = '"cache", "storage"'
    return answer


def _log_out_elsewhere(context: RequestContext) -> str | None:
    """Where to log out at the OpenID provider; None if this log-in is none of its, or it cannot be asked."""
    provider = context.services.openid
    if provider is None or context.who.method != OPENID:
        return None
    try:
        return provider.log_out_url()
    except ProviderError as error:
        log.warning("nobody is logged out at the OpenID provider: it %s", error)
        return None


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


def form(context: RequestContext, target: str, problem: str = "", status: int = 200, name: str = "") -> Response:
    """The log-in form, with a ``problem`` as a sentence where a log-in has failed."""
    provider = context.services.openid
    token = secrets.token_urlsafe(24)
    users = status == 200 and not context.services.accounts.users()
    answer = context.page(
        "login.html",
        status,
        login_token=token,
        target=target,
        problem=problem,
        name=name,
        no_users=users,
        openid=provider and provider.openid.name,
    )
    answer.set_cookie(LOGIN_COOKIE, token, max_age=3600, httponly=True, secure=context.secure, samesite="strict")
    return answer


def open_session(context: RequestContext, user: User, target: str, method: str) -> Response:
    """Log a user in and open a page of this site."""
    lasting = timedelta(hours=context.services.settings.admin.session_hours)
    token = context.services.accounts.open_session(user, context.address, context.now, lasting, method)
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
