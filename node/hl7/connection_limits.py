"""Which connection makes room for another: pure decisions about who is connected, since when, and how quiet it is.

Nobody who speaks is shut out by those who do not. Connections that have not sent a message yet have a small limit of
their own, and a further one takes the place of the oldest. The others are limited in all and for each address, and the
one that has been silent longest goes first: an HL7 sender connects again when it has something to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class WorkerId:
    """A connection. ``since``: when it came or has sent its last whole message, in seconds of any clock.

    ``verified``: it has sent a message. ``busy``: one of its messages is being worked on.
    """

    address: str
    since: float
    verified: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Most connections that have not sent a message yet, that have, and that have from one address."""

    waiting: int
    verified: int
    per_address: int


def who_makes_room(places: Collection[WorkerId], newest: WorkerId, limits: Limits) -> WorkerId | None:
    """The connection to close because ``newest``, one of ``places``, has come or has sent its first message.

    It is one of the same kind; of those without a message it is one of the address that has most of them. ``newest``
    itself goes where all others are busy. None: there is room.
    """
    same = [place for place in places if place.verified == newest.verified]
    crowd = [place for place in same if place.address == newest.address]
    if newest.verified and len(crowd) > limits.per_address:
        return _quietest(crowd, newest)
    if len(same) <= (limits.verified if newest.verified else limits.waiting):
        return None
    if newest.verified:
        return _quietest(same, newest)
    counts = Counter(place.address for place in same)
    return _quietest([place for place in same if counts[place.address] == max(counts.values())], newest)


def _quietest(places: Collection[WorkerId], newest: WorkerId) -> WorkerId:
    idle = [place for place in places if not place.busy and place is not newest]
    return min(idle, key=lambda place: place.since, default=newest)
