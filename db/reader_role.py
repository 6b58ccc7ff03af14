"""A role of PostgreSQL that reads reports and can change nothing, as SQL for the owner of the database."""

from __future__ import annotations

import re

import db.audit_tables
import db.order_tables
import db.user_tables  # noqa: F401  (each puts its tables into the metadata)
from db.tables import Base
from db.views import VIEWS

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def readable(*, patients: bool) -> tuple[str, ...]:
    """What the role may read: views that name no patient; with ``patients`` all views, and tables without secrets."""
    views = [view.name for view in VIEWS if patients or not view.personal]
    tables = [table.name for table in Base.metadata.sorted_tables if patients and not table.info.get("secret")]
    return (*views, *tables)


def reader_role_sql(name: str, *, patients: bool) -> str:
    """SQL that makes the role ``name``, or brings its rights up to date; it may be run any number of times.

    A long query must not get in the way of the node, so a statement of this role ends after a minute.

    Raises:
        ValueError: ``name`` is no plain name of a role (lower-case letters, digits, underscores).
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a role: lower-case letters, digits and underscores")
    return f"""DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN
        CREATE ROLE {name} LOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO {name}', current_database());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO {name}', current_schema());
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM {name}', current_schema());
END $$;
ALTER ROLE {name} SET default_transaction_read_only = on;
ALTER ROLE {name} SET statement_timeout = '60s';
GRANT SELECT ON {", ".join(readable(patients=patients))} TO {name};
"""  # noqa: S608 - the name is checked, and an admin reads this before running it
