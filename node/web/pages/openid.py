"""Log-in by OpenID Connect: to the provider, and back. What fails ends on the log-in form, with a sentence."""

from __future__ import annotations

import base64
import logging

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db.audit import AuditEntry
from db.audit_events import LOG_IN_FAILED
from db.sign_on import Identity, sign_on
from db.users import OPENID, AccountError
from node.sign_on import NOT_BEGUN, Begun, ProviderError, RefusedError, SignOnError
from node.web.authentication import OPENID_COOKIE, safe_next
from node.web.middleware import RequestContext
from node.web.pages.login import form, open_session

log = logging.getLogger("pleura.admin")
_MINUTES = 10
_PATH = "/login/openid"


def begin(context: RequestContext) -> Response:
    """Send the browser to the provider. What it has to bring back is in a cookie that only its answer gets."""
    target = safe_next(context.query("next", "/"))
    provider = context.services.openid
    if provider is None:
        raise HTTPException(404)
    try:
        url, begun = provider.begin(target)
    except ProviderError as error:
        return _failed(context, target, error)
    answer = RedirectResponse(url, 303)
    answer.set_cookie(
        OPENID_COOKIE,
        base64.urlsafe_b64encode(begun.model_dump_json().encode()).decode(),
        max_age=_MINUTES * 60,
        path=_PATH,
        httponly=True,
        secure=context.secure,
        samesite="lax",  # strict is not sent when another site opens the page, as the provider does
    )
    return answer


def finish(context: RequestContext) -> Response:
    """Log in the user whom the provider has authenticated; they are made where this is their first log-in."""
    begun = _begun(context.request.cookies.get(OPENID_COOKIE, ""))
    target = safe_next(begun.target if begun else "/")
    provider = context.services.openid
    if provider is None:
        raise HTTPException(404)
    identity = None
    try:
        if begun is None:
            raise SignOnError(NOT_BEGUN)
        identity = provider.finish(dict(context.request.query_params), begun)
        user = context.services.database.write(sign_on, identity, context.now)
    except (SignOnError, AccountError) as error:
        answer = _failed(context, target, error, identity)
    else:
        answer = open_session(context, user, target, OPENID)
    answer.delete_cookie(OPENID_COOKIE, path=_PATH, secure=context.secure)
    return answer


def _begun(cookie: str) -> Begun | None:
    """What this browser has begun; None without a cookie of ours."""
    try:
        return Begun.model_validate_json(base64.urlsafe_b64decode(cookie))
    except ValueError:
        return None


def _failed(
    context: RequestContext, target: str, error: SignOnError | AccountError, identity: Identity | None = None
) -> Response:
    """The log-in form with what went wrong. Who was refused is in the audit trail, a failing provider in the log."""
    provider = context.services.openid
    if provider is not None and isinstance(error, ProviderError):
        log.warning("log-in by OpenID Connect failed: the provider %s", error)
        problem = f"{provider.openid.name} {error}. If you have a password on this node, log in with it."
        return form(context, target, problem, 502)
    name = error.name if isinstance(error, RefusedError) else identity.name if identity else None
    if name is not None:
        why = f"{OPENID}: {error}"
        failed = AuditEntry(context.now, name, LOG_IN_FAILED, name, address=context.address, detail=why, failed=True)
        context.services.audit.add(failed)
    return form(context, target, str(error), 403)
