"""The settings of the audit trail, and of the audit record repositories that get it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from config.section import Part


class AuditRepository(Part):
    """An audit record repository (IHE ATNA): it gets every entry of the audit trail as a DICOM audit message
    (PS3.15 A.5) by syslog."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Name of our own; under another name all entries are sent again."""
    host: str = Field(min_length=1)
    """Address of the receiver; over TLS its certificate must be for it."""
    port: Annotated[int, Field(ge=1, le=65535)] = 6514
    """Its port; for UDP mostly 514."""
    transport: Literal["tls", "udp"] = "tls"
    """tls: RFC 5425; udp: RFC 5426, unprotected, and what is lost on the way nobody knows."""
    ca_file: Path | None = None
    """PEM file with the CA of the receiver; empty: tls.ca, or those that this system trusts. The node shows
    tls.certificate, for which most repositories ask."""
    answers_close_notify: bool = True
    """false: the receiver closes a TLS connection without the answer that RFC 5425 4.4 asks for. That it closed it, and
    did not break it, counts as read then, which somebody between both machines could forge."""
    timeout_seconds: float = Field(default=15, gt=0)
    """Time limit for connecting and for each step."""

    @model_validator(mode="after")
    def _consistent(self) -> AuditRepository:
        if self.transport == "udp" and self.ca_file is not None:
            raise ValueError("ca_file: UDP knows no certificates")
        return self


class Audit(Part):
    """The audit trail, and who gets it."""

    source_id: str = Field(default="", max_length=64)
    """AuditSourceID of audit messages; empty: listener.ae_title with the host's name."""
    keep_days: int = Field(default=0, ge=0)
    """Older entries are removed, and a checkpoint keeps the chain whole; 0 keeps them for ever."""
    keep_unsent_days: int = Field(default=365, ge=1)
    """Entries that a repository has not been sent are kept this long although audit.keep_days is over."""
    repositories: tuple[AuditRepository, ...] = ()
    """Audit record repositories."""

    @model_validator(mode="after")
    def _unique(self) -> Audit:
        names = [repository.name for repository in self.repositories]
        if len(set(names)) != len(names):
            raise ValueError("repositories: two of them have the same name")
        return self
