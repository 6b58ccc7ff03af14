"""The upper layer (PS3.8) of an association that receives: pynetdicom's, with a short way for P-DATA.

pynetdicom looks at its connection once a millisecond, copies each PDU four times and makes an object of every step:
that takes longer than receiving, storing and recording a small image. So :class:`ReceivingDul` waits for the peer
instead of looking, and hands the fragments of P-DATA-TF PDUs to their taker where they lie in the receive buffer.
Everything else (opening, releasing, aborting, the state machine, every timer) is pynetdicom's, unchanged.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket

log = logging.getLogger(__name__)

# Events of the state machine (PS3.8 table 9-10) by which an association ends, and what to say of them. The first that
# was seen counts: a release after an abort is none.
_ENDS = {
    "Evt19": "the peer sent an invalid PDU",
    "Evt16": "the peer aborted it",
    "Evt15": "the listener aborted it",
    "Evt12": "",
    "Evt14": "",
    "Evt17": "the connection was closed or broken",
}
_A_ASSOCIATE_RQ = 0x01
_TITLES_END = 42  # PS3.8 table 9-11
_P_DATA = 0x04
_PDU_HEADER = 6
_ITEM_HEADER = 6
_DATA_TRANSFER = "Sta6"
_BUFFER = 256 * 1024
# How long a thread waits for news before it looks by itself at what comes without news: timers, the end of the other.
_PATIENCE_SECONDS = 0.1
# An A-ASSOCIATE-RQ with 128 presentation contexts and every transfer syntax is larger than most maximum PDUs.
_LONGEST_REQUEST = 1024 * 1024
_LONGEST_PATIENCE = 60.0


class Pace:
    """How fast a message arrives: ``seconds`` of waiting for the peer must bring ``minimum`` bytes each.

    Only waiting counts: a listener that is slow itself is not the peer's fault.
    """

    def __init__(self, seconds: float, minimum: int) -> None:
        self._seconds = seconds
        self._least = seconds * minimum
        self._waited = 0.0
        self._received = 0

    def reset(self) -> None:
        """Begin anew; between messages there is no pace."""
        self._waited, self._received = 0.0, 0

    def receive(self, count: int) -> None:
        """Count bytes."""
        self._received += count

    def wait(self, seconds: float) -> bool:
        """Count time that was waited; False where too little came in it."""
        self._waited += seconds
        if self._waited < self._seconds:
            return True
        enough = self._received >= self._least
        self.reset()
        return enough


class InvalidPduError(ValueError):
    """What the peer sends is no P-DATA-TF PDU (PS3.8 9.3.5), or is longer than agreed."""


Take = Callable[[int, int, memoryview, bool], None]
"""Takes a piece of a fragment: presentation context, message control header (PS3.8 annex E.2), the bytes, and whether
the fragment ends with them. The bytes are only good until it returns."""


class FragmentReader:
    """Cuts a stream of P-DATA-TF PDUs into pieces of fragments, wherever the network has cut it before."""

    def __init__(self, take: Take, longest: int) -> None:
        self._take = take
        self._longest = longest
        self._pdu_left = 0
        self._item_left = 0
        self._context_id = 0
        self._control = 0

    @property
    def between_pdus(self) -> bool:
        """No PDU has begun and not ended."""
        return not self._pdu_left

    def read(self, data: memoryview) -> int:
        """Take what is whole in ``data``; returns how many bytes that was. Stops before any other PDU.

        Raises:
            InvalidPduError: lengths that contradict each other or what was agreed.
        """
        at = 0
        while True:
            if self._item_left:
                piece = data[at : at + self._item_left]
                step = len(piece)
                self._item_left -= step
                self._pdu_left -= step
                if piece:
                    self._take(self._context_id, self._control, piece, not self._item_left)
            else:
                step = self._begin_item(data[at:]) if self._pdu_left else self._begin_pdu(data[at:])
            if not step:
                return at
            at += step

    def _begin_pdu(self, data: memoryview) -> int:
        if len(data) < _PDU_HEADER or data[0] != _P_DATA:
            return 0
        (self._pdu_left,) = struct.unpack_from(">L", data, 2)
        if self._pdu_left > self._longest:
            raise InvalidPduError(f"a PDU of {self._pdu_left} bytes is longer than was agreed")
        return _PDU_HEADER

    def _begin_item(self, data: memoryview) -> int:
        if self._pdu_left < _ITEM_HEADER:
            raise InvalidPduError("a PDU ends within a header")
        if len(data) < _ITEM_HEADER:
            return 0
        length, self._context_id, self._control = struct.unpack_from(">LBB", data)
        if not 2 <= length <= self._pdu_left - 4:
            raise InvalidPduError("a fragment does not fit into its PDU")
        self._pdu_left -= _ITEM_HEADER
        self._item_left = length - 2
        if not self._item_left:
            self._take(self._context_id, self._control, data[:0], True)
        return _ITEM_HEADER


class BufferedSocket(AssociationSocket):  # type: ignore[misc]
    """An association's socket that reads ahead, and takes no PDU longer than was agreed.

    The length of a PDU is the peer's word (PS3.8 9.3.1): believed blindly, six bytes could ask for 4 GiB of memory.
    """

    longest: int
    patience: float
    _buffer: bytearray
    _start: int
    _end: int

    @classmethod
    def adopt(cls, plain: AssociationSocket, maximum_pdu: int) -> BufferedSocket:
        """Take over a connected socket; making a second one would announce the connection twice."""
        buffered: BufferedSocket = cls.__new__(cls)
        buffered.__dict__.update(plain.__dict__)
        buffered.longest = maximum_pdu + _LONGEST_REQUEST
        buffered.patience = plain.socket.gettimeout() or _LONGEST_PATIENCE
        buffered._buffer = bytearray(_BUFFER)
        buffered._start = buffered._end = 0
        return buffered

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        return self._start < self._end or bool(super().ready)

    @property
    def descriptor(self) -> int:
        """File descriptor; -1 where another thread has closed the connection."""
        connection = self.socket
        return connection.fileno() if connection is not None else -1

    @property
    def waiting(self) -> memoryview:
        """What was read ahead."""
        return memoryview(self._buffer)[self._start : self._end]

    def consume(self, count: int) -> None:
        """Forget so many bytes of what was read ahead."""
        self._start += count

    def forget(self) -> None:
        """Give the memory back; an association is only collected as garbage some time after its end."""
        self._buffer = bytearray()
        self._start = self._end = 0

    def fill(self) -> bool:
        """Read ahead what there is, without waiting; False where there is nothing yet.

        Raises:
            EOFError: the connection has ended.
        """
        left = self._end - self._start
        self._buffer[:left] = self._buffer[self._start : self._end]
        self._start, self._end = 0, left
        try:
            # Its time limit makes the socket a non-blocking one; its own recv_into would look first and read then.
            count = os.readv(self.descriptor, [memoryview(self._buffer)[left:]])
        except BlockingIOError:
            return False
        except OSError as error:
            raise EOFError("the connection is broken") from error
        if not count:
            raise EOFError("the peer has closed the connection")
        self._end += count
        return True

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, or fewer where the peer closes the connection.

        Raises:
            OSError: the PDU is too long, the connection is broken, or the bytes do not come within its time limit.
        """
        if nr_bytes > self.longest:
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than was agreed")
        data = bytearray(self.waiting[:nr_bytes])
        self.consume(len(data))
        received = len(data)
        data.extend(bytes(nr_bytes - received))
        end = time.monotonic() + self.patience
        with memoryview(data) as view:
            while received < nr_bytes:
                if self.socket is None or time.monotonic() > end:
                    raise OSError("the connection is closed, or too slow")
                count = self.socket.recv_into(view[received:])
                if not count:
                    break
                received += count
        del data[received:]
        return data


