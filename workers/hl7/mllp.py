"""The Minimal Lower Layer Protocol: HL7 messages on a TCP connection, each between a start and an end block.

``<VT> message <FS><CR>`` (HL7 v2 implementation guide, Transport: MLLP); a block without ``<CR>`` is read too. TCP cuts
where it likes, so bytes are collected by a :class:`Deframer` that knows nothing of sockets.
"""

from __future__ import annotations

import socket
import ssl

START = b"\x0b"
END = b"\x1c\x0d"

_CHUNK = 65536
_BETWEEN = b"\r\n"  # some senders put a line break behind the end block
_MARK = b"\xef\xbb\xbf"  # and some a byte order mark in front of the start block


class FramingError(ValueError):
    """What came is no MLLP, or longer than is accepted. The words hold nothing of what came."""


class ExchangeError(OSError):
    """The peer did not answer: no connection, closed, or too late."""


def frame(message: bytes) -> bytes:
    """Put ``message`` between a start and an end block.

    Raises:
        FramingError: it holds a byte that would end the block.
    """
    if START in message or END[:1] in message:
        raise FramingError("a message holds a byte that belongs to MLLP")
    return START + message + END


class Deframer:
    """Collects chunks as they come and gives whole messages, however the chunks are cut.

    ``limit`` is the longest message in bytes. After a :class:`FramingError` the connection cannot be used any more:
    nobody knows where the next message begins.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._looked = 0

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun to come and has not ended."""
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk and give the messages that are whole now.

        Raises:
            FramingError: a message is too long, or a byte is out of place.
        """
        self._buffer += chunk
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def _next(self) -> bytes | None:
        """Cut the next whole message off the buffer."""
        self._skip_between()
        if not self._buffer or _MARK.startswith(self._buffer):
            return None
        if self._buffer[:1] != START:
            raise FramingError("bytes came that are in no block")
        end = self._buffer.find(END[:1], max(self._looked, 1))
        if (len(self._buffer) if end < 0 else end) - 1 > self._limit:
            raise FramingError(f"a message is longer than {self._limit} bytes")
        if end < 0:
            self._looked = len(self._buffer)
            return None
        # Some senders leave the carriage return out and wait for their answer: what ends the chunk ends the block.
        if self._buffer[end + 1 : end + 2] not in (b"", b"\r", b"\n", START):
            raise FramingError("an end block inside of a message")
        message = bytes(self._buffer[1:end])
        if START in message:
            raise FramingError("a block begins inside of another one")
        del self._buffer[: end + 1]
        self._looked = 0
        return message

    def _skip_between(self) -> None:
        if self._buffer[:1] and self._buffer[:1] != START:
            self._buffer = bytearray(self._buffer.lstrip(_BETWEEN).removeprefix(_MARK))


def exchange(
    address: tuple[str, int], message: bytes, seconds: float, tls: ssl.SSLContext | None = None, limit: int = 65536
) -> bytes:
    """Send one message to ``address`` and give the one that answers it; each step may take ``seconds``.

    Raises:
        ExchangeError: there is no connection, or no answer.
        FramingError: the answer is no MLLP.
    """
    try:
        with socket.create_connection(address, timeout=seconds) as plain:
            connection = plain if tls is None else tls.wrap_socket(plain, server_hostname=address[0])
            with connection:
                connection.sendall(frame(message))
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
