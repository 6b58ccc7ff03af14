"""Liveness and readiness probes, and metrics for Prometheus. None of them names a patient or a study."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, PlainTextResponse, Response

from db.engine import schema_problem
from db.model_states import ModelState
from db.order_tables import NotificationState
from node.web.authentication import csrf_matches, is_loopback
from node.web.middleware import RequestContext
from node.web.pages.models import known_models
from node.web.pages.system import notification_counts

_KNOWN_STATES = {
    "jobs": ("queued", "running", "retrying", "done", "failed", "on_hold"),
    "deliveries": ("pending", "sending", "sent", "verified", "failed", "on_hold", "recorded", "withdrawn"),
}


def alive(context: RequestContext) -> Response:
    """Liveness: answers as long as the process runs."""
    del context
    return PlainTextResponse("alive\n")


def ready(context: RequestContext) -> Response:
    """Readiness: 200 if the database can be used, else 503."""
    problem = schema_problem(context.services.engine)
    return JSONResponse({"ready": problem is None}, 200 if problem is None else 503)


def metrics(context: RequestContext) -> Response:
    """Metrics in Prometheus text format 0.0.4: with the token, or from this machine if no token is configured."""
    wanted = context.services.settings.admin.metrics_token
    if wanted is not None:
        scheme, _, given = context.request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not csrf_matches(given.strip(), wanted.get_secret_value()):
            return PlainTextResponse("a token is needed\n", 401, {"WWW-Authenticate": "Bearer"})
    elif not is_loopback(context.address):
        return PlainTextResponse("set admin.metrics_token to read this from another machine\n", 403)
    try:
        text = "\n".join(_lines(context)) + "\n"
    except SQLAlchemyError:
        return PlainTextResponse("the database cannot be reached\n", 503)
    return PlainTextResponse(text, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})


def _lines(context: RequestContext) -> Iterator[str]:
    statistics = context.services.statistics
    counts = statistics.queue_counts()
    for entity, states in _KNOWN_STATES.items():
        yield f"# HELP pleura_{entity} Number of {entity} by state."
        yield f"# TYPE pleura_{entity} gauge"
        for state in states:
            yield f'pleura_{entity}{{state="{state}"}} {counts.get(f"{entity}.{state}", 0)}'
    yield "# HELP pleura_studies_unreported Unreported studies by part of the worklist; a study may be in several."
    yield "# TYPE pleura_studies_unreported gauge"
    for part, number in statistics.unreported().items():
        if part.value != "reported":
            yield f'pleura_studies_unreported{{part="{part.value}"}} {number}'
    yield "# HELP pleura_studies_overdue Unreported studies whose due time has passed."
    yield "# TYPE pleura_studies_overdue gauge"
    yield f"pleura_studies_overdue {statistics.overdue(context.now)}"
    yield "# HELP pleura_oldest_job_seconds Age of the oldest waiting job."
    yield "# TYPE pleura_oldest_job_seconds gauge"
    yield f"pleura_oldest_job_seconds {statistics.oldest_queued(context.now):.3f}"
    yield "# HELP pleura_model_state State of a model: 1 for its current state, else 0."
    yield "# TYPE pleura_model_state gauge"
    for model in known_models(context):
        for state in ModelState if model.use.switchable else ():
            yield f'pleura_model_state{{model="{model.name}",state="{state}"}} {int(model.use.state == state)}'
    yield "# HELP pleura_notifications Number of critical-result notifications by channel and state."
    yield "# TYPE pleura_notifications gauge"
    for channel, counted in notification_counts(context.services).items():
        for state in NotificationState:
            yield f'pleura_notifications{{channel="{channel}",state="{state}"}} {counted.get(state.value, 0)}'
