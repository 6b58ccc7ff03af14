"""Whether the provider of log-ins by OpenID Connect can be used."""

from __future__ import annotations

import time
from datetime import datetime

from config.settings import Settings
from node.monitoring.check import Check
from node.sign_on import ProviderError
from workers.clock import utc_now

PART = "OpenID provider"
_CLOCK_SECONDS = 30.0
"""Well below what a node forgives in the times of an ID token."""


def check_openid(settings: Settings) -> Check:
    """The provider answers with a document and keys that a node can use, and its clock is this machine's."""
    from node.openid import Provider

    openid = settings.admin.openid
    provider = Provider(openid, time.monotonic)
    try:
        _, clock = provider.discover()
        provider.check_keys()
    except ProviderError as error:
        remedy = "correct [admin.openid], or see the provider; passwords of this node work meanwhile"
        return Check(PART, False, f"{openid.issuer} {error}", remedy)
    return compare_clocks(openid.issuer, clock, utc_now())


def compare_clocks(issuer: str, theirs: datetime | None, ours: datetime) -> Check:
    """The provider's clock, where it tells the time, and this machine's are close enough for times in ID tokens."""
    apart = abs((theirs - ours).total_seconds()) if theirs else 0.0
    if apart > _CLOCK_SECONDS:
        found = f"its clock and this machine's are {apart:.0f} s apart: ID tokens look expired, or not valid yet"
        return Check(PART, False, found, "synchronise both by NTP")
    return Check(PART, True, f"{issuer} answers, with keys")
