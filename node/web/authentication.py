"""Authentication: client address, session, token, single sign-on, and protection against forged forms.

Roles are compared only in this module. An address or a name in a header is accepted only from a trusted proxy.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from starlette.requests import Request

from config.settings import Admin
from db.user_tables import Role
from db.users import AccountError, Accounts, User

SESSION_COOKIE = "pleura_session"
LOGIN_COOKIE = "pleura_login"
OPENID_COOKIE = "pleura_openid"
_RANK = {Role.VIEWER: 0, Role.RADIOLOGIST: 1, Role.ADMIN: 2}


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request.

    ``csrf`` is the token that their forms must carry, and ``method`` is how they logged in; empty for an API token.
    """

    name: str
    display_name: str
    role: Role
    csrf: str = ""
    method: str = ""
    user: User | None = None

    def may(self, role: Role) -> bool:
        """Whether this principal has at least ``role``."""
        if Role.SENDER in (self.role, role):
            return self.role is role
        return _RANK[self.role] >= _RANK[role]


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of a request, with the headers of trusted proxies applied."""

    address: str
    secure: bool
    by_trusted_proxy: bool


def origin_of(request: Request, trusted: Sequence[str]) -> Origin:
    """The client's address and whether it uses TLS.

    ``X-Forwarded-For`` is read from the right, only as far as trusted proxies have written it.
    """
    peer = request.client.host if request.client else ""
    if not is_within(peer, trusted):
        return Origin(peer, request.url.scheme == "https", False)
    address = peer
    for hop in reversed(request.headers.get("x-forwarded-for", "").split(",")):
        if not hop.strip():
            break
        address = hop.strip()
        if not is_within(address, trusted):
            break
    secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "") == "https"
    return Origin(address, secure, True)


def is_within(address: str, networks: Sequence[str]) -> bool:
    """Whether an IP address is in one of these addresses or networks."""
    try:
        wanted = ipaddress.ip_address(address)
        return any(wanted in ipaddress.ip_network(network, strict=False) for network in networks)
    except ValueError:
        return False


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    return is_within(address, ("127.0.0.0/8", "::1"))


def principal_of(request: Request, accounts: Accounts, settings: Admin, now: datetime) -> Principal | None:
    """The principal of a request: the bearer of a token or the user of a session; None if neither is valid."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        token = accounts.token(secret.strip(), now)
        return None if token is None else Principal(f"token:{token.name}", token.name, token.role)
    session = accounts.session(request.cookies.get(SESSION_COOKIE, ""), now)
    if session is None:
        return None
    named = signed_on_name(request, settings)
    if named and named.strip().lower() != session.user.name:
        return None  # the proxy has signed on another user since
    user = session.user
    return Principal(user.name, user.display_name, user.role, session.csrf, session.method, user)


def signed_on_name(request: Request, settings: Admin) -> str:
    """The user that a trusted proxy has signed on; empty if there is none or the proxy is not trusted."""
    if not settings.sign_on_header:
        return ""
    if not origin_of(request, settings.trusted_proxies).by_trusted_proxy:
        return ""
    return request.headers.get(settings.sign_on_header, "")


def signed_on_user(name: str, accounts: Accounts, settings: Admin, now: datetime) -> User | None:
    """The account of a user whom the proxy has signed on; it is created if the settings allow it."""
    user = accounts.find_user(name)
    if user is not None:
        return None if user.disabled else user
    if settings.sign_on_new_users == "refuse":
        return None
    try:
        return accounts.add_user(name, None, Role(settings.sign_on_new_users), now, actor="single sign-on")
    except AccountError:
        return None


def same_site(request: Request) -> bool:
    """Whether an unsafe request comes from a page of this site, by the headers of the browser."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")


def csrf_matches(given: str, expected: str) -> bool:
    """Compare in constant time; an empty expected value never matches."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def safe_next(path: str) -> str:
    """The path of this site to open after log-in; anything else becomes the worklist."""
    parts = urlsplit(path)
    inside = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if inside and not parts.netloc and not parts.scheme else "/"
