"""Who may open an association: known AE titles from known addresses (PS3.8 9.3.4). A pure decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from config.settings import Listener, Peer, SettingsError

_Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Rejection:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21), and why, for the log."""

    result: int
    source: int
    reason: int
    why: str


# Result 1: permanent. Source 1: DICOM UL service-user. Reasons 3 and 7: calling, called AE title not recognized.
CALLING_UNKNOWN = Rejection(1, 1, 3, "calling AE title not recognized")
CALLING_WRONG_ADDRESS = Rejection(1, 1, 3, "calling AE title not recognized from this address")
CALLED_UNKNOWN = Rejection(1, 1, 7, "called AE title not recognized")


class AssociationPolicy:
    """The association rules of one listener.

    Raises:
        SettingsError: an address of a peer is neither an IP address nor a network.
    """

    def __init__(self, listener: Listener) -> None:
        self._ae_title = listener.ae_title
        self._peers = tuple((peer, _networks(peer)) for peer in listener.peers)

    def reject(self, calling: str, called: str, address: str) -> Rejection | None:
        """Return the rejection of this association, or None if it is accepted."""
        if called.strip() != self._ae_title:
            return CALLED_UNKNOWN
        caller = _address(address)
        if not self._peers:
            return None if caller is not None and caller.is_loopback else CALLING_WRONG_ADDRESS
        known = [networks for peer, networks in self._peers if peer.ae_title == calling.strip()]
        if not known:
            return CALLING_UNKNOWN
        return None if any(_allows(networks, caller) for networks in known) else CALLING_WRONG_ADDRESS

    def is_stat(self, calling: str) -> bool:
        """Whether everything from this AE is STAT."""
        return any(peer.stat for peer, _ in self._peers if peer.ae_title == calling.strip())


def _networks(peer: Peer) -> tuple[_Network, ...]:
    try:
        return tuple(ip_network(address, strict=False) for address in peer.addresses)
    except ValueError as error:
        raise SettingsError(f"listener.peers: {peer.ae_title}: {error}; give an IP address or a network") from error


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _allows(networks: Iterable[_Network], caller: IPv4Address | IPv6Address | None) -> bool:
    allowed = tuple(networks)
    return not allowed or (caller is not None and any(caller in network for network in allowed))
