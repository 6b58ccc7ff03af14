"""The error of a job that another attempt may fix."""

from __future__ import annotations


class RetryableError(Exception):
    """Another attempt may succeed. The message is shown to the admin and holds no patient data."""
