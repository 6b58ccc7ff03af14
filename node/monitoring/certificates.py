"""When a TLS certificate ends.

The standard library reads the fields of a certificate only from a peer that it has verified, so a handshake is made in
memory, between this process and itself.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h): the end of an expired one is asked, too
_MOST_STEPS = 10


def certificate_end(certificate: Path, key: Path | None) -> datetime:
    """The end of validity (RFC 5280 4.1.2.5) of the first certificate in a PEM file; its key is there or in ``key``.

    Raises:
        OSError: a file cannot be read or used; ``ssl.SSLError`` is one.
    """
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.load_verify_locations(certificate)
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_MOST_STEPS):
        if all([_shake_hands(client), _shake_hands(server)]):
            break
    ends = (client.getpeercert() or {}).get("notAfter")
    if not isinstance(ends, str):
        raise OSError(f"{certificate} has no certificate that can be verified")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC)


def _shake_hands(side: ssl.SSLObject) -> bool:
    """Go on with the handshake as far as the other side has answered; whether it is complete."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
