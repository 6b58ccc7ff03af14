"""Marks texts of the source that are translated where they are shown."""

from __future__ import annotations


def gettext_noop(message: str) -> str:
    """Mark a text for the catalogue without translating it here."""
    return message
