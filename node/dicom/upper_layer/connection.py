"""What the storage SCP knows of an upper layer (PS3.8), whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pynetdicom import evt
from pynetdicom.association import Association

from config.listener import Listener
from node.dicom.spool import Answer, Begin, SpooledInstance, StoreCommand

CLOSED = "the connection was closed or broken"
"""Why a connection has ended whose peer has said nothing: that is what health checks and load balancers do."""

Answering = Callable[[SpooledInstance, StoreCommand], Answer]
"""Answers a C-STORE-RQ whose data set has arrived; never raises."""

Handlers = list[tuple[Any, Callable[[evt.Event], Any]]]
"""Events of pynetdicom and what handles them."""


@dataclass(frozen=True)
class Receiving:
    """What an upper layer calls: ``begin`` opens a file, ``answering`` answers a C-STORE, ``answered`` is called when
    the response was sent, ``ended`` when an association has ended."""

    listener: Listener
    begin: Begin
    answering: Answering
    answered: Callable[[], None]
    ended: Callable[[Association], None]


class Connection(Protocol):
    """One connection of a peer."""

    @property
    def titles(self) -> tuple[str, str] | None:
        """Calling and called AE title as sent, valid or not; None until an association is requested."""

    @property
    def busy(self) -> bool:
        """Whether a message is arriving or being answered."""

    @property
    def abnormal_end(self) -> str:
        """Why the association did not end by a release, for the log; empty if it did, or was never requested."""

    def close(self, why: str) -> None:
        """Close the connection at once for this reason. Any thread may call it."""

    def suppress_end_message(self) -> None:
        """Do not log why the association ends: the caller has logged it."""


class UpperLayer(Protocol):
    """The upper layer of a listener."""

    def handlers(self) -> Handlers:
        """Events that it handles itself."""

    def open(self, association: Association) -> Connection:
        """Take a connection whose association's threads have not started."""

    def tend(self) -> None:
        """Look after the connections; called ten times a second."""
