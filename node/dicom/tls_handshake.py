"""The TLS handshake of a caller (PS3.15 B.12), in a thread of its own and under the limits of connections without an
association: a caller that does not complete it keeps no other out.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable

from node.dicom.connection_limits import Connections
from workers.tls import ENDED, ServerContexts, TlsProblem, shut_down, tls_problem

OnFailure = Callable[[str, TlsProblem, str], None]
"""Called with address, problem and message of OpenSSL for a handshake that failed."""

log = logging.getLogger(__name__)


class Handshakes:
    """Shakes hands with the callers of one port."""

    def __init__(
        self, contexts: ServerContexts, connections: Connections, seconds: float, on_failure: OnFailure
    ) -> None:
        self._contexts = contexts
        self._connections = connections
        self._seconds = seconds
        self._on_failure = on_failure

    def shake(self, plain: socket.socket, address: str) -> ssl.SSLSocket | None:
        """Take over ``plain``; None where the handshake failed or the caller has gone, and the connection is closed."""
        plain.settimeout(self._seconds)
        ends: list[str] = []
        try:
            secured = _wrapped(self._contexts.current(), plain)
        except OSError as error:  # it has gone already
            log.info("connection from %s ended before TLS: %s", address, type(error).__name__)
            plain.close()
            return None

        def close(why: str) -> None:
            ends.append(why)
            shut_down(secured)

        self._connections.opened(secured, address, close)
        try:
            secured.do_handshake()
        except OSError as error:
            self._connections.ended(secured)
            secured.close()
            self._tell(address, error, ends)
            return None
        return secured

    def _tell(self, address: str, error: OSError, ends: list[str]) -> None:
        problem = tls_problem(error)
        if ends or problem is ENDED or isinstance(error, TimeoutError):
            late = "no TLS handshake in time" if isinstance(error, TimeoutError) else ENDED.why
            log.info("connection from %s ended: %s", address, ends[0] if ends else late)
        else:
            message = getattr(error, "verify_message", "") or getattr(error, "reason", "") or type(error).__name__
            self._on_failure(address, problem, str(message))


def _wrapped(context: ssl.SSLContext, plain: socket.socket) -> ssl.SSLSocket:
    return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
