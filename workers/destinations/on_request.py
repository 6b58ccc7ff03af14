"""Results that stay here until a peer asks: by C-FIND, C-MOVE and C-GET, or by QIDO-RS and WADO-RS (docs/dicomweb.md).

A delivery to this destination makes a result visible. So what holds back, withdraws or replaces what is sent to an
archive does the same to what others may ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.destinations import Destination
from workers.destinations.destination_kind import DAMAGED, DestinationKind, Outgoing, PeerError, Receipt, Verdict
from workers.store_files import AWAY, is_away


@dataclass(frozen=True, slots=True)
class OnRequest(DestinationKind):
    """The kind; ``folder`` is the store, whose files are given."""

    folder: Path
    transfers = False
    answer = "(Query/Retrieve, DICOMweb)"

    def send(self, destination: Destination, calling: str, objects: Sequence[Outgoing]) -> Iterator[Receipt]:
        """Nothing is sent: each object whose file is in the store is there."""
        del destination, calling
        for outgoing in objects:
            if is_away(self.folder):
                yield Receipt(Verdict.UNREACHABLE, AWAY)
            elif not outgoing.path.is_relative_to(self.folder):
                yield Receipt(Verdict.REJECTED, "nothing is sent there: results of this store alone can be asked for")
            elif not outgoing.path.is_file():
                yield Receipt(Verdict.REJECTED, "the result file is not in the store; analyse it again")
            elif outgoing.is_damaged:
                yield Receipt(Verdict.REJECTED, DAMAGED)
            else:
                yield Receipt(Verdict.SENT)

    def verify(self, destination: Destination, calling: str) -> None:
        """Return if the store is there."""
        del destination, calling
        if not self.folder.is_dir():
            raise PeerError(f"store.folder {self.folder} is no folder")
