"""pynetdicom's upper layer (PS3.8) for a receiving association, with a fast path for P-DATA.

pynetdicom polls its connection once a millisecond, copies each PDU four times and makes an object for every step. That
takes longer than receiving, storing and recording a small image. So :class:`ReceivingDul` waits for the peer instead of
polling, and passes the fragments of P-DATA-TF PDUs on as views of the receive buffer. Everything else (association
request, release, abort, state machine, timers) is pynetdicom's, unchanged.

It stands on private parts of pynetdicom, which :mod:`node.dicom.upper_layer.choice` lists and looks for.
"""

from __future__ import annotations

import logging
import os
import select
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider

from node.dicom.upper_layer.buffered_socket import LONGEST_REQUEST, BufferedSocket, TlsBufferedSocket
from node.dicom.upper_layer.connection import CLOSED, Connection, Handlers, Receiving
from node.dicom.upper_layer.dimse import StorageDimse
from node.dicom.upper_layer.fragments import P_DATA, FragmentReader, InvalidPduError, MinimumRate, Take
from node.dicom.upper_layer.waking import POLL_SECONDS, Checkpoint, NotifyingQueue
from workers.tls import shut_down

log = logging.getLogger(__name__)

# Events of the state machine (PS3.8 table 9-10) that end an association, with their text for the log. The first one
# that occurred counts: a release after an abort does not.
_ENDS = {
    "Evt19": "the peer sent an invalid PDU",
    "Evt16": "the peer aborted it",
    "Evt15": "the listener aborted it",
    "Evt12": "",
    "Evt14": "",
    "Evt17": CLOSED,
}
_A_ASSOCIATE_RQ = 0x01
_TITLES_END = 42  # PS3.8 table 9-11
_DATA_TRANSFER = "Sta6"
_ENDING = "Sta13"


class ReceivingDul(DULServiceProvider):  # type: ignore[misc]
    """The upper layer of one association. Its thread calls ``ended`` as its last step.

    ``titles`` are the calling and the called AE title as sent, valid or not; None until an association is requested.
    """

    titles: tuple[str, str] | None = None
    _ended: Callable[[], None]
    _receiving: Callable[[], bool]
    _minimum_rate: MinimumRate

    @classmethod
    def adopt(
        cls,
        association: Association,
        take: Take,
        maximum_pdu: int,
        ended: Callable[[], None],
        receiving: Callable[[], bool] = lambda: False,
        minimum_rate: MinimumRate | None = None,
    ) -> ReceivingDul:
        """Make the upper layer of an association whose threads have not started one of this kind.

        ``receiving`` returns whether a message has arrived in part; only then ``minimum_rate`` applies.
        """
        dul: ReceivingDul = association.dul
        dul.__class__ = cls  # a second one, with its queues and timers, would take longer than the negotiation
        dul._prepare()
        dul._fragments = FragmentReader(take, maximum_pdu + LONGEST_REQUEST)
        dul._ended, dul._receiving, dul._minimum_rate = ended, receiving, minimum_rate or MinimumRate(60.0, 0)
        kind = TlsBufferedSocket if isinstance(dul.socket.socket, ssl.SSLSocket) else BufferedSocket
        dul.socket = kind.adopt(dul.socket, maximum_pdu)
        association._reactor_checkpoint = dul._checkpoint
        return dul

    def _prepare(self) -> None:
        self._checkpoint = Checkpoint()
        self.to_user_queue = NotifyingQueue(self._checkpoint.notify)
        self._run_loop_delay = 0.0
        self._seen: set[str] = set()
        self._why = ""
        self._expected = False
        self._act = self.state_machine.do_action
        self.state_machine.do_action = self._note_and_act
        self._waking = threading.Lock()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def run(self) -> None:
        """Run the reactor of this class: the base class has bound its own as the target of its thread."""
        self.run_reactor()

    def _decode_pdu(self, bytestream: bytearray) -> Any:
        if bytestream[0] == _A_ASSOCIATE_RQ and len(bytestream) >= _TITLES_END:
            called, calling = bytestream[10:26], bytestream[26:_TITLES_END]
            self.titles = calling.decode("latin-1").strip(" \0"), called.decode("latin-1").strip(" \0")
        return super()._decode_pdu(bytestream)

    @property
    def abnormal_end(self) -> str:
        """Why the association did not end by a release, for the log; empty if it did, or was never requested."""
        if self._expected:
            return ""
        if self._why:
            return self._why
        return next((why for event, why in _ENDS.items() if event in self._seen), "")

    def abort_for(self, why: str) -> None:
        """Abort the association for this reason (PS3.8 9.2.2, event 19: an invalid PDU); returns at once."""
        self._why = self._why or why
        self.event_queue.put("Evt19")

    def suppress_end_message(self) -> None:
        """Do not log why the association ends: the caller has logged it."""
        self._expected = True

    def close(self, why: str) -> None:
        """Close the connection at once for this reason. Any thread may call it."""
        self._why = self._why or why
        connection = self.socket.socket if self.socket is not None else None
        if connection is not None:
            shut_down(connection)

    def _note_and_act(self, event: str) -> None:
        self._seen.add(event)
        if event == "Evt15" and self.idle_timer_expired():
            self._why = self._why or "it was idle for too long"
        try:
            self._act(event)
        except Exception as error:
            # An error in pynetdicom's state machine (for example on an A-ABORT without a source) would end only this
            # thread, and leave the connection and the association's thread behind.
            self._why = self._why or f"the peer sent a PDU that cannot be handled ({type(error).__name__})"
            self._end_at_once()

    def _end_at_once(self) -> None:
        self.assoc.is_aborted, self.assoc.is_established = True, False
        self.assoc._kill = self._kill_thread = True
        if self.socket is not None:
            self.socket.close()

    def notify_association(self) -> None:
        """Wake the association's thread."""
        self._checkpoint.notify()

    def run_reactor(self) -> None:
        """Run until the association ends; see the base class."""
        try:
            super().run_reactor()
        finally:
            self._ended()
            self.socket.release_buffer()
            # Otherwise the association's thread would wait half a minute more for a request that cannot come.
            self.to_user_queue.put(None)
            with self._waking:
                for descriptor in (self._wake, self._woken):
                    os.close(descriptor)
                self._wake = -1

    def send_pdu(self, primitive: Any) -> None:
        """Queue a primitive to be sent; see the base class."""
        super().send_pdu(primitive)
        self._wake_up()

    def kill_dul(self) -> None:
        """Request the end of the thread; see the base class."""
        super().kill_dul()
        self._wake_up()

    def _wake_up(self) -> None:
        with self._waking:
            if self._wake >= 0:
                try:
                    os.write(self._wake, b"\0")
                except BlockingIOError:
                    return  # the pipe is full, so the thread wakes up anyway

    def _is_transport_event(self) -> bool:
        state = self.state_machine.current_state
        if state == _DATA_TRANSFER and not self._transfer():
            return False
        if state not in (_DATA_TRANSFER, _ENDING):
            self._wait_for_work()
        return bool(super()._is_transport_event())

    def _wait_for_work(self) -> None:
        """Wait for the peer or for the association's thread, where pynetdicom looks once a millisecond."""
        if self._has_work or self.socket.ready:
            return
        connection = self.socket.descriptor
        self._wait_until_ready(_poll(*([connection] if connection >= 0 else []), self._woken))

    @property
    def _has_work(self) -> bool:
        """Whether something is to be sent, an event is to be handled, or the thread is to end."""
        return self._kill_thread or not (self.to_provider_queue.empty() and self.event_queue.empty())

    def _transfer(self) -> bool:
        """Handle P-DATA until there is other work; True if a PDU of another type must be read from the connection."""
        connection = self.socket
        try:
            poll = _poll(connection.descriptor, self._woken)
            while not self._has_work:
                connection.consume(self._fragments.read(connection.waiting))
                waiting = connection.waiting
                if waiting and self._fragments.between_pdus and waiting[0] != P_DATA:
                    return True
                before = len(waiting)
                if connection.fill():
                    self._idle_timer.restart()
                    self._minimum_rate.receive(len(connection.waiting) - before)
                elif not self._wait(poll):
                    break
        except EOFError:
            return True
        except InvalidPduError as error:
            self.abort_for(str(error))
        except Exception:
            # A fault of this node ends this association and no other.
            log.exception("handling P-DATA failed")
            self.abort_for("the listener failed")
        return False

    def _wait(self, poll: select.poll) -> bool:
        """Wait for the peer; False if there is other work."""
        start = time.monotonic()
        ready, woken = self._wait_until_ready(poll)
        if not (self._receiving() or self.socket.waiting or not self._fragments.between_pdus):
            self._minimum_rate.reset()
        elif not self._minimum_rate.wait(time.monotonic() - start):
            raise InvalidPduError("its message arrives below the minimum rate")
        return ready and not woken

    def _wait_until_ready(self, poll: select.poll) -> tuple[bool, bool]:
        """Whether there is something within some time, and whether it is another thread that woke this one."""
        ready = poll.poll(POLL_SECONDS * 1000)
        woken = (self._woken, select.POLLIN) in ready
        if woken:
            os.read(self._woken, 4096)
        return bool(ready), woken


