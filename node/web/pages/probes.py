"""Liveness and readiness probes, and metrics for Prometheus. None of them names a patient or a study."""

from __future__ import annotations

from starlette.responses import JSONResponse, PlainTextResponse, Response

from node.web.authentication import csrf_matches, is_loopback
from node.web.middleware import RequestContext


def alive(context: RequestContext) -> Response:
    """Liveness: answers as long as the process runs."""
    del context
    return PlainTextResponse("alive\n")


def ready(context: RequestContext) -> Response:
    """Readiness: 200 if a study that is sent now is accepted and analysed, else 503; and which part is missing."""
    checks = context.services.readiness.checks()
    complete = all(checks.values())
    return JSONResponse({"ready": complete, "checks": checks}, 200 if complete else 503)


def metrics(context: RequestContext) -> Response:
    """Metrics in a format of Prometheus: with the token, or from this machine if no token is configured."""
    wanted = context.services.settings.admin.metrics_token
    if wanted is not None:
        scheme, _, given = context.request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not csrf_matches(given.strip(), wanted.get_secret_value()):
            return PlainTextResponse("a token is needed\n", 401, {"WWW-Authenticate": "Bearer"})
    elif not is_loopback(context.address):
        return PlainTextResponse("set admin.metrics_token to read this from another machine\n", 403)
    text, media_type = context.services.metrics.write(context.request.headers.get("accept", ""))
    return Response(text, headers={"content-type": media_type})
