"""The audit trail: shown, filtered and exported. To read it is in it, too (PS3.15 A.5.3.2)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import Response

from db.audit import AuditFilter
from db.audit_events import EXPORT_TRAIL, READ_TRAIL, AuditEvent
from node.web.audit_export import FORMATS
from node.web.middleware import RequestContext, whole_number

MOST_EXPORTED = 50_000
_PAGE = 100
_MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
_KEYS = ("from", "to", "actor", "event", "study", "outcome")


def show_audit(context: RequestContext) -> Response:
    """The entries that are asked for, the latest first."""
    page = min(10_000, max(1, whole_number(context.query("page"), 6) or 1))
    entries = context.services.audit.entries(_wanted(context), limit=_PAGE + 1, offset=(page - 1) * _PAGE)
    asked = {key: _text(context, key) for key in _KEYS if _text(context, key)}
    context.audit(READ_TRAIL, "audit trail", detail=urlencode({**asked, "page": page}))
    return context.page(
        "audit.html",
        entries=entries[:_PAGE],
        page=page,
        more=len(entries) > _PAGE,
        asked=asked,
        query=urlencode(asked),
        events=tuple(AuditEvent),
        verified=context.services.audit.last_verification(),
        most=MOST_EXPORTED,
    )


def export_audit(context: RequestContext) -> Response:
    """The entries that are asked for as a file; of too many the latest."""
    kind = context.query("format", "csv")
    if kind not in FORMATS:
        raise HTTPException(404)
    entries = context.services.audit.entries(_wanted(context), limit=MOST_EXPORTED)[::-1]
    context.audit(EXPORT_TRAIL, "audit trail", detail=f"{len(entries)} entries as {kind}")
    text = "".join(FORMATS[kind](entries))
    headers = {"content-disposition": f'attachment; filename="audit-{context.now:%Y%m%d-%H%M%S}.{kind}"'}
    return Response(text, media_type=_MEDIA_TYPES[kind], headers=headers)


def _wanted(context: RequestContext) -> AuditFilter:
    until, study, outcome = _date(context, "to"), _text(context, "study"), _text(context, "outcome")
    event = next((one for one in AuditEvent if one.value == _text(context, "event")), None)
    return AuditFilter(
        since=_date(context, "from"),
        until=until + timedelta(days=1) if until else None,
        actor=_text(context, "actor"),
        event=event,
        study_id=whole_number(study, 9),
        failed={"failed": True, "success": False}.get(outcome),
    )


def _text(context: RequestContext, name: str) -> str:
    return context.query(name).replace("\x00", "")[:100].strip()


def _date(context: RequestContext, name: str) -> datetime | None:
    """The beginning of a day (an ISO date) in the site's time zone; None where it is none."""
    try:
        day = datetime.strptime(_text(context, name), "%Y-%m-%d")
    except ValueError:
        return None
    return day.replace(tzinfo=context.services.settings.site.zone).astimezone(UTC)
