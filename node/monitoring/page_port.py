"""Where this machine reaches the admin page, and whether it answers there.

Nothing of DICOM is imported here: a health check asks every half minute, in a process of its own.
"""

from __future__ import annotations

import ssl
from http.client import HTTPException
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from config.settings import Admin
from workers.tls import load_authorities

_SECONDS = 3.0
_ALIVE = b"alive\n"
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to call what listens there


def reached(host: str) -> str:
    """The address under which this machine reaches a server that is bound to ``host``."""
    return _ANY.get(host, host)


def scheme_of(admin: Admin) -> str:
    """http, or https where the page has a certificate."""
    return "http" if admin.tls_certificate is None else "https"


def page_address(admin: Admin) -> str:
    """The address of the admin page, as this machine reaches it."""
    host = reached(admin.host)
    return f"{scheme_of(admin)}://{f'[{host}]' if ':' in host else host}:{admin.port}"


def page_answers(admin: Admin) -> bool:
    """Whether an admin page of Pleura answers there; no proxy of the environment is asked.

    Its certificate is for the name that browsers use, so it is enough that it is the configured one.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if admin.tls_certificate is not None:
            load_authorities(context, admin.tls_certificate)
        opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
        with opener.open(f"{page_address(admin)}/healthz", timeout=_SECONDS) as answer:
            return bool(answer.read(len(_ALIVE) + 1) == _ALIVE)
    except (HTTPException, OSError, ValueError):
        return False
