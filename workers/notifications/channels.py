"""The channels of notifications, by the name that the configuration uses, and which of them are on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from config.settings import Settings
from db.notifications import NotificationRules
from workers.notifications.channel import Channel
from workers.notifications.email import Email
from workers.notifications.observation_report import HL7Report
from workers.notifications.webhook import Webhook

CHANNELS: Mapping[str, Channel] = {
    "webhook": Webhook(),
    "email": Email(),
    "hl7": HL7Report(),
}


def enabled_channels(settings: Settings) -> tuple[str, ...]:
    """Names of the channels that are on."""
    return tuple(name for name in CHANNELS if getattr(settings.notifications, name).enabled)


def notification_rules(settings: Settings) -> NotificationRules:
    """What the worklist must know to raise notifications."""
    return NotificationRules(enabled_channels(settings), timedelta(hours=settings.notifications.maximum_age_hours))
