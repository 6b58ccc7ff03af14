"""Interface of a notification channel: send a notification, and check whether the receiver can be reached.

Each channel is one file; :mod:`workers.notifications.channels` registers them.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from config.settings import Settings
from db.notifications import Notification

_WORDS = (
    (ssl.SSLCertVerificationError, "its certificate is for another name, or of a CA that is not trusted: see ca_file"),
    (ConnectionRefusedError, "nothing listens on that host and port"),
    (socket.gaierror, "the host name cannot be resolved"),
    (TimeoutError, "no answer in time"),
    (smtplib.SMTPAuthenticationError, "user or password is wrong"),
    (smtplib.SMTPNotSupportedError, "it does not offer STARTTLS, or log-in"),
)


def reason(error: Exception) -> str:
    """An error by its name, which people search for, and what it means; a server's own text may name a patient."""
    name = type(error).__name__
    return next((f"{name}: {words}" for kind, words in _WORDS if isinstance(error, kind)), name)


class NotSentError(Exception):
    """The receiver did not accept the message or could not be reached. The text contains nothing of the message."""


class PartlySentError(NotSentError):
    """Some receivers accepted the message and must not get it again; for the others it must be retried."""

    def __init__(self, reason: str, taken_by: Sequence[str]) -> None:
        super().__init__(reason)
        self.taken_by = tuple(taken_by)


class Channel(Protocol):
    """A way to send notifications."""

    def send(self, notification: Notification, settings: Settings, now: datetime) -> None:
        """Return when every receiver has accepted the message; those in ``notification.taken_by`` have it already.

        Raises:
            NotSentError: no receiver accepted it, with the reason; :class:`PartlySentError` if some did.
        """
        ...

    def verify(self, settings: Settings) -> str:
        """Check the receiver without sending a message; returns a description of it.

        Raises:
            NotSentError: it cannot be reached, with the reason.
        """
        ...
