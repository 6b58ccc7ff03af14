"""The settings of log-ins to the admin page by OpenID Connect."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from config.secret import Secret
from config.section import Part

SECURE_URL = r"^(https://[^\s?#]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/[^\s?#]*)?)$"
"""https, or http on this machine."""
_NEEDED = ("issuer", "client_id", "page")


class OpenID(Part):
    """Log-in to the admin page with accounts of the hospital, by OpenID Connect (docs/single-sign-on.md)."""

    enabled: bool = False
    """Offer log-in by OpenID Connect beside passwords; needs the extra `openid`."""
    issuer: str = Field(default="", pattern=f"^$|{SECURE_URL}")
    """The provider as it names itself, such as https://login.hospital/realms/staff."""
    client_id: str = ""
    """Client ID of this node at the provider."""
    client_secret: Secret | None = None
    """Client secret; empty: a public client, which PKCE alone protects."""
    page: str = Field(default="", pattern=r"^(https?://[^/\s?#]+/?)?$")
    """Address of the admin page for its users, such as https://pleura.hospital. The provider must know it with
    /login/openid/callback behind it as redirect URI, and with /login for log-outs."""
    name: str = Field(default="single sign-on", min_length=1, max_length=60)
    """What the log-in page calls the provider: "Log in with …"."""
    scopes: tuple[str, ...] = ("openid", "profile")
    """Scopes that are asked for."""
    name_claim: str = Field(default="preferred_username", min_length=1)
    """Claim with the user's name on this node; it counts at their first log-in."""
    role_claim: str = Field(default="groups", min_length=1)
    """Claim with groups or roles; dots lead into objects: resource_access.pleura.roles."""
    admins: tuple[str, ...] = ()
    """Groups or roles whose members are admins; the highest role counts, and at each log-in anew."""
    radiologists: tuple[str, ...] = ()
    """Groups or roles whose members are radiologists."""
    viewers: tuple[str, ...] = ()
    """Groups or roles whose members are viewers. Whoever is in none of the three lists is refused."""
    log_out_there: bool = True
    """Log out at the provider, too, where it says how."""
    ca_file: Path | None = None
    """PEM file with the CA of the provider, where it is none that this system trusts."""
    timeout_seconds: float = Field(default=10, gt=0, le=60)
    """Time limit for connecting to the provider and for each answer."""

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends the browser after log-in (RFC 6749 3.1.2)."""
        return self.page.rstrip("/") + "/login/openid/callback"

    @model_validator(mode="after")
    def _complete(self) -> OpenID:
        if not self.enabled:
            return self
        missing = [key for key in _NEEDED if not getattr(self, key)]
        if missing:
            raise ValueError(f"openid is enabled: set {', '.join(missing)} too")
        if not (self.admins or self.radiologists or self.viewers):
            raise ValueError("openid is enabled: set admins, radiologists or viewers too, else nobody may log in")
        if "openid" not in self.scopes:
            raise ValueError("openid.scopes needs openid (OpenID Connect Core 3.1.2.1)")
        return self
