"""What is done to all studies that a filter of the worklist shows: export as CSV, retry, hold, release, priority."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, tzinfo
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from config.notice import NOTICE
from db.queries.problems import Selection
from db.shown_records import WorklistRow
from db.states import Priority
from node.web.formatting import NAME_HIDDEN, cell
from node.web.middleware import RequestContext
from node.web.pages.worklist import View, view_of
from node.web.translatable import gettext_noop
from workers.services.actions import Actions

MOST_EXPORTED = 10_000
MOST_CHANGED = 500
_CHUNK = 500

_COLUMNS: dict[str, Callable[[WorklistRow], object]] = {
    "study": lambda row: row.study_id,
    "study_instance_uid": lambda row: row.study_instance_uid,
    "patient_id": lambda row: row.patient_id,
    "patient_name": lambda row: row.patient_name,
    "accession_number": lambda row: row.accession_number,
    "study_date": lambda row: row.study_date,
    "study_description": lambda row: row.study_description,
    "modalities": lambda row: " ".join(row.modalities),
    "state": lambda row: row.state.value,
    "priority": lambda row: row.priority.value,
    "analysis": lambda row: row.analysis.value,
    "reason": lambda row: row.hold_reason or row.reason,
    "findings": lambda row: "; ".join(f"{one.label} {one.probability or 0:.2f}" for one in row.present),
    "received_at": lambda row: row.received_at,
    "due_at": lambda row: row.due_at,
    "reported_at": lambda row: row.reported_at or "",
    "reported_by": lambda row: row.reported_by,
    "deliveries_arrived": lambda row: row.deliveries_arrived,
    "deliveries_open": lambda row: row.deliveries_open,
    "deliveries_failed": lambda row: row.deliveries_failed,
    # In each row: a sheet is sorted, cut and passed on.
    "notice": lambda _: NOTICE,
}

_CHANGES: dict[str, Callable[[Actions, int, str], object]] = {
    "retry": lambda actions, study_id, _: actions.retry_all(Selection(study_id=study_id)),
    "hold": lambda actions, study_id, reason: actions.hold(study_id, reason),
    "release": lambda actions, study_id, _: actions.release(study_id),
    **{
        level.value: lambda actions, study_id, _, level=level: actions.set_priority(study_id, level)  # type: ignore[misc]
        for level in Priority
    },
    "by-triage": lambda actions, study_id, _: actions.set_priority(study_id, None),
}


def export(context: RequestContext) -> Response:
    """The studies of a view as CSV (RFC 4180), in its order; times are ISO 8601 in the site's zone, with its offset."""
    rows = tuple(_rows(context, view_of(context.request.query_params), MOST_EXPORTED))
    context.audit("export worklist", detail=f"{len(rows)} studies")
    settings = context.services.settings
    text = csv_of(rows, settings.site.zone, hide_names=settings.admin.hide_patient_names)
    headers = {"content-disposition": f'attachment; filename="worklist-{context.now:%Y%m%d-%H%M%S}.csv"'}
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


def csv_of(rows: Iterable[WorklistRow], zone: tzinfo = UTC, *, hide_names: bool) -> str:
    """Rows as CSV; each time says its offset from UTC in ``zone``."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(_COLUMNS)
    for row in rows:
        values = {name: _text(value(row), zone) for name, value in _COLUMNS.items()}
        if hide_names:
            values["patient_name"] = NAME_HIDDEN
        writer.writerow(map(cell, values.values()))
    return written.getvalue()


def _text(value: object, zone: tzinfo) -> str:
    return value.astimezone(zone).isoformat() if isinstance(value, datetime) else str(value)


def change(context: RequestContext) -> Response:
    """Do one thing to every study of a view; the form says how many it has shown, and nothing is done to others."""
    view, wanted = view_of(context.request.query_params), context.field("change")
    if wanted not in _CHANGES:
        raise HTTPException(400, f"a change is one of {', '.join(_CHANGES)}")
    ids = [row.study_id for row in _rows(context, view, MOST_CHANGED + 1)]
    if len(ids) > MOST_CHANGED or str(len(ids)) != context.field("count"):
        raise HTTPException(409, gettext_noop("the list has changed, or is too long; look at it again"))
    reason = context.field("reason")
    done = context.actions.many(ids, lambda actions, study_id: _CHANGES[wanted](actions, study_id, reason))
    query = urlencode({"changed": done, "left": len(ids) - done})
    return RedirectResponse("/?" + "&".join(part for part in (view.query(), query) if part), 303)


def _rows(context: RequestContext, view: View, most: int) -> Iterable[WorklistRow]:
    for offset in range(0, most, _CHUNK):
        limit = min(_CHUNK, most - offset)
        rows = context.services.worklist.page(
            show=view.show,
            filters=view.filters,
            order=view.order,
            descending=view.descending,
            limit=limit,
            offset=offset,
            as_listed=True,
        )
        yield from rows
        if len(rows) < limit:
            return
