"""What a database says when it cannot be used: whether it passes decides whether a node waits or ends."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from db.connection_problem import connection_problem

URL = make_url("postgresql+psycopg://pleura:secret@db/pleura")
FAILED = 'connection failed: connection to server at "10.0.0.5", port 5432 failed: FATAL:  '


@pytest.mark.parametrize(
    ("message", "passing"),
    [
        ("the database system is starting up", True),
        ("the database system is shutting down", True),
        ("the database system is in recovery mode", True),
        ("the database system is not yet accepting connections", True),
        ("the database system is not accepting connections", True),
        ("terminating connection due to administrator command", True),
        ("words that no version has used yet", True),
        ('password authentication failed for user "pleura"', False),
        ('database "pleura" does not exist', False),
        ('role "pleura" does not exist', False),
    ],
)
def test_a_server_that_recovers_is_waited_for_and_a_wrong_password_is_not(message: str, passing: bool) -> None:
    found = connection_problem(OperationalError("", {}, Exception(FAILED + message)), URL)
    assert found.passing is passing
    assert "secret" not in str(found)


def test_what_is_wrong_with_the_tables_does_not_pass() -> None:
    assert not connection_problem(OperationalError("", {}, Exception("no such table: jobs")), URL).passing
