"""Whether the broker can be used: the configured one takes a message, or the embedded one runs or can be started."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError

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
    (r"loading", "it is still loading its data", "wait a moment"),
    (r"name or service|name resolution|nodename", "its host name cannot be resolved", "correct the host in broker.url"),
    (r"refused|no such file", "nothing listens there", "start Redis, or correct broker.url"),
    (r"certificate|SSL", "no TLS with it", "correct rediss:// and the certificates in broker.url"),
    (r"time(d )?out", "it does not answer", "check the server and the network"),
)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself. ``seconds`` since it was started: None where it does not tell."""

    version: str
    seconds: float | None = None


def broker_facts(settings: Settings) -> ServerFacts | None:
    """Version and age of the broker that runs; None where none answers."""
    try:
        with Redis.from_url(
            _redis_url(settings.broker_url), socket_connect_timeout=_SECONDS, socket_timeout=_SECONDS
        ) as client:
            told = client.info("server")
    except (RedisError, OSError, ValueError):
        return None
    assert isinstance(told, dict)
    name = "Valkey" if "valkey_version" in told else "Redis"
    number = told.get("valkey_version") or told.get("redis_version") or ""
    return ServerFacts(f"{name} {number}".strip(), told.get("uptime_in_seconds"))


def check_broker(settings: Settings) -> Check:
    """The configured broker takes a message, or the embedded one can be started."""
    if settings.broker.url is None:
        return _check_embedded_broker(settings)
    url = settings.broker_url
    try:
        parts = urlsplit(url)
        where = (
            parts.path if parts.scheme.endswith("socket") else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
        )
        client = Redis.from_url(_redis_url(url), socket_connect_timeout=_SECONDS, socket_timeout=_SECONDS)
    except ValueError as error:
        remedy = "write redis://:password@host:6379/0 in broker.url"
        return Check("broker", False, f"broker.url cannot be read: {error}", remedy)
    try:
        with client:
            client.set(_KEY, "1", ex=1)
    except (RedisError, OSError) as error:
        why, remedy = _reason(str(error))
        return Check("broker", False, f"Redis at {where}: {why}", remedy)
    return Check("broker", True, f"Redis at {where} takes messages")


def _redis_url(url: str) -> str:
    """Celery's URL as the client library writes it."""
    return re.sub(r"^redis\+socket://", "unix://", url).replace("?virtual_host=", "?db=")


def _reason(said: str) -> tuple[str, str]:
    for pattern, why, remedy in _KNOWN:
        if re.search(pattern, said, re.IGNORECASE):
            return why, remedy
    return said.splitlines()[0] if said else "it does not speak Redis", "is this a Redis? Correct broker.url"


def embedded_broker_runs(settings: Settings) -> bool:
    """Whether `pleura serve` runs on this store now: only it starts an embedded broker."""
    return settings.broker.url is None and settings.broker_socket.exists() and answers(settings.broker_socket)


def _check_embedded_broker(settings: Settings) -> Check:
    try:
        binary = server_binary(settings.broker.server)
    except BrokerError as error:
        return Check("broker", False, str(error), "set broker.url to a Redis, or broker.server to a redis-server")
    running = embedded_broker_runs(settings)
    return Check("broker", True, f"embedded, {'running' if running else 'starts with pleura serve'} ({binary.name})")
