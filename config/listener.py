"""The settings of the listener: who may call it, and its limits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from config.section import Part as _Part
from config.section import Port
from config.value_types import AETitle, CertificateName, Network


class Peer(_Part):
    """A calling AE that may open an association."""

    ae_title: AETitle
    """Calling AE title, compared exactly."""
    addresses: tuple[Network, ...] = ()
    """IP addresses or networks (CIDR) it may call from; empty: any address."""
    certificates: tuple[CertificateName, ...] = ()
    """Certificates that it may show: a common or alternative name, or the SHA-256 fingerprint, as sha256:AB:CD:… It
    must call by TLS then. Empty: any certificate of tls.ca, and calls without TLS where the listener takes them."""
    stat: bool = False
    """Treat studies from this AE as STAT."""
    query: bool = False
    """Let this AE query and retrieve this node's own results: C-FIND, C-MOVE (to the AE titles of destinations) and
    C-GET. What there is to retrieve: see destinations[].kind on-request."""


class Listener(_Part):
    """The storage SCP (PS3.4 Annex B)."""

    ae_title: AETitle = "PLEURA"
    """Our AE title; a called AE title that differs is rejected."""
    host: str = "127.0.0.1"
    """Address to bind. Set 0.0.0.0 to be reached from other machines, and name the peers then."""
    port: Port = 11112
    """TCP port; 0 takes a free one and prints it."""
    transport: Literal["plain", "tls", "both"] = "plain"
    """plain: listener.port without TLS. tls: listener.tls_port alone. both: both ports."""
    tls_port: Port = 2762
    """TCP port for DICOM over TLS; 0 takes a free one and prints it."""
    peers: tuple[Peer, ...] = ()
    """Calling AEs that are accepted. Empty: every AE on this machine, nobody from outside it."""
    maximum_associations: int = Field(default=25, ge=1, le=500)
    """Associations at a time; a further one is rejected (transient, local limit exceeded)."""
    maximum_associations_per_address: int = Field(default=20, ge=1, le=500)
    """Associations at a time from one address, so that no machine can take them all."""
    maximum_unassociated: int = Field(default=10, ge=1, le=500)
    """Connections at a time that have not asked for an association yet; the oldest one is closed for a further one."""
    request_timeout_seconds: float = Field(default=10, gt=0)
    """A connection that has not sent its whole A-ASSOCIATE-RQ after this time is closed."""
    minimum_bytes_per_second: int = Field(default=500, ge=0)
    """An association is aborted if a message comes slower than this, on average over listener.idle_timeout_seconds."""
    maximum_pdu: int = Field(default=131072, ge=4096, le=16 * 1024 * 1024)
    """Largest PDU that we accept, in bytes."""
    maximum_instance_bytes: int = Field(default=512 * 1024 * 1024, ge=1024)
    """A larger data set is answered with 0xA700."""
    idle_timeout_seconds: float = Field(default=60, gt=0)
    """An association without traffic is aborted after this time."""
    maximum_waiting_jobs: int = Field(default=0, ge=0)
    """While so many images wait for analysis, further ones are answered with 0xA700, and their senders try again. STAT
    ones are taken, and so is what is not analysed. 0: no limit but the disk's."""
    accept_other_classes: bool = True
    """Accept, record and ignore every other storage class, so that a PACS can forward whole studies."""
    upper_layer: Literal["fast", "stock"] = "fast"
    """How PDUs are read. fast: by Pleura, on private parts of pynetdicom; where they are missing, stock is used, with a
    warning. stock: by pynetdicom alone; slower, holds a data set in memory, and knows no minimum rate."""

    @property
    def ports(self) -> dict[str, int]:
        """The ports that are opened, by their keys; the first one is where the node calls itself."""
        keys = {"plain": ("port",), "tls": ("tls_port",), "both": ("port", "tls_port")}[self.transport]
        return {key: getattr(self, key) for key in keys}

    @property
    def has_tls(self) -> bool:
        """Whether callers may use TLS."""
        return self.transport != "plain"
