"""The notification channels by their name in the configuration, and which of them are enabled."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from config.settings import Settings
from db.study_rules import NotificationRules
from workers.notifications.channel import Channel
from workers.notifications.email import EmailChannel
from workers.notifications.observation_report import HL7Channel
from workers.notifications.webhook import WebhookChannel

CHANNELS: Mapping[str, Channel] = {
    "webhook": WebhookChannel(),
    "email": EmailChannel(),
    "hl7": HL7Channel(),
}


def enabled_channels(settings: Settings) -> tuple[str, ...]:
    """Names of the enabled channels."""
    return tuple(name for name, channel in settings.notifications.channels.items() if channel.enabled)


def notification_rules(settings: Settings) -> NotificationRules:
    """The rules by which the worklist makes notifications."""
    return NotificationRules(enabled_channels(settings), timedelta(hours=settings.notifications.maximum_age_hours))
