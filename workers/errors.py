"""Errors of a job, and how the log tells of them."""

from __future__ import annotations

import traceback

from sqlalchemy.exc import OperationalError


class RetryableError(Exception):
    """Another attempt may succeed. The message is shown to the admin and holds no patient data."""


def where_in_code(error: BaseException) -> str:
    """The stack of an error without its words."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()


def database_problem(error: OperationalError) -> str:
    """Why the database cannot be used, in the driver's first line, which quotes no row."""
    first, _, _ = str(error.orig).partition("\n")
    return f"the database cannot be used ({first})"
