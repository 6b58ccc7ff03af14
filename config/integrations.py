"""The settings of HL7 v2, of notifications (webhook, e-mail, HL7), and of de-identified export."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from config.secret import Secret
from config.section import Part, Port


def _network(value: str) -> str:
    """Check an IP address or a network in CIDR notation."""
    ip_network(value, strict=False)
    return value


Network = Annotated[str, AfterValidator(_network)]
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


class Channel(Part):
    """A way of sending notifications; ``needed`` are the keys without which it cannot be enabled."""

    needed: ClassVar[tuple[str, ...]] = ()
    enabled: bool = False

    @property
    def missing(self) -> list[str]:
        """Keys that it needs and that are not set."""
        return [key for key in self.needed if not getattr(self, key)]


class Webhook(Channel):
    """A notification as JSON by HTTPS POST, signed as Standard Webhooks describes it."""

    needed = ("url", "secret")
    enabled: bool = False
    """Send notifications on critical findings to a webhook."""
    url: str = Field(default="", pattern=r"^(https://.+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/.*)?)?$")
    """Address of the receiver; https, or http on this machine."""
    secret: Secret | None = None
    """Key of the HMAC-SHA256 signature: any text, or base64 after whsec_."""
    ca_file: Path | None = None
    """PEM file with the CA of the receiver, where it is none that this system trusts."""
    patient_name: bool = False
    """Send the patient's name too."""
    timeout_seconds: float = Field(default=10, gt=0)
    """Time limit for connecting and for the answer."""


class Email(Channel):
    """A notification by e-mail."""

    needed = ("host", "sender", "recipients")
    enabled: bool = False
    """Send notifications on critical findings by e-mail."""
    host: str = ""
    """SMTP server."""
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    """Its TCP port."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """starttls and tls refuse a server without a valid certificate; none is for this machine and trusted networks."""
    user: str = ""
    """User to log in as; empty: without log-in."""
    password: Secret | None = None
    """Password of that user."""
    ca_file: Path | None = None
    """PEM file with the CA of the server, where it is none that this system trusts."""
    sender: str = ""
    """Address in From."""
    recipients: tuple[str, ...] = ()
    """Addresses in To."""
    patient_name: bool = False
    """Write the patient's name and ID too. Telephones show e-mail on the lock screen: better not."""
    timeout_seconds: float = Field(default=30, gt=0)
    """Time limit for connecting and for each answer."""


class HL7Notification(Channel):
    """A notification as HL7 v2 ORU^R01 with preliminary status, over MLLP."""

    needed = ("host",)
    enabled: bool = False
    """Send notifications on critical findings to an HL7 receiver."""
    host: str = ""
    """Address of the receiver."""
    port: Annotated[int, Field(ge=1, le=65535)] = 2575
    """Its TCP port."""
    tls: bool = False
    """Connect by TLS, and refuse a server without a valid certificate."""
    ca_file: Path | None = None
    """PEM file with the CA of the receiver, where it is none that this system trusts."""
    sending_application: str = "PLEURA"
    """MSH-3."""
    sending_facility: str = ""
    """MSH-4; empty: site.name."""
    receiving_application: str = ""
    """MSH-5."""
    receiving_facility: str = ""
    """MSH-6."""
    accession_field: Literal["OBR-3", "OBR-18", "OBR-19", "OBR-20"] = "OBR-18"
    """Field that carries the accession number."""
    patient_name: bool = True
    """Write the patient's name into PID-5, where a receiver expects it; without it PID-5 says that there is none."""
    timeout_seconds: float = Field(default=15, gt=0)
    """Time limit for connecting and for the acknowledgement."""


class Notifications(Part):
    """Notifications on critical findings; each channel is off by default and sends a finding of a study once."""

    maximum_age_hours: float = Field(default=24, gt=0)
    """No notification on a study that was received longer ago, or acquired so long before it came: it was sent again,
    back-filled or run again."""
    link: str = Field(default="", pattern=r"^(https?://.+)?$")
    """Address of the admin page for its users, such as https://pleura.hospital; messages link to the study."""
    attempts: int = Field(default=50, ge=1)
    """Attempts before a notification is marked as failed; workers.backoff_seconds gives the wait between them."""
    webhook: Webhook = Webhook()
    email: Email = Email()
    hl7: HL7Notification = HL7Notification()

    @property
    def channels(self) -> dict[str, Channel]:
        """The settings of every channel by its name."""
        return {name: part for name, part in self if isinstance(part, Channel)}

    @model_validator(mode="after")
    def _complete(self) -> Notifications:
        for name, channel in self.channels.items():
            if channel.enabled and channel.missing:
                raise ValueError(f"{name} is enabled: set {', '.join(channel.missing)} too")
        return self


class Deidentification(Part):
    """De-identified export for research: the basic profile of PS3.15 Annex E (docs/deidentified-export.md)."""

    key: Secret | None = None
    """Secret of 32 characters or more from which pseudonyms, UIDs and shifts of dates are made; without it nothing is
    exported. Who has it can find a patient again: guard it as the images, and never change it within a project."""
    project: str = ""
    """Name of the research project: each has pseudonyms of its own, so that their data sets cannot be joined."""
    dates: Literal["shifted", "removed"] = "shifted"
    """shifted: all dates of a patient lie by the same number of days in the past (one to ten years), times of day stay
    (Retain Longitudinal Temporal Information with Modified Dates). removed: no dates and times."""
    patient_characteristics: bool = True
    """Keep age (from 90 years on: 90), sex, size, weight and the like (Retain Patient Characteristics)."""
    device_identity: bool = False
    """Keep station name, serial numbers and other identifiers of devices (Retain Device Identity)."""
    clean_descriptors: bool = True
    """Keep descriptions as far as they consist of well-known words for body parts, views and procedures (Clean
    Descriptors); otherwise they are removed."""
    unknown_burned_in: Literal["radiographs", "refuse"] = "radiographs"
    """Images that do not say whether text is burned into their pixels: export radiographs (CR, DX) whose Image Type is
    PRIMARY and that were not scanned, or none. Secondary captures and images that say YES are never exported."""

    @field_validator("key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("the key needs 32 characters at least; `openssl rand -base64 32` makes one")
        return value


class Traces(Part):
    """OpenTelemetry traces of an image's way: received, analysed, delivered (docs/traces.md). No patient data."""

    enabled: bool = False
    """Send traces; needs the extra `traces`."""
    endpoint: str = Field(default="", pattern=r"^(https?://[^\s?#]+)?$")
    """Where an OpenTelemetry collector takes traces by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces."""
    authorization: Secret | None = None
    """Value of the Authorization header, such as `Bearer …`; empty: none."""
    ca_file: Path | None = None
    """PEM file with the CA of the collector, where it is none that this system trusts."""
    timeout_seconds: float = Field(default=10, gt=0, le=60)
    """Time limit for connecting and for the answer."""
    interval_seconds: float = Field(default=5, gt=0, le=300)
    """How often the database is asked for what has ended, and spans are sent."""

    @model_validator(mode="after")
    def _complete(self) -> Traces:
        if self.enabled and not self.endpoint:
            raise ValueError("traces are enabled: set endpoint too")
        return self
