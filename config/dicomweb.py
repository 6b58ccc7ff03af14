"""The settings of this node's own DICOMweb server."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from config.section import Part, Port


class DicomWebServer(Part):
    """Images by STOW-RS, and this node's own results by QIDO-RS and WADO-RS (docs/dicomweb.md)."""

    enabled: bool = False
    """Start the DICOMweb server with `pleura serve`. Its root is /dicom-web."""
    host: str = "127.0.0.1"
    """Address to bind. Give it a certificate, or put a reverse proxy with TLS in front, before others may reach it."""
    port: Port = 8043
    """TCP port; 0 takes a free one and prints it."""
    public_url: str = Field(default="", pattern=r"^(https?://[^\s@?#]+)?$")
    """Root of the services for callers, where a proxy gives them another host or path, such as
    https://pacs.example.org/ai/dicom-web: BulkDataURI and Retrieve URL begin with it. Empty: with the address that was
    asked."""
    tls_certificate: Path | None = None
    """PEM file with the certificate of this server; with it every connection must be TLS."""
    tls_key: Path | None = None
    """PEM file with its key, without a passphrase; empty: the key is in the same file."""
    tls_client_ca: Path | None = None
    """PEM file with the CAs that must have signed the certificate of whoever calls; empty: callers need none. They need
    their token all the same."""
    maximum_request_bytes: int = Field(default=4 * 1024**3, ge=1024)
    """A larger request is answered with 413; what was stored of it before stays. One instance is limited by
    listener.maximum_instance_bytes."""
    maximum_uploads: int = Field(default=8, ge=1, le=64)
    """Requests that store at a time; a further one is answered with 503 and Retry-After."""
    connections_per_address: int = Field(default=32, ge=4, le=500)
    """Connections from one address at a time (IPv6: from one /64 network); admin.trusted_proxies may hold more."""

    @model_validator(mode="after")
    def _has_certificate(self) -> DicomWebServer:
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate")
        return self
