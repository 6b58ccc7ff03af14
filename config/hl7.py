"""The settings of HL7 v2: what comes from the hospital's systems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from config.section import Part, Port
from config.value_types import Network

MessageField = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{2}-\d{1,2}(\.\d{1,2})?$")]
CharacterSet = Literal[
    "ASCII", "8859/1", "8859/2", "8859/3", "8859/4", "8859/5", "8859/6", "8859/7", "8859/8", "8859/9", "8859/10",
    "8859/11", "8859/13", "8859/14", "8859/15", "8859/16", "UNICODE UTF-8", "ISO IR14", "ISO IR87", "ISO IR159",
    "GB 18030-2000", "KS X 1001", "BIG-5", "WINDOWS-1250", "WINDOWS-1251", "WINDOWS-1252", "WINDOWS-1253",
    "WINDOWS-1254", "WINDOWS-1255", "WINDOWS-1256", "WINDOWS-1257", "WINDOWS-1258", "IBM437", "IBM850",
]  # fmt: skip


class HL7(Part):
    """Orders, reports and patients from the hospital's systems: HL7 v2 over MLLP (docs/hl7.md)."""

    enabled: bool = False
    """Start the HL7 listener with `pleura serve`."""
    host: str = "127.0.0.1"
    """Address to bind. Set 0.0.0.0 to be reached from other machines, and name the senders' addresses then."""
    port: Port = 2575
    """TCP port; 0 takes a free one and prints it."""
    addresses: tuple[Network, ...] = ()
    """IP addresses or networks (CIDR) that may connect. Empty: this machine, nobody from outside it."""
    senders: tuple[str, ...] = ()
    """Sending applications that are accepted, as MSH-3|MSH-4 or MSH-3 alone; empty: all that may connect."""
    processing_ids: tuple[str, ...] = ("P",)
    """Values of MSH-11 that are accepted; add T or D only on a test node."""
    tls_certificate: Path | None = None
    """PEM file with the certificate of this listener; with it every connection must be TLS."""
    tls_key: Path | None = None
    """PEM file with its key; empty: the key is in the same file."""
    tls_client_ca: Path | None = None
    """PEM file with the CA that must have signed the sender's certificate; empty: senders need none."""
    character_set: CharacterSet = "8859/1"
    """Character set of messages whose MSH-18 is empty (HL7 table 0211)."""
    character_sets: dict[str, CharacterSet] = Field(default_factory=dict)
    """Meaning of further names in MSH-18 that are no usual spelling: `character_sets.LATEIN = "8859/1"`."""
    accession_fields: tuple[MessageField, ...] = ("IPC-1", "OBR-18")
    """Fields in which an order names the accession number; the first that is not empty counts. Often OBR-3."""
    study_uid_fields: tuple[MessageField, ...] = ("ZDS-1", "IPC-3")
    """Fields in which an order names the Study Instance UID."""
    patient_id_types: tuple[str, ...] = ("MR", "PI", "PT")
    """Types (PID-3.5, MRG-1.5) of identifiers that are a Patient ID; an identifier without a type always is."""
    urgent_priorities: tuple[str, ...] = ("S", "STAT")
    """Priorities of an order (OBR-27.6, TQ1-9, ORC-7.6, OBR-5) that make its study urgent at least."""
    critical_priorities: tuple[str, ...] = ()
    """Priorities of an order that make its study critical. Where half of all orders are STAT, leave it empty."""
    reported_statuses: tuple[str, ...] = ("F", "C")
    """Result statuses (OBR-25, or every OBX-11) with which a study is reported: final and corrected."""
    keep_days: int = Field(default=90, ge=1)
    """Messages, and orders whose studies have not arrived, are deleted after this many days."""
    maximum_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """A longer message closes its connection."""
    maximum_connections: int = Field(default=20, ge=1, le=500)
    """Connections at a time that have sent a message; a further one takes the place of the longest silent one."""
    maximum_connections_per_address: int = Field(default=10, ge=1, le=500)
    """Of these, connections from one address."""
    maximum_waiting: int = Field(default=10, ge=1, le=500)
    """Connections at a time that have not sent a message yet; a further one takes the place of the oldest."""
    first_message_timeout_seconds: float = Field(default=15, gt=0)
    """A connection that has not sent its first whole message by then is closed."""
    idle_timeout_seconds: float = Field(default=3600, gt=0)
    """A connection without a whole message for so long is closed; its sender connects again when it has one."""
    message_timeout_seconds: float = Field(default=30, gt=0)
    """A message that has begun and does not end closes its connection after this time."""
