"""The zone of this machine's clock, and whether the site's times tell another."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from tzlocal import reload_localzone

from config.settings import Settings, Site
from node.monitoring.check import Check

_WINTER, _SUMMER = datetime(2026, 1, 1), datetime(2026, 7, 1)


def machine_zone() -> str:
    """The IANA name of the zone that this machine's clock is in; empty where it cannot be told."""
    try:
        return ZoneInfo(str(reload_localzone())).key
    except (LookupError, ValueError, OSError):  # a POSIX rule in TZ, files that contradict each other
        return ""


def check_time_zone(settings: Settings) -> Iterator[Check]:
    """A hint where results and page tell UTC, the default, and the machine's clock is in another zone."""
    name = machine_zone()
    if settings.site.time_zone != Site().time_zone or not name:
        return
    zone = ZoneInfo(name)
    if zone.utcoffset(_WINTER) or zone.utcoffset(_SUMMER):
        found = f"times in results and on the page are in UTC, the clock of this machine is in {name}"
        yield Check("time zone", True, found, f'set the zone of the hospital: site.time_zone = "{name}"')
