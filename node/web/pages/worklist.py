"""The worklist: one page of it, its rows alone for a live refresh, and the stream of news."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from db.queries.worklist import ListedStudy, Order, Show
from node.web.authentication import principal_of
from node.web.middleware import RequestContext

PAGE = 50
_LAST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """What part of the worklist an address asks for; anything that makes no sense becomes the default."""

    show: Show
    order: Order
    descending: bool
    search: str
    page: int

    def link(self, **changes: str) -> str:
        """Address of the same view with ``changes``; what is the default is left out."""
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
        """Address that sorts by ``order``, and the other way round where it already does."""
        turned = self.order.value == order and not self.descending
        return self.link(order=order, down="1" if turned else "", page="1")


def asked_for(context: RequestContext) -> Asked:
    """Read the address."""
    page = context.query("page", "1")
    return Asked(
        show=_word(Show, context.query("show"), Show.UNREPORTED),
        order=_word(Order, context.query("order"), Order.DUE),
        descending=context.query("down") == "1",
        search=context.query("q").replace("\x00", "")[:100].strip(),
        page=min(_LAST_PAGE, max(1, int(page))) if page.isascii() and page.isdigit() and len(page) < 6 else 1,
    )


Word = TypeVar("Word", Show, Order)


def _word(kind: type[Word], value: str, default: Word) -> Word:
    return kind(value) if value in {member.value for member in kind} else default


def show_worklist(context: RequestContext) -> Response:
    """The whole page, or with ``part=rows`` only what changes while it is open."""
    asked = asked_for(context)
    rows = _rows(context, asked)
    total = context.services.reading.count(asked.show, asked.search)
    template = "worklist_part.html" if context.query("part") == "rows" else "worklist.html"
    return context.page(
        template,
        asked=asked,
        rows=rows,
        total=total,
        first=(asked.page - 1) * PAGE + 1,
        last=(asked.page - 1) * PAGE + len(rows),
        counts=context.services.reading.counts(),
        overdue=context.services.statistics.overdue(context.now),
        Show=Show,
    )


def _rows(context: RequestContext, asked: Asked) -> tuple[ListedStudy, ...]:
    return context.services.reading.page(
        show=asked.show,
        search=asked.search,
        order=asked.order,
        descending=asked.descending,
        limit=PAGE,
        offset=(asked.page - 1) * PAGE,
    )


async def stream_news(context: RequestContext) -> Response:
    """Server-sent events: which studies have changed. The stream ends with the log-in."""
    services = context.services

    async def still_welcome() -> bool:
        settings, now = services.settings.admin, services.clock()
        found = await run_in_threadpool(principal_of, context.request, services.accounts, settings, now)
        return found is not None and not await context.request.is_disconnected()

    async def body() -> AsyncIterator[str]:
        async for text in services.feed.listen(still_welcome):
            yield text

    return StreamingResponse(body(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
