"""Why a database cannot be used, as a sentence and what to do about it.

The drivers have no codes for most of this: a server that rejects a log-in, and a client that reaches none, give text
alone. Text that is not recognized is quoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError


@dataclass(frozen=True, slots=True)
class ConnectionProblem:
    """What is wrong, and the remedy. ``passing``: it may be over in a while, without anybody's doing."""

    sentence: str
    remedy: str
    passing: bool = False

    def __str__(self) -> str:
        return f"{self.sentence}; {self.remedy}"


# What the driver says, what is wrong ({where}, {user} and {name} are of the URL), the remedy, whether it may pass.
_KNOWN = (
    (
        r"password authentication failed|no password supplied|fe_sendauth|empty password",
        "PostgreSQL at {where} does not accept the password of {user}",
        "correct the password in database.url",
        False,
    ),
    (
        r"role \S+ does not exist",
        "PostgreSQL at {where} has no user {user}",
        "create it (`createuser --pwprompt {user}`), or correct database.url",
        False,
    ),
    (
        r"database \S+ does not exist",
        "PostgreSQL at {where} has no database {name}",
        "create it (`createdb --owner={user} {name}`), or correct database.url",
        False,
    ),
    (
        r"no pg_hba\.conf entry",
        "PostgreSQL at {where} lets {user} not connect from this machine",
        "add a line for it to pg_hba.conf on the server",
        False,
    ),
    (
        r"translate host name|resolve host|name or service not known|nodename nor servname",
        "the name of the database server, {where}, cannot be resolved",
        "correct the host in database.url, or the name service",
        False,
    ),
    (
        r"too many (clients|connections)|connection slots",
        "PostgreSQL at {where} has no connection left",
        "raise max_connections there, or stop other clients",
        True,
    ),
    (
        r"starting up|shutting down|recovery mode|system is not (yet )?accepting connections",
        "PostgreSQL at {where} is starting or stopping",
        "wait a moment",
        True,
    ),
    (
        r"server certificate for .* does not match",
        "the certificate of PostgreSQL at {where} is for another name",
        "correct the host in database.url, or let the server show a certificate for it",
        False,
    ),
    (
        r"certificate verify failed",
        "the certificate of PostgreSQL at {where} is not of the CA in sslrootcert, or has expired",
        "name the CA of the server in database.url: sslrootcert=/path/ca.pem",
        False,
    ),
    (
        r"root certificate file .* (does not exist|could not)|could not read root certificate",
        "the file of sslrootcert cannot be read",
        "correct sslrootcert in database.url",
        False,
    ),
    (
        r"server does not support SSL",
        "PostgreSQL at {where} speaks no TLS",
        "set ssl = on at the server",
        False,
    ),
    (
        r"\bSSL\b|certificate",
        "no TLS with PostgreSQL at {where}",
        "correct sslmode, sslrootcert, sslcert and sslkey in database.url",
        False,
    ),
    (
        r"connection refused|no such file or directory|is the server running",
        "no PostgreSQL answers at {where}",
        "start it, or correct database.url",
        True,
    ),
    (
        r"time(d )?out|has not answered|no route|unreachable|closed the connection|connection is lost|terminat",
        "PostgreSQL at {where} does not answer",
        "check the server and the network",
        True,
    ),
    (r"permission denied", "{user} may not use the tables of {name}", "make {user} the owner of the database", False),
    (
        r"unable to open database file",
        "the SQLite file {name} cannot be opened",
        "make its folder and the file writable for this user",
        False,
    ),
    (
        r"not a database|malformed",
        "{name} is no SQLite database, or it is damaged",
        "restore it from a backup, or set store.folder to an empty folder",
        False,
    ),
    (r"readonly database", "the SQLite file {name} cannot be written", "make it writable for this user", False),
    (r"database is locked", "the SQLite file {name} is locked by another program", "close that program", True),
    (
        r"disk is full|disk I/O",
        "the disk of {name} is full or broken",
        "free some space, and look at the system's log",
        False,
    ),
)


def connection_problem(error: SQLAlchemyError, url: URL) -> ConnectionProblem:
    """Tell apart why the database of ``url`` cannot be used; the password is never part of it."""
    message = str(getattr(error, "orig", None) or error).strip()
    values = {"where": _where(url), "user": url.username or "this user", "name": url.database or "the database"}
    for pattern, sentence, remedy, passing in _KNOWN:
        if re.search(pattern, message, re.IGNORECASE):
            return ConnectionProblem(sentence.format(**values), remedy.format(**values), passing)
    first = message.splitlines()[0] if message else type(error).__name__
    # A server says many things while it starts, stops or recovers. Whoever waits for one that will never let him in has
    # been told so; whoever gives up at one that recovers stays away for good.
    passing = re.search(r"connection (failed|to server)", message, re.IGNORECASE) is not None
    return ConnectionProblem(f"the database does not answer: {first}", "check database.url and that it runs", passing)


def _where(url: URL) -> str:
    host = url.host or url.query.get("host", "localhost")
    text = ", ".join(host) if isinstance(host, tuple) else host
    return text if text.startswith("/") else f"{text}:{url.port or 5432}"
