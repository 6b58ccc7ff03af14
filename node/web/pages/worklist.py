"""The worklist: one page, its rows alone for a live refresh, and the event stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from db.queries.worklist import MOST_COUNTED, Order, WorklistPart
from db.queries.worklist_filters import Filters
from db.saved_filters import SavedFilter, saved_filters
from db.shown_records import WorklistRow
from db.states import StudyState
from node.web.authentication import principal_of
from node.web.formatting import dicom_date
from node.web.middleware import RequestContext, whole_number

SIZES = (25, 50, 100, 200)
"""Rows of a page that can be chosen."""
USUAL_SIZE = 50
_PARAMETERS = {
    "date_from": "from",
    "date_to": "to",
    "modality": "modality",
    "station": "station",
    "calling_ae_title": "calling",
    "destination": "destination",
    "finding": "finding",
    "state": "state",
}
"""The parameter of an address for each filter."""
_LAST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class View:
    """The part of the worklist that an address requests; invalid values become the default."""

    show: WorklistPart
    order: Order
    descending: bool
    filters: Filters
    page: int
    rows: int = USUAL_SIZE

    def link(self, **changes: str) -> str:
        """Address of the same view with ``changes``; defaults are left out."""
        values = {
            "show": self.show.value,
            "order": self.order.value,
            "down": "1" if self.descending else "",
            "q": self.filters.search,
            **{_PARAMETERS[name]: value for name, value in self.filters.active.items()},
            "rows": str(self.rows),
            "page": str(self.page) if self.page > 1 else "",
        } | changes
        defaults = {"show": "unreported", "order": "due", "rows": str(USUAL_SIZE), "page": "1"}
        kept = {name: value for name, value in values.items() if value and defaults.get(name) != value}
        return "/?" + urlencode(kept) if kept else "/"

    def query(self) -> str:
        """The parameters of this view without its page."""
        return self.link(page="1").removeprefix("/").removeprefix("?")

    def without(self, name: str) -> str:
        """Address of the same view without one of its filters."""
        return self.link(**{_PARAMETERS[name]: "", "page": "1"})

    def sort_link(self, order: str) -> str:
        """Address that sorts by ``order``, in reverse if the view is sorted by it already."""
        reversed_order = self.order.value == order and not self.descending
        return self.link(order=order, down="1" if reversed_order else "", page="1")


def view_of(query: Mapping[str, str]) -> View:
    """Parse the query parameters of an address."""
    page, rows = whole_number(query.get("page", ""), 5) or 1, whole_number(query.get("rows", ""), 5)
    return View(
        show=_member(WorklistPart, query.get("show", ""), WorklistPart.UNREPORTED),
        order=_member(Order, query.get("order", ""), Order.DUE),
        descending=query.get("down") == "1",
        filters=Filters(
            search=_text(query, "q"),
            date_from=_date(query, "from"),
            date_to=_date(query, "to"),
            modality=_text(query, "modality"),
            station=_text(query, "station"),
            calling_ae_title=_text(query, "calling"),
            destination=_text(query, "destination"),
            finding=_text(query, "finding"),
            state=_member(StudyState, query.get("state", ""), None),
        ),
        page=min(_LAST_PAGE, page),
        rows=rows if rows in SIZES else USUAL_SIZE,
    )


def _text(query: Mapping[str, str], name: str) -> str:
    return query.get(name, "").replace("\x00", "")[:100].strip()


def _date(query: Mapping[str, str], name: str) -> str:
    """A date of a form, or of DICOM, as DICOM writes it; empty if it is none."""
    digits = _text(query, name).replace("-", "")
    return digits if dicom_date(digits) else ""


Member = TypeVar("Member", WorklistPart, Order, StudyState)
Default = TypeVar("Default", WorklistPart, Order, None)


def _member(kind: type[Member], value: str, default: Default) -> Member | Default:
    return kind(value) if value in {member.value for member in kind} else default


def show_worklist(context: RequestContext) -> Response:
    """The whole page, or only its rows with ``part=rows``."""
    view = view_of(context.request.query_params)
    rows, counts = _rows(context, view), context.services.worklist.counts()
    template = "worklist_part.html" if context.query("part") == "rows" else "worklist.html"
    return context.page(
        template,
        view=view,
        rows=rows,
        total=_total(context, view, len(rows), counts),
        first=(view.page - 1) * view.rows + 1,
        last=(view.page - 1) * view.rows + len(rows),
        sizes=SIZES,
        usual_size=USUAL_SIZE,
        counts=counts,
        overdue=context.services.statistics.overdue(context.now),
        unserved=[queue for queue in context.services.unserved.get() if queue.count],
        choices=_choices(context) if template == "worklist.html" else {},
        saved=_saved(context) if template == "worklist.html" else (),
        changed=whole_number(context.query("changed"), 5),
        left=whole_number(context.query("left"), 5),
        WorklistPart=WorklistPart,
    )


def _total(context: RequestContext, view: View, shown: int, counts: Mapping[WorklistPart, int]) -> int:
    """How many studies the view has, counted no further than ``MOST_COUNTED``; ``shown`` are on its page."""
    if 0 < shown < view.rows:
        return (view.page - 1) * view.rows + shown
    if view.filters.search.strip() or view.filters.active or view.show in (WorklistPart.REPORTED, WorklistPart.ALL):
        return context.services.worklist.count(view.show, view.filters)
    return min(counts[view.show], MOST_COUNTED)


def _saved(context: RequestContext) -> tuple[SavedFilter, ...]:
    user = context.who.user
    return () if user is None else context.services.database.read(saved_filters, user.id)


def _choices(context: RequestContext) -> dict[str, tuple[str, ...]]:
    """What the filters offer."""
    names = tuple(one.name for one in context.services.settings.destinations)
    return context.services.worklist.choices() | {"destination": names, "state": tuple(StudyState)}


def _rows(context: RequestContext, view: View) -> tuple[WorklistRow, ...]:
    return context.services.worklist.page(
        show=view.show,
        filters=view.filters,
        order=view.order,
        descending=view.descending,
        limit=view.rows,
        offset=(view.page - 1) * view.rows,
        as_listed=True,
    )


async def stream_changes(context: RequestContext) -> Response:
    """Server-sent events: which studies have changed. The stream ends with the session."""
    services = context.services

    async def is_authorised() -> bool:
        settings, now = services.settings.admin, services.clock()
        found = await run_in_threadpool(principal_of, context.request, services.accounts, settings, now)
        return found is not None and not await context.request.is_disconnected()

    async def body() -> AsyncIterator[str]:
        async for text in services.event_stream.listen(is_authorised):
            yield text

    return StreamingResponse(body(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