class NewsQueue(queue.Queue[Any]):
    """A queue that tells when something is put into it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put ``item`` into the queue and tell."""
        super().put(item, block, timeout)
        self._tell()


class Checkpoint(threading.Event):
    """Where pynetdicom's association thread comes by once a millisecond, to see whether it was asked to pause.

    It waits here for news instead, and so costs nothing while images arrive.
    """

    def __init__(self) -> None:
        super().__init__()
        self._news = threading.Event()
        self.set()

    def tell(self) -> None:
        """There is something to do."""
        self._news.set()

    def set(self) -> None:
        """Let the thread pass; see the base class."""
        super().set()
        self._news.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for news, but never long, and then for the permission to pass."""
        self._news.wait(_PATIENCE_SECONDS)
        self._news.clear()
        return super().wait(timeout)


class ReceivingDul(DULServiceProvider):  # type: ignore[misc]
    """The upper layer of one association. ``ended`` is called by its thread as the last thing it does.

    ``titles`` are the calling and the called AE title as they were sent, which may be no AE titles at all; None as long
    as nobody has asked for an association.
    """

    titles: tuple[str, str] | None = None

    def __init__(
        self,
        association: Association,
        take: Take,
        maximum_pdu: int,
        ended: Callable[[], None],
        receiving: Callable[[], bool],
        pace: Pace,
    ) -> None:
        super().__init__(association)
        self._checkpoint = Checkpoint()
        self.to_user_queue = NewsQueue(self._checkpoint.tell)
        self._fragments = FragmentReader(take, maximum_pdu + _LONGEST_REQUEST)
        self._ended = ended
        self._receiving = receiving
        self._pace = pace
        self._seen: set[str] = set()
        self._why = ""
        self._expected = False
        self._act = self.state_machine.do_action
        self.state_machine.do_action = self._note_and_act
        self._waking = threading.Lock()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    @classmethod
    def adopt(
        cls,
        association: Association,
        take: Take,
        maximum_pdu: int,
        ended: Callable[[], None],
        receiving: Callable[[], bool] = lambda: False,
        pace: Pace | None = None,
    ) -> ReceivingDul:
        """Put a new upper layer into an association whose threads have not started.

        ``receiving`` tells whether a message has begun and not ended: then ``pace`` counts.
        """
        before = association.dul
        dul = cls(association, take, maximum_pdu, ended, receiving, pace or Pace(60.0, 0))
        dul.event_queue = before.event_queue
        dul.artim_timer.timeout, dul._idle_timer.timeout = before.artim_timer.timeout, before._idle_timer.timeout
        dul.socket = BufferedSocket.adopt(before.socket, maximum_pdu)
        association.dul = dul
        association._reactor_checkpoint = dul._checkpoint
        return dul

    def _decode_pdu(self, bytestream: bytearray) -> Any:
        if bytestream[0] == _A_ASSOCIATE_RQ and len(bytestream) >= _TITLES_END:
            called, calling = bytestream[10:26], bytestream[26:_TITLES_END]
            self.titles = calling.decode("latin-1").strip(" \0"), called.decode("latin-1").strip(" \0")
        return super()._decode_pdu(bytestream)

    @property
    def disturbance(self) -> str:
        """Why the association did not end by a release, for the log; empty where it did, or was never asked for."""
        if self._expected:
            return ""
        if self._why:
            return self._why
        return next((why for event, why in _ENDS.items() if event in self._seen), "")

    def give_up(self, why: str) -> None:
        """Abort the association soon (PS3.8 9.2.2, event 19: an invalid PDU), for this reason."""
        self._why = self._why or why
        self.event_queue.put("Evt19")

    def expect_end(self) -> None:
        """Note that it was said already why the association ends."""
        self._expected = True

    def close(self, why: str) -> None:
        """Close the connection at once, for this reason; for any thread."""
        self._why = self._why or why
        connection = self.socket.socket if self.socket is not None else None
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is closed

    def _note_and_act(self, event: str) -> None:
        self._seen.add(event)
        if event == "Evt15" and self.idle_timer_expired():
            self._why = self._why or "it was idle for too long"
        try:
            self._act(event)
        except Exception as error:
            # What pynetdicom's state machine cannot answer (an A-ABORT of no source, say) would end this thread alone,
            # and leave the connection and the association's thread behind.
            self._why = self._why or f"the peer sent what cannot be answered ({type(error).__name__})"
            self._end_at_once()

    def _end_at_once(self) -> None:
        self.assoc.is_aborted, self.assoc.is_established = True, False
        self.assoc._kill = self._kill_thread = True
        if self.socket is not None:
            self.socket.close()

    def tell_association(self) -> None:
        """Let the association's thread look for what there is to do."""
        self._checkpoint.tell()

    def run_reactor(self) -> None:
        """Run until the association ends; see the base class."""
        try:
            super().run_reactor()
        finally:
            self._ended()
            self.socket.forget()
            # The association's thread would wait half a minute more for a request that cannot come.
            self.to_user_queue.put(None)
            with self._waking:
                for descriptor in (self._wake, self._woken):
                    os.close(descriptor)
                self._wake = -1

    def send_pdu(self, primitive: Any) -> None:
        """Send a primitive soon; see the base class."""
        super().send_pdu(primitive)
        self._wake_up()

    def kill_dul(self) -> None:
        """End soon; see the base class."""
        super().kill_dul()
        self._wake_up()

    def _wake_up(self) -> None:
        with self._waking:
            if self._wake >= 0:
                try:
                    os.write(self._wake, b"\0")
                except BlockingIOError:
                    return  # the pipe is full of reasons to wake up

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state == _DATA_TRANSFER and not self._transfer():
            return False
        return bool(super()._is_transport_event())

    def _transfer(self) -> bool:
        """Take P-DATA until there is something else to do; True where that is to be read from the connection."""
        connection = self.socket
        try:
            poll = _poll(connection.descriptor, self._woken)
            while self.to_provider_queue.empty() and self.event_queue.empty() and not self._kill_thread:
                connection.consume(self._fragments.read(connection.waiting))
                waiting = connection.waiting
                if waiting and self._fragments.between_pdus and waiting[0] != _P_DATA:
                    return True
                before = len(waiting)
                if connection.fill():
                    self._idle_timer.restart()
                    self._pace.receive(len(connection.waiting) - before)
                elif not self._wait(poll):
                    break
        except EOFError:
            return True
        except InvalidPduError as error:
            self.give_up(str(error))
        except Exception:
            # Our own fault, which must end this association and no more than it.
            log.exception("taking P-DATA failed")
            self.give_up("the listener failed")
        return False

    def _wait(self, poll: select.poll) -> bool:
        """Wait for the peer; False where there is something else to look at."""
        start = time.monotonic()
        ready = poll.poll(_PATIENCE_SECONDS * 1000)
        if not (self._receiving() or self.socket.waiting or not self._fragments.between_pdus):
            self._pace.reset()
        elif not self._pace.wait(time.monotonic() - start):
            raise InvalidPduError("its message arrives too slowly")
        if (self._woken, select.POLLIN) in ready:
            os.read(self._woken, 4096)
            return False
        return bool(ready)


def _poll(*descriptors: int) -> select.poll:
    poll = select.poll()
    for descriptor in descriptors:
        if descriptor < 0:
            raise EOFError("another thread has closed the connection")
        poll.register(descriptor, select.POLLIN)
    return poll
