"""A limit on the whole time that a peer may take: that of a socket begins anew with every byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def within(seconds: float, connection: socket.socket) -> Iterator[None]:
    """Cut ``connection`` off where what is inside takes longer than ``seconds``, whatever the peer still sends.

    Raises:
        TimeoutError: it has been cut off; what was read until then may be only a part.
    """
    over = threading.Event()

    def cut_off() -> None:
        over.set()
        with suppress(OSError):  # it is closed
            # Below TLS, which another thread is using.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if over.is_set():
            raise TimeoutError("the time limit is over")
