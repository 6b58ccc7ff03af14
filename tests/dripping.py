"""A server that never comes to an answer and never stops sending: no time limit of a socket ends that."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def dripping(drop: bytes = b"HTTP/1.1 100 Continue\r\n\r\n") -> Iterator[str]:
    """Send ``drop`` again and again until the block ends; its URL."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        while not over.wait(0.02):
                            connection.sendall(drop)

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
