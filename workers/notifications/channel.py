"""What a channel offers: tell one finding, and say whether its receiver can be reached.

One kind a file; :mod:`workers.notifications.channels` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from config.settings import Settings
from db.notifications import Notification

NOTICE = "Research use only. Pleura is not a medical device."


class NotSentError(Exception):
    """The receiver has not taken the message, or could not be reached. The words hold nothing of the message."""


class PartlySentError(NotSentError):
    """Some receivers have taken the message and must not hear it again; the others have not, and are still owed it."""

    def __init__(self, words: str, taken_by: Sequence[str]) -> None:
        super().__init__(words)
        self.taken_by = tuple(taken_by)


class Channel(Protocol):
    """A way to tell somebody."""

    def send(self, notification: Notification, settings: Settings, now: datetime) -> None:
        """Return when every receiver has taken the message; those in ``notification.taken_by`` have it already.

        Raises:
            NotSentError: it has not, and why; :class:`PartlySentError` where some have.
        """
        ...

    def verify(self, settings: Settings) -> str:
        """Say in words who answers, without telling anything.

        Raises:
            NotSentError: nobody does, and why.
        """
        ...
