"""The Minimal Lower Layer Protocol: HL7 messages on a TCP connection, each between a start and an end block.

``<VT> message <FS><CR>`` (HL7 v2 implementation guide, Transport: MLLP); a block without ``<CR>`` is accepted too. TCP
may split a message anywhere, so :class:`Deframer` collects its bytes; it does not use sockets.
"""

from __future__ import annotations

import socket
import ssl

from models.remote.time_limit import within

START = b"\x0b"
END = b"\x1c\x0d"

_CHUNK = 65536
_BETWEEN = b"\r\n"  # some senders write a line break after the end block
_MARK = b"\xef\xbb\xbf"  # and some a byte order mark before the start block


class FramingError(ValueError):
    """The bytes are not MLLP, or a message is too long. The text contains nothing of the message."""


class ExchangeError(OSError):
    """The peer did not answer: no connection, a closed connection, or a timeout."""


def frame(message: bytes) -> bytes:
    """Put ``message`` between a start and an end block.

    Raises:
        FramingError: it holds a byte that would end the block.
    """
    if START in message or END[:1] in message:
        raise FramingError("a message contains a byte that is reserved by MLLP")
    return START + message + END


class Deframer:
    """Collects chunks and returns complete messages, independent of the chunks' limits.

    ``limit`` is the maximum length of a message in bytes. After a :class:`FramingError` the connection cannot be used
    any more, because the beginning of the next message is unknown.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._looked = 0

    @property
    def unfinished(self) -> bool:
        """Whether a message has arrived in part."""
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Add a chunk and return the messages that are complete now.

        Raises:
            FramingError: a message is too long, or a byte is misplaced.
        """
        self._buffer += chunk
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def _next(self) -> bytes | None:
        """Take the next complete message out of the buffer."""
        self._skip_between()
        if not self._buffer or _MARK.startswith(self._buffer):
            return None
        if self._buffer[:1] != START:
            raise FramingError("bytes outside of a block")
        end = self._buffer.find(END[:1], max(self._looked, 1))
        if (len(self._buffer) if end < 0 else end) - 1 > self._limit:
            raise FramingError(f"a message is longer than {self._limit} bytes")
        if end < 0:
            self._looked = len(self._buffer)
            return None
        # Some senders omit the carriage return and wait for the answer: the end of the chunk ends the block.
        if self._buffer[end + 1 : end + 2] not in (b"", b"\r", b"\n", START):
            raise FramingError("an end block within a message")
        message = bytes(self._buffer[1:end])
        if START in message:
            raise FramingError("a block begins within another one")
        del self._buffer[: end + 1]
        self._looked = 0
        return message

    def _skip_between(self) -> None:
        if self._buffer[:1] and self._buffer[:1] != START:
            self._buffer = bytearray(self._buffer.lstrip(_BETWEEN).removeprefix(_MARK))


def exchange(
    address: tuple[str, int], message: bytes, seconds: float, tls: ssl.SSLContext | None = None, limit: int = 65536
) -> bytes:
    """Send one message to ``address`` and return the answer; each step may take ``seconds``.

    Raises:
        ExchangeError: there is no connection, or no answer.
        FramingError: the answer is not MLLP.
    """
    try:
        with socket.create_connection(address, timeout=seconds) as plain:
            connection = plain if tls is None else tls.wrap_socket(plain, server_hostname=address[0])
            with connection:
                connection.sendall(frame(message))
                with within(seconds, connection):
                    return _answer(connection, limit)
    except FramingError:
        raise
    except OSError as error:
        raise ExchangeError(f"no answer by MLLP ({type(error).__name__}: {error})") from error


def _answer(connection: socket.socket, limit: int) -> bytes:
    deframer = Deframer(limit)
    while chunk := connection.recv(_CHUNK):
        answers = deframer.feed(chunk)
        if answers:
            return answers[0]
    raise ExchangeError("the peer closed the connection without an answer")
