"""What the system page alone asks: the database server itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """The database that runs. ``started_at``: None for SQLite, which is no process of its own."""

    version: str
    started_at: datetime | None


def database_server(connection: Connection) -> DatabaseServer:
    """Name, version and start of the database."""
    dialect = connection.dialect
    number = ".".join(map(str, dialect.server_version_info or ()))
    if dialect.name == "sqlite":
        return DatabaseServer(f"SQLite {number}", None)
    return DatabaseServer(f"PostgreSQL {number}", connection.scalar(text("SELECT pg_postmaster_start_time()")))
