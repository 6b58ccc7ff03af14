"""Types of single settings: what is checked of a value wherever it stands."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, StringConstraints

URI = r"(urn:[a-z0-9][a-z0-9-]+:|https?://)\S+"
"""Names whom an identifier is of (FHIR Identifier.system)."""
_OID = r"[0-2](\.(0|[1-9]\d*))+"


def uri_of(name: str) -> str:
    """An OID or URI as a URI; empty for any other name."""
    return f"urn:oid:{name}" if re.fullmatch(_OID, name) else name if re.fullmatch(URI, name) else ""


def is_ae_title(title: str) -> bool:
    """Whether this is a value of VR AE (PS3.5 6.2) without padding: 1 to 16 characters, no backslash or control
    character.
    """
    return re.fullmatch(r"(?! )[\x20-\x5b\x5d-\x7e]{1,16}(?<! )", title) is not None


def _ae_title(value: str) -> str:
    title = value.strip(" ")
    if not is_ae_title(title):
        raise ValueError("an AE title has 1 to 16 ASCII characters, without backslash")
    return title


def _uid_root(value: str) -> str:
    """Check a UID prefix (PS3.5 9.1) that leaves room for 39 characters of digest."""
    if not re.fullmatch(_OID, value) or len(value) > 24:
        raise ValueError("a UID root is digits and dots without leading zeros, 24 characters at most")
    return value


def _pattern(value: str) -> str:
    """Check a regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error
    return value


def _certificate(value: str) -> str:
    """A name in lower case, or ``sha256:`` and the digest in lower case without colons, as OpenSSL prints it or not."""
    name = value.strip().lower()
    digest = re.fullmatch(r"(?:sha-?256(?: fingerprint)?[:=] ?)?((?:[0-9a-f]{2}:?){32})", name)
    if digest is not None:
        return f"sha256:{digest[1].replace(':', '')}"
    if not name or name.startswith("sha256:"):
        raise ValueError("must be a name in the certificate, or sha256: and the 64 digits of its SHA-256 fingerprint")
    return name


def _time_zone(value: str) -> str:
    """Check the name of a time zone."""
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError) as error:  # a name that leads elsewhere, a folder, a name that is unknown
        hint = "write a name of the IANA database, such as Europe/Berlin (the system's package tzdata has them)"
        raise ValueError(f"{value!r} is not a time zone; {hint}") from error
    return value


def _viewer_url(value: str) -> str:
    """Check the address of a viewer; empty: there is none."""
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write a whole address that begins with http:// or https://")
    if value.count("{study_uid}") != 1 or set("{}\"'<>\\ ") & set(value.replace("{study_uid}", "")):
        raise ValueError("write {study_uid} once, where the Study Instance UID belongs, and no other braces or blanks")
    if "{study_uid}" in parts.netloc:
        raise ValueError("{study_uid} belongs behind the host")
    return value


def _network(value: str) -> str:
    """Check an IP address or a network in CIDR notation."""
    ip_network(value, strict=False)
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
UIDRoot = Annotated[str, AfterValidator(_uid_root)]
Network = Annotated[str, AfterValidator(_network)]
Pattern = Annotated[str, AfterValidator(_pattern)]
CertificateName = Annotated[str, AfterValidator(_certificate)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
ViewerURL = Annotated[str, AfterValidator(_viewer_url)]
IssuerName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Kind = Literal["seg", "sr", "sc", "gsps", "summary", "lungs"]
