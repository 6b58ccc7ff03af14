"""What a kind of destination offers: send objects, say whether the peer answers, and what the peer holds.

One kind a file; :mod:`workers.destinations.destination_kinds` names them. A kind never raises for what a peer does
while sending: it says what became of each object, so that one bad object cannot take the others with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from pathlib import Path
from typing import Protocol

from config.settings import Destination


class PeerError(Exception):
    """The peer could not be asked: no connection, association rejected or aborted, no answer in time."""


class PeerUnreachableError(PeerError):
    """The peer did not answer at all, or would not talk: whatever else it was asked now would fare no better."""


class Contact(Enum):
    """What a call to a destination was: none at all, one that it answered, or one that it did not."""

    NONE = auto()
    ANSWERED = auto()
    SILENT = auto()


class Verdict(StrEnum):
    """What became of one object.

    ``retry``, ``later`` and ``unreachable`` are worth another attempt: ``retry`` a few, the others many, since a peer
    may be full (``later``) or down (``unreachable``) for a night. ``duplicate``: the peer says that it holds an object
    with this SOP Instance UID already.
    """

    SENT = "sent"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    LATER = "later"
    UNREACHABLE = "unreachable"
    NOT_ELIGIBLE = "not_eligible"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An object on its way: the file and the two UIDs of its file meta."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the peer said of one object; ``note`` is for the admin and holds no patient data."""

    verdict: Verdict
    note: str = ""


class StoredObject(Protocol):
    """An object that a peer has taken, by its UIDs; :class:`db.records.Unverified` is one."""

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID."""
        ...

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID."""
        ...

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID."""
        ...

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID."""
        ...


@dataclass(frozen=True, slots=True)
class PeerStudy:
    """Whose study a peer holds under a Study Instance UID."""

    patient_id: str


class DestinationKind(Protocol):
    """A way to reach a peer."""

    def send(self, destination: Destination, calling: str, objects: Sequence[Outgoing]) -> Iterator[Receipt]:
        """Send ``objects`` in their order; one receipt each, as soon as it is known."""
        ...

    def verify(self, destination: Destination, calling: str) -> None:
        """Return when the peer answers.

        Raises:
            PeerError: it does not, and why.
        """
        ...

    def find_study(self, destination: Destination, calling: str, study_instance_uid: str) -> PeerStudy | None:
        """Ask whose study the peer holds, None if it does not hold the study.

        Raises:
            PeerError: the peer cannot be asked.
        """
        ...

    def holds(self, destination: Destination, calling: str, objects: Sequence[StoredObject]) -> Iterator[bool]:
        """Ask whether the peer holds each of ``objects``, in their order, as soon as it is known.

        Raises:
            PeerError: the peer cannot be asked, or not any more.
        """
        ...

    def request_commitment(
        self, destination: Destination, calling: str, transaction_uid: str, objects: Sequence[StoredObject]
    ) -> None:
        """Ask the peer to take responsibility for ``objects``; it reports to our listener, soon or late.

        Raises:
            PeerError: the peer cannot be asked, or will not say.
        """
        ...

    def check_verification(self, destination: Destination, calling: str) -> None:
        """Return when the peer offers what ``destination.verification`` needs.

        Raises:
            PeerError: it does not, and why.
        """
        ...
