"""What a database says when it cannot be used: whether it passes decides whether a node waits or ends."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DisconnectionError, OperationalError, ProgrammingError, SQLAlchemyError

from db.connection_problem import connection_problem

POSTGRESQL = make_url("postgresql+psycopg://pleura:secret@db/pleura")
TWO_HOSTS = make_url("postgresql+psycopg://pleura:secret@/pleura?host=a:5432&host=b:5433")
SQLITE = make_url("sqlite:////var/lib/pleura/pleura.sqlite")
FAILED = 'connection failed: connection to server at "10.0.0.5", port 5432 failed: '


def found(message: str, url: URL = POSTGRESQL) -> tuple[bool, str]:
    """Whether it passes, and the sentence."""
    problem = connection_problem(OperationalError("", {}, psycopg.OperationalError(message)), url)
    assert "secret" not in str(problem)
    return problem.passing, str(problem)


@pytest.mark.parametrize(
    "message",
    [
        FAILED + "FATAL:  the database system is starting up",
        FAILED + "FATAL:  the database system is shutting down",
        FAILED + "FATAL:  the database system is in recovery mode",
        FAILED + "FATAL:  the database system is not yet accepting connections",
        FAILED + "FATAL:  the database system is not accepting connections",
        FAILED + "FATAL:  terminating connection due to administrator command",
        FAILED + 'FATAL:  database "pleura" is not currently accepting connections',
        FAILED + "FATAL:  das Datenbanksystem startet",
        FAILED + "FATAL:  words that no version has used yet",
        FAILED + "FATAL:  sorry, too many clients already",
        FAILED + "FATAL:  server login has been failing, try again later (server_login_retry)",
        FAILED + "session is read-only",
        FAILED + "server is in hot standby mode",
        FAILED + "SSL connection has been closed unexpectedly",
        FAILED + "SSL SYSCALL error: EOF detected",
        FAILED + "SSL error: unexpected eof while reading",
        'connection failed: connection to server on socket "/run/.s.PGSQL.5432" failed: Permission denied',
        "failed to resolve host 'db': [Errno -3] Temporary failure in name resolution",
        "failed to resolve host 'db': [Errno -2] Name or service not known",
        "the connection is closed",
        "the connection is lost",
        "no connection to the server",
        "consuming input failed: server closed the connection unexpectedly",
        "consuming input failed: SSL connection has been closed unexpectedly",
        "server conn crashed?",
        "can't change 'autocommit' now: connection in transaction status UNKNOWN",
        "",
    ],
)
def test_what_a_server_or_a_network_may_get_over_is_waited_for(message: str) -> None:
    passing, _sentence = found(message)
    assert passing


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ('FATAL:  password authentication failed for user "pleura"', "does not accept the password of pleura"),
        ('FATAL:  database "my own" does not exist', "has no database"),
        ('FATAL:  role "my own" does not exist', "has no user"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', "pg_hba.conf"),
        ('FATAL:  Peer authentication failed for user "pleura"', "pg_hba.conf"),
        ("SSL error: certificate verify failed", "sslrootcert"),
        ("SSL error: tlsv1 alert unknown ca", "no TLS"),
        ('server certificate for "db" (and 2 other names) does not match host name "x"', "for another name"),
        ('could not read certificate file "/x.pem": No such file or directory', "no TLS"),
        ('private key file "/x.key" has group or world access', "no TLS"),
        ('root certificate file "/x.pem" does not exist', "sslrootcert cannot be read"),
        ("server does not support SSL, but SSL was required", "speaks no TLS"),
        ('invalid sslmode value: "very"', 'invalid sslmode value: "very"'),
        ('FATAL:  unrecognized configuration parameter "x"', "database.url has an option"),
    ],
)
def test_what_only_a_person_can_mend_is_not(message: str, sentence: str) -> None:
    passing, said = found(FAILED + message)
    assert not passing
    assert sentence in said


@pytest.mark.parametrize(
    ("state", "passing"),
    [
        *(("57P01", True), ("57P03", True), ("57014", True), ("08006", True), ("53100", True), ("53300", True)),
        *(("25006", True), ("40001", True), ("40P01", True), ("55P03", True), ("XX000", True), ("58030", True)),
        *(("42P01", False), ("42501", False), ("3D000", False), ("28P01", False), ("0A000", False), ("22P02", False)),
    ],
)
def test_the_code_decides_where_there_is_one(state: str, passing: bool) -> None:
    """The words are those of a server that speaks another language."""
    error = type("Coded", (psycopg.OperationalError,), {"sqlstate": state})("Worte")
    assert connection_problem(OperationalError("", {}, error), POSTGRESQL).passing is passing


@pytest.mark.parametrize("error", [DisconnectionError(), SQLAlchemyError("This connection is closed")])
def test_an_error_of_the_pool_passes(error: SQLAlchemyError) -> None:
    assert connection_problem(error, POSTGRESQL).passing


def several(*said: tuple[str, str]) -> str:
    lines = [f"- host: {host!r}, port: '5432', hostaddr: '10.0.0.{i}': {text}" for i, (host, text) in enumerate(said)]
    return "\n".join([said[-1][1], "Multiple connection attempts failed. All failures were:", *lines])


WRONG, AWAY = FAILED + "FATAL:  password authentication failed for user", FAILED + "Connection refused"


@pytest.mark.parametrize(
    ("said", "passing"),
    [
        ((("localhost", AWAY), ("localhost", WRONG)), False),
        ((("localhost", WRONG), ("localhost", AWAY)), False),
        ((("a", AWAY), ("b", WRONG)), True),
        ((("a", WRONG), ("b", FAILED + "session is read-only")), True),
        ((("a", WRONG), ("b", WRONG)), False),
        ((("a", AWAY), ("b", FAILED + "session is read-only")), True),
    ],
)
def test_of_several_hosts_one_that_may_come_back_is_waited_for(
    said: tuple[tuple[str, str], ...], passing: bool
) -> None:
    assert found(several(*said), TWO_HOSTS)[0] is passing


def test_several_hosts_are_named_with_their_ports() -> None:
    assert "at a:5432, b:5433" in found(FAILED + "Connection refused", TWO_HOSTS)[1]


def of_sqlite(code: str, message: str) -> bool:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorname = code
    return connection_problem(OperationalError("", {}, error), SQLITE).passing


def test_sqlite_waits_for_locks_and_disks_and_not_for_a_file_that_is_none() -> None:
    assert of_sqlite("SQLITE_BUSY", "database is locked")
    assert of_sqlite("SQLITE_FULL", "database or disk is full")
    assert of_sqlite("SQLITE_IOERR_WRITE", "disk I/O error")
    assert not of_sqlite("SQLITE_NOTADB", "file is not a database")
    assert not of_sqlite("SQLITE_READONLY_DIRECTORY", "attempt to write a readonly database")
    assert not of_sqlite("SQLITE_ERROR", "no such table: jobs")


def test_what_is_wrong_with_the_tables_does_not_pass() -> None:
    missing = psycopg.errors.UndefinedTable('relation "jobs" does not exist')
    problem = connection_problem(ProgrammingError("", {}, missing), POSTGRESQL)
    assert (problem.passing, problem.sentence) == (False, 'the database cannot be used: relation "jobs" does not exist')
