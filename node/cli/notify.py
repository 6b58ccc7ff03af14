"""``pleura notify``: test a notification channel, or retry failed notifications."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import click

from config.settings import Settings
from db import notifications
from node.cli.common import console, fail, settings_of
from node.cli.worklist import actor, open_database
from workers.notifications.channel import NotSentError
from workers.notifications.channels import CHANNELS
from workers.notifications.formatting import trial_notification


@click.command()
@click.option("--test", "trial", type=click.Choice(list(CHANNELS)), help="Send a test message through this channel.")
@click.option("--retry", "failed", type=click.Choice(list(CHANNELS)), help="Retry failed notifications of this one.")
@click.pass_context
def notify(context: click.Context, trial: str | None, failed: str | None) -> None:
    """Test a channel of [notifications], or retry its failed notifications.

    A test message is marked as a test; the channel need not be enabled yet. Exit status 1 with the reason if the
    receiver did not accept it.
    """
    if (trial is None) == (failed is None):
        raise click.UsageError("give either --test or --retry with a channel", ctx=context)
    settings = settings_of(context)
    if trial is not None:
        _try(trial, settings)
    elif failed is not None:
        number = open_database(settings).write(notifications.requeue, failed, actor(), datetime.now(UTC))
        console.print(f"{number} notifications by {failed} will be sent again")


def _try(channel: str, settings: Settings) -> None:
    missing = settings.notifications.channels[channel].missing
    if missing:
        fail(f"set {', '.join(missing)} in [notifications.{channel}] first")
    now = datetime.now(UTC)
    try:
        CHANNELS[channel].send(trial_notification(channel, uuid.uuid4().hex, now), settings, now)
    except NotSentError as error:
        fail(f"{error}; fix [notifications.{channel}]")
    console.print(f"a test message was sent by {channel}")
