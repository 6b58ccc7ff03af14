"""``pleura notify``: does a notification get through?"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import click

from config.settings import Settings
from db.notifications import Notifications
from node.cli.common import console, fail, settings_of
from node.cli.worklist import actor, open_engine
from workers.notifications.channel import NotSentError
from workers.notifications.channels import CHANNELS
from workers.notifications.formatting import trial_notification


@click.command()
@click.option("--test", "trial", type=click.Choice(list(CHANNELS)), help="Send a test message through this channel.")
@click.option("--retry", "parked", type=click.Choice(list(CHANNELS)), help="Send again what was failed in this one.")
@click.pass_context
def notify(context: click.Context, trial: str | None, parked: str | None) -> None:
    """Try a channel of [notifications], or send again what could not be sent.

    A test message says that it is one; the channel need not be enabled yet. Ends with 1, and says why, if the receiver
    has not taken it.
    """
    if (trial is None) == (parked is None):
        raise click.UsageError("give either --test or --retry with a channel", ctx=context)
    settings = settings_of(context)
    if trial is not None:
        _try(trial, settings)
    elif parked is not None:
        number = Notifications(open_engine(settings)).requeue(parked, actor(), datetime.now(UTC))
        console.print(f"{number} notifications by {parked} are to be sent again")


def _try(channel: str, settings: Settings) -> None:
    missing = settings.notifications.missing(channel)
    if missing:
        fail(f"set {', '.join(missing)} in [notifications.{channel}] first")
    now = datetime.now(UTC)
    try:
        CHANNELS[channel].send(trial_notification(channel, uuid.uuid4().hex, now), settings, now)
    except NotSentError as error:
        fail(f"{error}; fix [notifications.{channel}]")
    console.print(f"a test message was sent by {channel}")
