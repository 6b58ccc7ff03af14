"""The settings of notifications: webhook, e-mail, HL7."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from config.secret import Secret
from config.section import Part


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
