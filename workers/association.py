"""Associations of all SCUs of the node, and which C-STORE statuses mean *stored*."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

from pynetdicom import AE, Association, evt
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from workers.tls import ClientContext, TlsError

log = logging.getLogger(__name__)

# PS3.7 Annex C: the warnings outside of 0xBxxx.
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})


def open_association(
    address: tuple[str, int],
    *,
    called: str,
    calling: str,
    contexts: Sequence[PresentationContext],
    seconds: float,
    connect_seconds: float,
    tls: ClientContext | None = None,
) -> Association:
    """Request an association; the caller looks whether it was accepted.

    Every wait for the peer ends after ``seconds``, the one for its connection (and for a TLS handshake) after
    ``connect_seconds``.

    Raises:
        OSError: the host name cannot be resolved.
        TlsError: there is no TLS connection, because of one of the two certificates for example.
    """
    entity = AE(ae_title=calling)
    entity.connection_timeout = connect_seconds
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = seconds
    handlers = [(evt.EVT_CONN_OPEN, prepare, [seconds])]
    tls_args = None if tls is None else (tls, address[0])
    association = entity.associate(*address, list(contexts), called, evt_handlers=handlers, tls_args=tls_args)
    if tls is not None and tls.failure and not association.is_established:
        raise TlsError(tls.failure)
    _note_rejection(association)
    return association


def _note_rejection(association: Association) -> None:
    """Note a rejection that pynetdicom has not looked at.

    pynetdicom waits for its connection, then looks whether it stands. A peer that rejects and closes in between looks
    like one that cannot be reached, and its answer stays in the queue.
    """
    answer = association.dul.peek_next_pdu()
    if not association.is_established and isinstance(answer, A_ASSOCIATE) and answer.result:
        association.acceptor.primitive = answer
        association.is_rejected, association.is_aborted = True, False


def prepare(event: evt.Event, seconds: float) -> None:
    """Set a timeout for a peer that does not read, and disable Nagle's algorithm, which costs 40 ms for each object
    with a peer that delays its acknowledgements."""
    _keep_responses(event.assoc)
    event.assoc._reactor_checkpoint = _Unhurried()
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.settimeout(seconds)
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _keep_responses(association: Association) -> None:
    """Keep pynetdicom's reactor thread from the responses that ``send_*()`` waits for.

    The reactor looks for messages of the peer. ``send_*()`` pauses it, but a reactor that has just passed its
    checkpoint still takes the next message: then a response is lost, and the sender waits for its whole time limit
    (pynetdicom issue 875). An SCU gets nothing but responses, so its reactor need not look.

    Nor does pynetdicom look which message is answered. A peer that answers one twice would have the next object counted
    as stored, whatever became of it: a response to another message than the latest is dropped.
    """
    next_message, send = association.dimse.get_msg, association.dimse.send_msg
    asked = 0

    def send_msg(primitive: Any, context_id: int) -> None:
        nonlocal asked
        asked = getattr(primitive, "MessageID", None) or asked
        send(primitive, context_id)

    def get_msg(block: bool = False) -> tuple[Any, Any]:
        if threading.current_thread() is association:
            return None, None
        for _ in range(_MOST_STRAY_RESPONSES):
            taken: tuple[Any, Any] = next_message(block)
            if taken[1] is None or taken[1].MessageIDBeingRespondedTo in (None, asked):
                return taken
            log.warning("the peer answers message %s, which nobody waits for", taken[1].MessageIDBeingRespondedTo)
        return None, None

    association.dimse.get_msg, association.dimse.send_msg = get_msg, send_msg


def next_message_id() -> int:
    """A Message ID (PS3.7 E.1) that no message shortly before had: one that is answered twice shifts no answer."""
    return next(_MESSAGE_IDS)


_MESSAGE_IDS = cycle(range(1, 0x10000))
_MOST_STRAY_RESPONSES = 100
_BUSY_SECONDS, _IDLE_SECONDS = 0.001, 0.01
"""How often pynetdicom's two threads look whether there is something to do. Each millisecond, as they do by themselves,
costs some hundredths of a core for an association that stays open."""


class _Unhurried(threading.Event):
    """What pynetdicom's reactor waits for before each look: it is paused here. Who sends takes the response itself."""

    def __init__(self) -> None:
        super().__init__()
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a while, and then until the event is set."""
        time.sleep(_IDLE_SECONDS)
        return super().wait(timeout)


@contextmanager
def busy(association: Association) -> Iterator[None]:
    """Look at the connection often while the block runs, and seldom afterwards."""
    association.dul._run_loop_delay = _BUSY_SECONDS
    try:
        yield
    finally:
        association.dul._run_loop_delay = _IDLE_SECONDS


def is_stored(status: int) -> bool:
    """Whether a C-STORE status (PS3.4 B.2.3, PS3.7 Annex C) says that the peer has the object: success or a warning."""
    return status == 0x0000 or status in _WARNINGS or 0xB000 <= status <= 0xBFFF


def status_text(status: int | None) -> str:
    """A DIMSE status as text; None is no response."""
    return "nothing in time" if status is None else f"0x{status:04X}"


def stored_with(warning: int) -> str:
    """The note about an object that the peer has stored with a warning."""
    return f"stored with warning {status_text(warning)}"
