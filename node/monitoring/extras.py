"""Libraries of extras that the settings ask for, and that may not be installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from config.settings import Settings
from node.monitoring.check import Check


def missing_extras(settings: Settings) -> Iterator[Check]:
    """What is enabled and lacks its libraries, with the command that installs them."""
    openid = settings.admin.enabled and settings.admin.openid.enabled
    needs = (("openid", openid, ("authlib", "httpx2")), ("traces", settings.traces.enabled, ("opentelemetry.sdk",)))
    for extra, enabled, libraries in needs:
        missing = [name for name in libraries if enabled and find_spec(name) is None]
        if missing:
            yield Check(extra, False, f"{missing[0]} is not installed", f"pip install 'pleura[{extra}]'")
