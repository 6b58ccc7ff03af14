"""``pleura notify``: does an alarm get through?"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import click

from node.commands.common import console, fail, settings_of
from workers.notifications.contract import NotSentError
from workers.notifications.registry import CHANNELS
from workers.notifications.wording import trial_notification


@click.command()
@click.option("--test", "channel", type=click.Choice(list(CHANNELS)), required=True, help="Channel to try.")
@click.pass_context
def notify(context: click.Context, channel: str) -> None:
    """Send a test message, which says that it is one, through a channel of [notifications].

    The channel need not be enabled yet. Ends with 1, and says why, if the receiver has not taken the message.
    """
    settings = settings_of(context)
    missing = settings.notifications.missing(channel)
    if missing:
        fail(f"set {', '.join(missing)} in [notifications.{channel}] first")
    now = datetime.now(UTC)
    try:
        CHANNELS[channel].send(trial_notification(channel, uuid.uuid4().hex, now), settings, now)
    except NotSentError as error:
        fail(f"{error}; mend [notifications.{channel}]")
    console.print(f"a test message was sent by {channel}")
