"""Why a database cannot be used, as a sentence and what to do about it, and whether it may pass by itself.

A node that gives up at what would have passed in seconds stays away for good, so only what is known to need a person
does not pass. Where there is a code (SQLSTATE, a result code of SQLite) it decides; a server that rejects a log-in, and
a client that reaches none, give text alone. Text that is not recognized is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError


@dataclass(frozen=True, slots=True)
class ConnectionProblem:
    """What is wrong, and the remedy. ``passing``: it may be over in a while, without a change of the configuration."""

    sentence: str
    remedy: str
    passing: bool = True

    def __str__(self) -> str:
        return f"{self.sentence}; {self.remedy}"


# What is said after its code, what is wrong ({where}, {user} and {name} are of the URL), and the remedy.
_Known = tuple[str, str, str]

_TLS_REMEDY = "correct sslmode, sslrootcert, sslcert and sslkey in database.url"
_NEEDS_A_PERSON: tuple[_Known, ...] = (
    (
        r"password authentication failed|no password supplied|fe_sendauth|empty password",
        "PostgreSQL at {where} does not accept the password of {user}",
        "correct the password in database.url",
    ),
    (
        r'role ".*" does not exist|no such user',
        "PostgreSQL at {where} has no user {user}",
        "create it (`createuser --pwprompt {user}`), or correct database.url",
    ),
    (
        r'database ".*" does not exist|no such database|^3D000',
        "PostgreSQL at {where} has no database {name}",
        "create it (`createdb --owner={user} {name}`), or correct database.url",
    ),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects|(peer|ident) authentication failed|is not permitted to log in",
        "PostgreSQL at {where} lets {user} not connect from this machine",
        "add a line for it to pg_hba.conf on the server",
    ),
    (
        r"server certificate for .* does not match",
        "the certificate of PostgreSQL at {where} is for another name",
        "correct the host in database.url, or let the server show a certificate for it",
    ),
    (
        r"certificate verify failed",
        "the certificate of PostgreSQL at {where} is not of the CA in sslrootcert, or has expired",
        "name the CA of the server in database.url: sslrootcert=/path/ca.pem",
    ),
    (
        r"root certificate file .* (does not exist|could not)|could not read root certificate",
        "the file of sslrootcert cannot be read",
        "correct sslrootcert in database.url",
    ),
    (r"server does not support SSL", "PostgreSQL at {where} speaks no TLS", "set ssl = on at the server"),
    (
        r"(certificate|private key)( file)? .*\"|certificate authentication failed|valid client certificate",
        "no TLS with PostgreSQL at {where}",
        _TLS_REMEDY,
    ),
    (
        r"alert (bad certificate|unsupported certificate|certificate|unknown ca|access denied|handshake failure"
        r"|protocol version|insufficient security)|wrong version number",
        "no TLS with PostgreSQL at {where}",
        _TLS_REMEDY,
    ),
    (
        r"invalid \S+ value|invalid port number|invalid integer value|invalid connection option|could not match \d+ "
        r"|weak sslmode|definition of service|unrecognized configuration parameter|unsupported startup parameter"
        r"|invalid value for parameter",
        "database.url has an option that cannot be used",
        "correct it: {message}",
    ),
    (
        r"permission denied for|^42501",
        "{user} may not use the tables of {name}",
        "make {user} the owner of the database",
    ),
)
_PASSES: tuple[_Known, ...] = (
    (
        r"failed to resolve|translate host name|resolve host|name or service not known|name resolution",
        "the name of the database server, {where}, cannot be resolved",
        "correct the host in database.url, or the name service",
    ),
    (
        r"too many (clients|connections)|connection slots|no more connections|^53300",
        "PostgreSQL at {where} has no connection left",
        "raise max_connections there, or stop other clients",
    ),
    (
        r"^25006|read-only|hot standby",
        "PostgreSQL at {where} can only be read: it is a standby, or was made read-only",
        "wait until it may be written, or name its primary in database.url, too",
    ),
    (
        r"starting up|shutting down|recovery mode|not (yet |currently )?accepting connections|^57P0[123]",
        "PostgreSQL at {where} is starting or stopping",
        "wait a moment",
    ),
    (r"^53100|no space left", "the disk of PostgreSQL at {where} is full", "free some space there"),
    (
        r"connection refused|no such file or directory|is the server running",
        "no PostgreSQL answers at {where}",
        "start it, or correct database.url",
    ),
    (
        r"time(d )?out|has not answered|no route|unreachable|closed|connection is (lost|bad)|terminat|reset by peer"
        r"|SYSCALL|consuming input|no connection to the server|server conn|^08",
        "PostgreSQL at {where} does not answer",
        "check the server and the network",
    ),
)
_SQLITE_NEEDS_A_PERSON: tuple[_Known, ...] = (
    (
        r"^SQLITE_CANTOPEN|unable to open database file",
        "the SQLite file {name} cannot be opened",
        "make its folder and the file writable for this user",
    ),
    (
        r"^SQLITE_(NOTADB|CORRUPT)|not a database|malformed",
        "{name} is no SQLite database, or it is damaged",
        "restore it from a backup, or set store.folder to an empty folder",
    ),
    (
        r"^SQLITE_READONLY|readonly database",
        "the SQLite file {name} cannot be written",
        "make it writable for this user",
    ),
)
_SQLITE_PASSES: tuple[_Known, ...] = (
    (
        r"^SQLITE_(BUSY|LOCKED|PROTOCOL)|database is locked",
        "the SQLite file {name} is locked by another program",
        "close that program",
    ),
    (
        r"^SQLITE_(FULL|IOERR)|disk is full|disk I/O",
        "the disk of {name} is full or broken",
        "free some space, and look at the system's log",
    ),
)

# PostgreSQL, appendix A: what is wrong with a statement, with rights or with names is so again the next time.
_LASTING_CLASSES = frozenset({"0A", "22", "23", "28", "2B", "3D", "3F", "42", "44"})
_LASTING_IN_SQLITE = frozenset({"SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_SCHEMA"})
_ATTEMPT = re.compile(r"^- host: (.+?), port: .+?, hostaddr: .+?: ", re.MULTILINE)


def connection_problem(error: SQLAlchemyError, url: URL) -> ConnectionProblem:
    """Tell apart why the database of ``url`` cannot be used; the password is never part of it."""
    cause = getattr(error, "orig", None) or error
    message = str(cause).strip() or type(error).__name__
    if url.get_backend_name() == "sqlite":
        code = getattr(cause, "sqlite_errorname", "")
        return _problem(code, message, url, code not in _LASTING_IN_SQLITE)
    code = getattr(cause, "sqlstate", None) or ""
    hosts = [[_problem(code, each, url, True) for each in attempts] for attempts in _attempts_by_host(message)]
    if hosts:
        return _of_several(hosts)
    return _problem(code, message, url, code[:2] not in _LASTING_CLASSES)


def _attempts_by_host(message: str) -> Iterable[list[str]]:
    """What each address of each host has said, where psycopg has tried several."""
    said: dict[str, list[str]] = {}
    _before, *parts = _ATTEMPT.split(message)
    for host, text in zip(parts[::2], parts[1::2], strict=True):
        said.setdefault(host, []).append(text.strip())
    return said.values()


def _of_several(hosts: list[list[ConnectionProblem]]) -> ConnectionProblem:
    """One host that may come back is waited for; of the addresses of one host, the worst that was said counts."""
    found = [next((each for each in said if not each.passing), said[-1]) for said in hosts]
    return next((each for each in found if each.passing), found[-1])


def _problem(code: str, message: str, url: URL, otherwise: bool) -> ConnectionProblem:
    """What is known of ``message``; what is not known passes or not, as ``otherwise`` says."""
    first = message.splitlines()[0]
    values = {"where": _where(url), "user": url.username or "this user", "name": url.database or "it", "message": first}
    sqlite = url.get_backend_name() == "sqlite"
    lasting = _SQLITE_NEEDS_A_PERSON if sqlite else _NEEDS_A_PERSON
    for known in (*lasting, *(_SQLITE_PASSES if sqlite else _PASSES)):
        pattern, sentence, remedy = known
        if re.search(pattern, f"{code} {message}", re.IGNORECASE):
            return ConnectionProblem(sentence.format(**values), remedy.format(**values), known not in lasting)
    what = "does not answer" if otherwise else "cannot be used"
    return ConnectionProblem(f"the database {what}: {first}", "check database.url and that it runs", otherwise)


def _where(url: URL) -> str:
    host = url.host or url.query.get("host", "localhost")
    text = ", ".join(host) if isinstance(host, tuple) else host
    # A list of hosts may have a port at each.
    return text if text.startswith("/") or re.search(r"[,:]", text) else f"{text}:{url.port or 5432}"
