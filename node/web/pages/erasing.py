"""Erasing a study: what would go, what others hold of it, and the request, which the scheduler carries out."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import Response

from db.errors import ErasureError, RecordNotFoundError
from db.queries.erasure import ErasurePlan, erasure_plan
from node.web.middleware import RequestContext
from workers.services.erasure import (
    check_confirmation,
    confirmation_of,
    deidentified_folders,
    held_by_others,
    noted_first,
)


def show_plan(context: RequestContext) -> Response:
    """What would go and what stays; the view is written to the audit trail."""
    plan = _plan(context)
    context.viewed(plan.study_id, "erasing")
    return _page(context, plan)


def ask(context: RequestContext) -> Response:
    """Ask to erase the study, if the patient ID was typed; the page with the list of what stays is shown once more."""
    plan = _plan(context)
    try:
        check_confirmation(plan, context.field("confirmation"))
        context.actions.erase(plan.study_id, context.field("reason"))
    except ErasureError as error:
        return _page(context, plan, str(error))
    return _page(context, plan, asked=True)


def _plan(context: RequestContext) -> ErasurePlan:
    try:
        return context.services.database.read(erasure_plan, context.number("study"), context.now)
    except RecordNotFoundError as error:
        raise HTTPException(404, str(error)) from error


def _page(context: RequestContext, plan: ErasurePlan, problem: str = "", *, asked: bool = False) -> Response:
    services = context.services
    return context.page(
        "erasing.html",
        plan=plan,
        confirmation=confirmation_of(plan),
        held=held_by_others(plan, services.settings),
        folders=deidentified_folders(plan, services.settings, services.database),
        noted=noted_first(services.settings),
        asked=asked,
        problem=problem,
    )
