"""URLs of a Redis that Sentinel watches over, as Celery spells them, with what Celery takes elsewhere as a query::

    sentinel://:password@sentinel-1:26379;sentinel://sentinel-2:26379;sentinel://sentinel-3:26379/0?master_name=pleura

Sentinel says which server is the primary now. User, password and the number of the database are those of the Redis.
Keys of the query: ``master_name`` (needed), ``sentinel_password``, and for TLS to Sentinel and Redis ``ssl_ca_certs``,
``ssl_certfile``, ``ssl_keyfile``, or ``ssl_cert_reqs=required`` where the system knows the CA.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SCHEME = "sentinel://"
_PORT = 26379
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_KEYS = ("master_name", "sentinel_password", "ssl_cert_reqs", *_FILES)


@dataclass(frozen=True, slots=True)
class SentinelURL:
    """What such a URL says. ``user`` and ``password`` are for Redis, ``tls`` are arguments of its client, for both."""

    sentinels: tuple[tuple[str, int], ...]
    master_name: str
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    sentinel_password: str = field(default="", repr=False)
    tls: dict[str, Any] = field(default_factory=dict)

    @property
    def celery_url(self) -> str:
        """The same for Celery, whose client reads user, password and database from whichever part it is at."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.password else ""
        return ";".join(f"{SCHEME}{login}{host}:{port}/{self.database}" for host, port in self.sentinels)

    def sentinel_options(self, seconds: float) -> dict[str, Any]:
        """Arguments of the client that asks a Sentinel, which is to answer in ``seconds``."""
        options: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        if self.sentinel_password:
            options["password"] = self.sentinel_password
        return options | ({"ssl": True, **self.tls} if self.tls else {})


def is_sentinel(url: str) -> bool:
    """Whether a broker's URL names Sentinels."""
    return url.startswith(SCHEME)


def read_sentinel_url(url: str) -> SentinelURL:
    """Read such a URL.

    Raises:
        ValueError: it is not one; the text says what is wrong, and quotes no password.
    """
    address, _, query = url.partition("?")
    parts = [urlsplit(part) for part in address.split(";")]
    if any(part.scheme != "sentinel" or not part.hostname for part in parts):
        raise ValueError("write sentinel://host:26379;sentinel://host:26379/0?master_name=name")
    given = dict(parse_qsl(query))
    if unknown := sorted(given.keys() - set(_KEYS)):
        raise ValueError(f"{unknown[0]} is not known; the query may have {', '.join(_KEYS)}")
    if not given.get("master_name"):
        raise ValueError("?master_name= is missing: the name under which Sentinel knows the Redis")
    number = parts[-1].path.strip("/") or "0"
    if not number.isdecimal():
        raise ValueError("what follows the last / must be the number of a database")
    login = next((part for part in parts if part.password), parts[0])
    return SentinelURL(
        tuple((str(part.hostname), part.port or _PORT) for part in parts),
        given["master_name"],
        int(number),
        unquote(login.username or ""),
        unquote(login.password or ""),
        given.get("sentinel_password", ""),
        _tls(given),
    )


def _tls(given: dict[str, str]) -> dict[str, Any]:
    verify = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if verify != "required":
        raise ValueError("ssl_cert_reqs must be required, or anybody in between can be the broker")
    files = {key: given[key] for key in _FILES if key in given}
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, **files} if files or "ssl_cert_reqs" in given else {}


def with_passwords(url: str, password: str | None, sentinel_password: str | None) -> str:
    """``url`` with passwords in it, whatever characters they have (RFC 3986 3.2.1)."""
    if password is not None:
        first = url.removeprefix(SCHEME)
        user, _, rest = first.rpartition("@") if "@" in first.partition(";")[0] else ("", "", first)
        url = f"{SCHEME}{user.rstrip(':')}:{quote(password, safe='')}@{rest}"
    if sentinel_password is not None:
        url += f"{'&' if '?' in url else '?'}sentinel_password={quote(sentinel_password, safe='')}"
    return url
