"""The destination kinds by their name in the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from workers.destinations.destination_kind import DestinationKind
from workers.destinations.dimse import Dimse

DESTINATION_KINDS: Mapping[str, DestinationKind] = {
    "dimse": Dimse(),
}
