"""Whether the broker can be used: the configured one takes a message, or the embedded one runs or can be started."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from redis.sentinel import Sentinel

from config.sentinel import is_sentinel, read_sentinel_url
from config.settings import Settings
from node.embedded_broker import BrokerError, answers, server_binary
from node.monitoring.check import Check

_SECONDS = 3.0
_KEY = "pleura:doctor"
_KNOWN = (
    (
        r"WRONGPASS|NOAUTH|already authenticated|invalid (username-)?password|AUTH <password>|without any password",
        "it does not accept the password",
        "correct user and password in broker.url",
    ),
    (r"DB index|invalid DB", "it has no database of that number", "correct the number at the end of broker.url"),
    (r"READONLY|read only replica", "it is a read-only replica", "name the primary server in broker.url"),
    (r"MISCONF|OOM|not enough.*memory", "it takes no more messages", "free its disk and memory, see its log"),
    (r"No (master|primary) found", "no Sentinel knows a primary of this name", "start Sentinel, or correct broker.url"),
    (r"loading", "it is still loading its data", "wait a moment"),
    (r"mismatch, certificate", "its certificate is for another name", "correct the host in broker.url"),
    (
        r"self.signed certificate|local issuer",
        "its certificate is not of the CA in ssl_ca_certs",
        "name its CA in broker.url: ?ssl_ca_certs=/path/ca.pem",
    ),
    (r"certificate has expired", "its certificate has expired", "renew it at the server"),
    (
        r"ALERT_CERTIFICATE_REQUIRED|EOF occurred in violation",
        "it asks for a certificate of this node",
        "name it in broker.url: &ssl_certfile=/path/node.pem&ssl_keyfile=/path/node.key",
    ),
    (r"WRONG_VERSION_NUMBER|RECORD_LAYER", "it speaks no TLS on this port", "correct the port in broker.url"),
    (r"\[SSL", "no TLS with it", "correct the files in broker.url"),
    (r"reset by peer", "it ends the connection", "perhaps it speaks TLS on this port: write rediss:// in broker.url"),
    (r"name or service|name resolution|nodename", "its host name cannot be resolved", "correct the host in broker.url"),
    (r"refused|no such file", "nothing listens there", "start Redis, or correct broker.url"),
    (r"time(d )?out", "it does not answer", "check the server and the network"),
)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Facts that a server reports. ``seconds`` since it was started: None where it does not report them."""

    version: str
    seconds: float | None = None


def broker_facts(settings: Settings) -> ServerFacts | None:
    """Version and age of the broker that runs; None where none answers."""
    try:
        with _client(settings.broker_url) as client:
            info = client.info("server")
    except (RedisError, OSError, ValueError):
        return None
    assert isinstance(info, dict)
    name = "Valkey" if "valkey_version" in info else "Redis"
    number = info.get("valkey_version") or info.get("redis_version") or ""
    return ServerFacts(f"{name} {number}".strip(), info.get("uptime_in_seconds"))


def check_broker(settings: Settings) -> Check:
    """The configured broker takes a message, or the embedded one can be started."""
    if settings.broker.url is None:
        return _check_embedded_broker(settings)
    url = settings.broker_url
    try:
        where, missing, client = _where(url), _missing_file(url.partition("?")[2]), _client(url)
    except ValueError as error:
        remedy = "write redis://:password@host:6379/0 in broker.url"
        return Check("broker", False, f"broker.url cannot be read: {error}", remedy)
    if missing:
        return Check("broker", False, f"{missing} of broker.url cannot be read", f"correct {missing}")
    try:
        with client:
            client.set(_KEY, "1", ex=1)
            policy = _discarding_policy(client)
    except (RedisError, OSError) as error:
        why, remedy = _reason(str(error))
        return Check("broker", False, f"Redis at {where}: {why}", remedy)
    found = f"Redis at {where} takes messages"
    if policy:
        late = f"{settings.workers.reenqueue_after_seconds:.0f} s"
        found += f", and discards waiting ones where its memory ends ({policy}): the work of such comes {late} later"
        return Check("broker", True, found, "set maxmemory-policy noeviction at the server")
    return Check("broker", True, found)


def _discarding_policy(client: Redis) -> str:
    """The policy by which a server with limited memory removes whole queues; empty where it does not, or says nothing.

    The ``volatile`` policies remove only what has a time to live, and queues have none.
    """
    try:
        memory = client.info("memory")
    except ResponseError:  # an ACL may forbid INFO
        return ""
    assert isinstance(memory, dict)
    policy = str(memory.get("maxmemory_policy", ""))
    return policy if memory.get("maxmemory") and policy.startswith("allkeys") else ""


def _client(url: str) -> Redis:
    """A client of the broker; of several servers that Sentinel watches over, of the primary.

    Raises:
        ValueError: the URL cannot be read.
    """
    if not is_sentinel(url):
        return Redis.from_url(_redis_url(url), socket_connect_timeout=_SECONDS, socket_timeout=_SECONDS)
    named = read_sentinel_url(url)
    sentinel: Any = Sentinel  # its arguments have no types
    asked = sentinel(named.sentinels, sentinel_kwargs=named.sentinel_options(_SECONDS / len(named.sentinels)))
    client: Redis = asked.master_for(
        named.master_name,
        db=named.database,
        username=named.user or None,
        password=named.password or None,
        socket_connect_timeout=_SECONDS,
        socket_timeout=_SECONDS,
        **({"ssl": True, **named.tls} if named.tls else {}),
    )
    return client


def _where(url: str) -> str:
    if is_sentinel(url):
        named = read_sentinel_url(url)
        return f"{named.master_name} of Sentinel {', '.join(f'{host}:{port}' for host, port in named.sentinels)}"
    parts = urlsplit(url)
    return parts.path if parts.scheme.endswith("socket") else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def _missing_file(query: str) -> str:
    """The first file for TLS in a URL that cannot be read, with its key; empty if there is none."""
    given = dict(parse_qsl(query))
    files = (f"{key}={given[key]}" for key in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if key in given)
    return next((file for file in files if not os.access(file.partition("=")[2], os.R_OK)), "")


def _redis_url(url: str) -> str:
    """Celery's URL as the client library writes it."""
    return re.sub(r"^redis\+socket://", "unix://", url).replace("?virtual_host=", "?db=")


def _reason(message: str) -> tuple[str, str]:
    for pattern, why, remedy in _KNOWN:
        if re.search(pattern, message, re.IGNORECASE):
            return why, remedy
    return message.splitlines()[0] if message else "it does not speak Redis", "is this a Redis? Correct broker.url"


def embedded_broker_runs(settings: Settings) -> bool:
    """Whether `pleura serve` runs on this store now: only it starts an embedded broker."""
    return settings.broker.url is None and settings.broker_socket.exists() and answers(settings.broker_socket)


def _check_embedded_broker(settings: Settings) -> Check:
    try:
        binary = server_binary(settings.broker.server)
    except BrokerError as error:
        remedy, effect = "set broker.url to a Redis, or broker.server to a redis-server", "The node does not start."
        return Check("broker", False, str(error), remedy, effect)
    running = embedded_broker_runs(settings)
    return Check("broker", True, f"embedded, {'running' if running else 'starts with pleura serve'} ({binary.name})")
