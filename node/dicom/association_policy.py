"""Who may open an association: known AE titles from known addresses (PS3.8 9.3.4). A pure decision."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from config.listener import Listener, Peer
from config.value_types import is_ae_title
from workers.tls import PeerCertificate, tls_remedy

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
CALLING_WITHOUT_TLS = Rejection(1, 1, 3, "calling AE title not recognized without TLS")
CALLING_WRONG_CERTIFICATE = Rejection(1, 1, 3, "calling AE title not recognized with this certificate")
CALLED_UNKNOWN = Rejection(1, 1, 7, "called AE title not recognized")


# Result 2: transient. Source 3: DICOM UL service-provider, presentation. Reason 2: local limit exceeded.
LIMIT = Rejection(2, 3, 2, "the maximum number of associations is open")
LIMIT_OF_ADDRESS = Rejection(2, 3, 2, "the maximum number of associations from this address is open")


_CERTIFICATE_ADVICE = {
    CALLING_WITHOUT_TLS.why: "Let {title} call by TLS, on port {port}: its [[listener.peers]] names certificates.",
    CALLING_WRONG_CERTIFICATE.why: "If {title} has a new certificate, add its name or fingerprint, which the log of "
    "the listener tells, to the certificates of its [[listener.peers]].",
}


@dataclass(frozen=True, slots=True)
class Advice:
    """What admits a rejected caller: a sentence, and lines for the configuration where some are missing."""

    sentence: str
    toml: str = ""


class AssociationPolicy:
    """The association rules of one listener."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._ae_title = listener.ae_title
        self._peers = tuple((peer, _networks(peer)) for peer in listener.peers)

    def reject(
        self, calling: str, called: str, address: str, certificate: PeerCertificate | None = None
    ) -> Rejection | None:
        """Return the rejection of this association, or None if it is accepted. ``certificate`` is shown with TLS."""
        if called.strip() != self._ae_title:
            return CALLED_UNKNOWN
        caller = _address(address)
        if not self._peers:
            return None if caller is not None and caller.is_loopback else CALLING_WRONG_ADDRESS
        known = [(peer, networks) for peer, networks in self._peers if peer.ae_title == calling.strip()]
        if not known:
            return CALLING_UNKNOWN
        from_here = [peer for peer, networks in known if _allows(networks, caller)]
        if not from_here:
            return CALLING_WRONG_ADDRESS
        if any(not peer.certificates for peer in from_here):
            return None
        if certificate is None:
            return CALLING_WITHOUT_TLS
        named = any(certificate.is_one_of(peer.certificates) for peer in from_here)
        return None if named else CALLING_WRONG_CERTIFICATE

    def is_own_check(self, calling: str, called: str, address: str, local_address: str) -> bool:
        """Whether this node itself calls, from its own machine: it may verify (C-ECHO) without being a peer.

        ``local_address`` is the address at which the connection has arrived.
        """
        own = calling.strip() == called.strip() == self._ae_title
        caller = _address(address)
        return own and caller is not None and (caller.is_loopback or caller == _address(local_address))

    def advice(self, calling: str, called: str, address: str, why: str) -> Advice:
        """What to do so that an association like this one, rejected because of ``why``, is accepted."""
        title, own = calling.strip(), self._ae_title
        if why in (LIMIT.why, LIMIT_OF_ADDRESS.why):
            return Advice(_limit_advice(self._listener, why))
        if remedy := tls_remedy(why):
            return Advice(remedy)
        if why in _CERTIFICATE_ADVICE:
            return Advice(_CERTIFICATE_ADVICE[why].format(title=title, port=self._listener.tls_port))
        if not is_ae_title(title):
            return Advice("Give the caller an AE title of 1 to 16 ASCII characters, without backslash.")
        rejection = self.reject(title, own, address)
        toml = "" if rejection is None else _peer_toml(title, address)
        if called.strip() != own:
            sentence = f"Let {title} call {own}, not {called.strip() or 'an empty AE title'}"
            return Advice(f"{sentence}; add it to the configuration too." if toml else f"{sentence}.", toml)
        if rejection is None:
            return Advice("The configuration in force accepts it: nothing to do.")
        if rejection is CALLING_WRONG_ADDRESS and self._peers:
            return Advice(f'Add "{address}" to the addresses of the [[listener.peers]] with ae_title = "{title}".')
        only = "" if self._peers else " From then on only listed peers are accepted, on this machine too."
        return Advice(f"If you know this system, add it to the configuration and restart the node.{only}", toml)

    def may_query(self, calling: str) -> bool:
        """Whether this AE may query and retrieve own results."""
        return any(peer.query for peer, _ in self._peers if peer.ae_title == calling.strip())

    def is_stat(self, calling: str) -> bool:
        """Whether everything from this AE is STAT."""
        return any(peer.stat for peer, _ in self._peers if peer.ae_title == calling.strip())


def _peer_toml(title: str, address: str) -> str:
    """A table of the configuration that admits this caller; JSON's strings are TOML's."""
    return f"[[listener.peers]]\nae_title = {json.dumps(title)}\naddresses = [{json.dumps(address)}]\n"


def _limit_advice(listener: Listener, why: str) -> str:
    name = "maximum_associations" if why == LIMIT.why else "maximum_associations_per_address"
    return f"Find out why so many are open at a time, or raise listener.{name} ({getattr(listener, name)} now)."


def _networks(peer: Peer) -> tuple[_Network, ...]:
    return tuple(ip_network(address, strict=False) for address in peer.addresses)


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