def _poll(*descriptors: int) -> select.poll:
    poll = select.poll()
    for descriptor in descriptors:
        if descriptor < 0:
            raise EOFError("another thread has closed the connection")
        poll.register(descriptor, select.POLLIN)
    return poll


class FastConnection:
    """One connection of a peer; see :class:`node.dicom.upper_layer.connection.Connection`."""

    def __init__(self, dul: ReceivingDul, dimse: StorageDimse) -> None:
        self._dul = dul
        self._dimse = dimse
        self.close = dul.close
        self.suppress_end_message = dul.suppress_end_message

    @property
    def titles(self) -> tuple[str, str] | None:
        """Calling and called AE title as sent."""
        return self._dul.titles

    @property
    def busy(self) -> bool:
        """Whether a message is arriving or being answered."""
        return self._dimse.busy

    @property
    def abnormal_end(self) -> str:
        """Why the association did not end by a release."""
        return self._dul.abnormal_end


class FastUpperLayer:
    """The upper layer of a listener; see :class:`node.dicom.upper_layer.connection.UpperLayer`."""

    def __init__(self, receiving: Receiving) -> None:
        self._receiving = receiving

    def handlers(self) -> Handlers:
        """None: a C-STORE does not reach pynetdicom's own events."""
        return []

    def open(self, association: Association) -> Connection:
        """Take a connection whose association's threads have not started."""
        receiving, listener = self._receiving, self._receiving.listener
        dimse = StorageDimse(
            association,
            receiving.begin,
            listener.maximum_instance_bytes,
            receiving.answering,
            receiving.answered,
        )

        def ended() -> None:
            dimse.discard()
            receiving.ended(association)

        dul = ReceivingDul.adopt(
            association,
            dimse.take,
            listener.maximum_pdu,
            ended,
            lambda: dimse.receiving,
            MinimumRate(listener.idle_timeout_seconds, listener.minimum_bytes_per_second),
        )
        association.dimse = dimse
        return FastConnection(dul, dimse)

    def tend(self) -> None:
        """Do nothing: each connection says itself that it has ended."""
