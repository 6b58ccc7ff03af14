"""The socket of a receiving association: it reads ahead, takes no PDU that is too long, and waits for none for ever.

It stands on private parts of pynetdicom, which :mod:`node.dicom.upper_layer.choice` lists and looks for.
"""

from __future__ import annotations

import os
import select
import ssl
import time

from pynetdicom.transport import AssociationSocket

_BUFFER = 256 * 1024
# An A-ASSOCIATE-RQ with 128 presentation contexts and every transfer syntax is larger than most maximum PDUs.
LONGEST_REQUEST = 1024 * 1024
_MAXIMUM_READ_SECONDS = 60.0


class BufferedSocket(AssociationSocket):  # type: ignore[misc]
    """An association's socket that reads ahead and accepts no PDU longer than negotiated.

    The length of a PDU comes from the peer (PS3.8 9.3.1): without a limit, six bytes could claim 4 GiB of memory.
    """

    longest: int
    read_seconds: float
    _buffer: bytearray
    _start: int
    _end: int

    @classmethod
    def adopt(cls, plain: AssociationSocket, maximum_pdu: int) -> BufferedSocket:
        """Take over a connected socket; making a second one would trigger the connection event twice."""
        buffered: BufferedSocket = cls.__new__(cls)
        buffered.__dict__.update(plain.__dict__)
        buffered.longest = maximum_pdu + LONGEST_REQUEST
        buffered.read_seconds = plain.socket.gettimeout() or _MAXIMUM_READ_SECONDS
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
        """Bytes that were read ahead."""
        return memoryview(self._buffer)[self._start : self._end]

    def consume(self, count: int) -> None:
        """Drop ``count`` of the bytes that were read ahead."""
        self._start += count

    def release_buffer(self) -> None:
        """Free the buffer; the association object itself is collected some time after its end."""
        self._buffer = bytearray()
        self._start = self._end = 0

    def fill(self) -> bool:
        """Read the available bytes without waiting; False if there are none yet.

        Raises:
            EOFError: the connection has ended.
        """
        left = self._end - self._start
        self._buffer[:left] = self._buffer[self._start : self._end]
        self._start, self._end = 0, left
        try:
            count = self._read(memoryview(self._buffer)[left:])
        except BlockingIOError:
            return False
        except OSError as error:
            raise EOFError("the connection is broken") from error
        if not count:
            raise EOFError("the peer has closed the connection")
        self._end += count
        return True

    def _read(self, into: memoryview) -> int:
        """Read without waiting; the number of bytes, 0 at the end.

        Raises:
            BlockingIOError: there are none yet.
            OSError: the connection is broken.
        """
        # The socket's timeout makes it non-blocking; its recv_into would need an extra poll.
        return os.readv(self.descriptor, [into])

    def _wait_and_read(self, into: memoryview, end: float) -> int:
        """Read, and wait for that until the socket's timeout, which comes before ``end``; see :meth:`_read`."""
        del end
        assert self.socket is not None
        return int(self.socket.recv_into(into))

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes`` bytes, or fewer if the peer closes the connection.

        Raises:
            OSError: the PDU is too long, the connection is broken, or the bytes do not arrive within ``read_seconds``.
        """
        if nr_bytes > self.longest:
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than negotiated")
        data = bytearray(self.waiting[:nr_bytes])
        self.consume(len(data))
        received = len(data)
        data.extend(bytes(nr_bytes - received))
        end = time.monotonic() + self.read_seconds
        with memoryview(data) as view:
            while received < nr_bytes:
                if self.socket is None or time.monotonic() > end:
                    raise OSError("the connection is closed, or too slow")
                count = self._wait_and_read(view[received:], end)
                if not count:
                    break
                received += count
        del data[received:]
        return data


class TlsBufferedSocket(BufferedSocket):
    """The same over TLS. The socket never waits: part of a TLS record would hold the thread longer than any limit."""

    @classmethod
    def adopt(cls, plain: AssociationSocket, maximum_pdu: int) -> BufferedSocket:
        """Take over a connected socket whose TLS handshake is complete."""
        buffered = super().adopt(plain, maximum_pdu)
        plain.socket.settimeout(0)
        return buffered

    def _read(self, into: memoryview) -> int:
        if self.socket is None:
            raise OSError("another thread has closed the connection")
        try:
            return int(self.socket.recv_into(into))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error

    def _wait_and_read(self, into: memoryview, end: float) -> int:
        while True:
            try:
                return self._read(into)
            except BlockingIOError:
                self._wait_for(select.POLLIN, end)

    def send(self, bytestream: bytes) -> None:
        """Send all of it within ``read_seconds``; otherwise the connection counts as closed, as in the base class."""
        end, left = time.monotonic() + self.read_seconds, memoryview(bytestream)
        try:
            while left:
                try:
                    left = left[self.socket.send(left) :]
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    self._wait_for(select.POLLOUT, end)
        except (OSError, AttributeError, ValueError):
            self.event_queue.put("Evt17")

    def _wait_for(self, event: int, end: float) -> None:
        """Wait until the connection can be used; raises OSError if it is closed or ``end`` has passed."""
        descriptor, left = self.descriptor, end - time.monotonic()
        poll = select.poll()
        if descriptor < 0 or left <= 0:
            raise OSError("the connection is closed, or too slow")
        poll.register(descriptor, event)
        if not poll.poll(left * 1000):
            raise OSError("the connection is too slow")
