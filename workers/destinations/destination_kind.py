"""Interface of a destination kind: send objects, verify the peer, and query what the peer holds.

Each kind is one file; :mod:`workers.destinations.destination_kinds` registers them. Sending never raises for what a
peer does: it returns a receipt for each object, so that one bad object does not affect the others.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum, auto
from pathlib import Path
from typing import Protocol

from config.destinations import Destination

DAMAGED = "the result file is damaged; analyse it again"
"""The note about an object whose :attr:`Outgoing.is_damaged` is true: it is not sent."""

_NOT_SUPPORTED = "a peer of this kind cannot be asked for that"


class PeerError(Exception):
    """The request failed: no connection, association rejected or aborted, or no response in time."""


class PeerUnreachableError(PeerError):
    """The peer did not answer or rejected the association: other requests would fail too."""


class NotSupportedError(PeerError):
    """The peer does not offer what it is asked for: it will not the next time either."""


class NoAnswerError(PeerUnreachableError):
    """The peer was sent the request and has not answered: its outcome there is unknown."""


class PeerContact(Enum):
    """Whether a destination was called, and whether it answered."""

    NONE = auto()
    ANSWERED = auto()
    NO_ANSWER = auto()


class Verdict(StrEnum):
    """Outcome of sending one object.

    ``retry``, ``later`` and ``unreachable`` are retried: ``retry`` a few times, the others many times, since a peer may
    be full (``later``) or down (``unreachable``) for a night. ``duplicate``: the peer reports that it holds an object
    with this SOP Instance UID already. ``unclear``: it, or something in front of it, claims success and does not name
    the object. Of both the peer is asked what it holds. ``rejected`` is permanent.
    """

    SENT = "sent"
    DUPLICATE = "duplicate"
    UNCLEAR = "unclear"
    RETRY = "retry"
    LATER = "later"
    UNREACHABLE = "unreachable"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A received image, or a report of this node."""

    path: Path
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An object to send: the file and the two UIDs of its file meta information.

    ``kind`` is that of the result. ``images`` are those that it is about, ``reports`` those of the images of its study,
    for a kind of destination that takes them.
    ``digest`` is the SHA-256 of the file when it was written; empty where it is not known. ``made_at``: when it was
    recorded, a moment after the times in it.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    kind: str = ""
    images: tuple[SourceFile, ...] = ()
    digest: str = ""
    reports: tuple[SourceFile, ...] = ()
    made_at: datetime | None = None

    @property
    def is_damaged(self) -> bool:
        """Whether the file is not the one that was written.

        Raises:
            OSError: it cannot be read.
        """
        return bool(self.digest) and hashlib.sha256(self.path.read_bytes()).hexdigest() != self.digest


@dataclass(frozen=True, slots=True)
class Receipt:
    """The peer's response to one object; ``note`` is for the admin and contains no patient data.

    ``may_have_arrived``: the peer may hold the object although it did not say so. Should it be wrong one day, it must
    be taken back there.
    """

    verdict: Verdict
    note: str = ""
    may_have_arrived: bool = False


def unreadable(outgoing: Outgoing, error: OSError) -> Receipt:
    """The receipt of an object whose file cannot be read.

    A file that is not there is gone for good, unless its folder is away as well: then its file system is. Any other
    error may pass.
    """
    if isinstance(error, FileNotFoundError) and outgoing.path.parent.is_dir():
        return Receipt(Verdict.REJECTED, f"the result file cannot be read ({type(error).__name__}); analyse it again")
    return Receipt(Verdict.LATER, f"the result file cannot be read now: {error.strerror}")


class StoredObject(Protocol):
    """The UIDs of an object that a peer has accepted; :class:`db.records.Unverified` is one."""

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
    """The patient of a study that a peer holds."""

    patient_id: str


class DestinationKind(ABC):
    """A way to reach a peer; a kind that cannot be asked for something inherits the error that says so.

    ``takes_images``: results are given with the images that they are about; ``takes_reports``: with the reports of the
    images of their study. ``transfers``: sending transfers objects to a peer, which the audit trail tells. ``answer``:
    what doctor says of a destination for which :meth:`verify` returns.
    """

    takes_images: bool = False
    takes_reports: bool = False
    transfers: bool = True
    answer: str = "answers"

    @abstractmethod
    def send(self, destination: Destination, calling: str, objects: Sequence[Outgoing]) -> Iterator[Receipt]:
        """Send ``objects`` in their order; yields a receipt for each as soon as it is known."""

    @abstractmethod
    def verify(self, destination: Destination, calling: str) -> None:
        """Return if the peer answers.

        Raises:
            PeerError: it does not, with the reason.
        """

    def find_study(self, destination: Destination, calling: str, study_instance_uid: str) -> PeerStudy | None:
        """Query the patient of a study; None if the peer does not hold the study.

        Raises:
            PeerError: the query failed.
        """
        del destination, calling, study_instance_uid
        raise NotSupportedError(_NOT_SUPPORTED)

    def holds(self, destination: Destination, calling: str, objects: Sequence[StoredObject]) -> Iterator[bool]:
        """Query whether the peer holds each of ``objects``; yields in their order, as soon as it is known.

        Raises:
            PeerError: a query failed.
        """
        del destination, calling, objects
        raise NotSupportedError(_NOT_SUPPORTED)

    def request_commitment(
        self, destination: Destination, calling: str, transaction_uid: str, objects: Sequence[StoredObject]
    ) -> None:
        """Request Storage Commitment for ``objects``; the peer reports to the listener of this node later.

        Raises:
            PeerError: the request failed.
        """
        del destination, calling, transaction_uid, objects
        raise NotSupportedError(_NOT_SUPPORTED)

    def check_verification(self, destination: Destination, calling: str) -> None:
        """Return if the peer supports the service that ``destination.verification`` needs.

        By default the same as :meth:`verify`: a peer that answers can be searched, or there is nothing else to check.

        Raises:
            PeerError: it does not, with the reason.
        """
        self.verify(destination, calling)
