"""The worklist: one page, its rows alone for a live refresh, and the event stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from db.queries.worklist import Order, Show
from db.records import WorklistRow
from node.web.authentication import principal_of
from node.web.middleware import RequestContext

PAGE = 50
_LAST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class View:
    """The part of the worklist that an address requests; invalid values become the default."""

    show: Show
    order: Order
    descending: bool
    search: str
    page: int

    def link(self, **changes: str) -> str:
        """Address of the same view with ``changes``; defaults are left out."""
        values = {
            "show": self.show.value,
            "order": self.order.value,
            "down": "1" if self.descending else "",
            "q": self.search,
            "page": str(self.page) if self.page > 1 else "",
        } | changes
        defaults = {"show": "unreported", "order": "due", "page": "1"}
        kept = {name: value for name, value in values.items() if value and defaults.get(name) != value}
        return "/?" + urlencode(kept) if kept else "/"

    def sort_link(self, order: str) -> str:
        """Address that sorts by ``order``, in reverse if the view is sorted by it already."""
        reversed_order = self.order.value == order and not self.descending
        return self.link(order=order, down="1" if reversed_order else "", page="1")


def view_of(context: RequestContext) -> View:
    """Parse the query parameters."""
    page = context.query("page", "1")
    return View(
        show=_member(Show, context.query("show"), Show.UNREPORTED),
        order=_member(Order, context.query("order"), Order.DUE),
        descending=context.query("down") == "1",
        search=context.query("q").replace("\x00", "")[:100].strip(),
        page=min(_LAST_PAGE, max(1, int(page))) if page.isascii() and page.isdigit() and len(page) < 6 else 1,
    )


Member = TypeVar("Member", Show, Order)


def _member(kind: type[Member], value: str, default: Member) -> Member:
    return kind(value) if value in {member.value for member in kind} else default


def show_worklist(context: RequestContext) -> Response:
    """The whole page, or only its rows with ``part=rows``."""
    view = view_of(context)
    rows = _rows(context, view)
    total = context.services.reading.count(view.show, view.search)
    template = "worklist_part.html" if context.query("part") == "rows" else "worklist.html"
    return context.page(
        template,
        view=view,
        rows=rows,
        total=total,
        first=(view.page - 1) * PAGE + 1,
        last=(view.page - 1) * PAGE + len(rows),
        counts=context.services.reading.counts(),
        overdue=context.services.statistics.overdue(context.now),
        Show=Show,
    )


def _rows(context: RequestContext, view: View) -> tuple[WorklistRow, ...]:
    return context.services.reading.page(
        show=view.show,
        search=view.search,
        order=view.order,
        descending=view.descending,
        limit=PAGE,
        offset=(view.page - 1) * PAGE,
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
