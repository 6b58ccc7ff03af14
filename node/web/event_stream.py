"""Server-sent events for open pages (WHATWG HTML, 9.2): which studies have changed.

One poll of the table of events serves every page. An event contains row numbers only; a page then requests the rows
that its user may see.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger("pleura.admin")

# (number of the latest event, studies that changed since a given one)
Poll = Callable[[int | None], tuple[int, Sequence[int]]]
_POLL_SECONDS = 1.0
_HEARTBEAT_SECONDS = 15.0


class EventStream:
    """Polls while there are listeners, and sends every listener the changes."""

    def __init__(self, poll: Poll) -> None:
        """``poll(None)`` returns the end of the table of events; ``poll(n)`` the changes after event ``n``."""
        self._poll = poll
        self._listeners: set[asyncio.Queue[tuple[int, Sequence[int]] | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def listen(self, is_authorised: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
        """The event stream of one page. It ends when the node stops, or when ``is_authorised`` returns False."""
        if self._closed:
            return
        queue: asyncio.Queue[tuple[int, Sequence[int]] | None] = asyncio.Queue(maxsize=100)
        self._listeners.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            yield "retry: 2000\nevent: hello\ndata: {}\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), _HEARTBEAT_SECONDS)
                except TimeoutError:
                    if not await is_authorised():
                        return
                    yield ": heartbeat\n\n"
                    continue
                if event is None or not await is_authorised():
                    return
                number, studies = event
                yield f"id: {number}\nevent: change\ndata: {json.dumps({'studies': list(studies)})}\n\n"
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        """End every stream, so that the server can stop. Called in the loop."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        for queue in list(self._listeners):
            _offer(queue, None)

    async def _run(self) -> None:
        position: int | None = None
        while self._listeners:
            try:
                latest, studies = await asyncio.to_thread(self._poll, position)
            except SQLAlchemyError as error:
                log.warning("the database cannot be read for the live worklist: %s", type(error).__name__)
            else:
                if position is not None and latest != position:
                    for queue in list(self._listeners):
                        _offer(queue, (latest, studies))
                position = latest
            await asyncio.sleep(_POLL_SECONDS)


def _offer(queue: asyncio.Queue[tuple[int, Sequence[int]] | None], event: tuple[int, Sequence[int]] | None) -> None:
    """Queue an event; a page that does not read loses old events, and requests everything when it reconnects."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)
