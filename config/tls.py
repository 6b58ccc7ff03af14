"""The settings of DICOM over TLS."""

from __future__ import annotations

from pathlib import Path

from config.section import Part as _Part


class Tls(_Part):
    """DICOM over TLS in both directions (PS3.15 B.12): the certificate of this node, and whom it trusts. Renewed files
    are used for the next association, without a restart."""

    certificate: Path | None = None
    """PEM file with this node's certificate, and after it those of the CAs between it and the root: shown to callers,
    and to destinations that ask for it."""
    key: Path | None = None
    """PEM file with its key, without a passphrase and readable by the node's user alone; empty: it is in the same
    file."""
    ca: Path | None = None
    """PEM file with the CAs, or single certificates, that callers and destinations must have theirs from."""
    crl: Path | None = None
    """PEM file with the certificate revocation list of each of these CAs (RFC 5280); empty: none is looked at. A list
    that is missing or over lets nobody in."""
