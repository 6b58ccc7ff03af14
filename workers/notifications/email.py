"""Telling people by e-mail. Message-ID is made of the notification's key, so that a second copy is recognised."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

from config.integrations import Email as Rules
from config.settings import Settings
from db.notifications import Notification
from workers.notifications.channel import NotSentError, PartlySentError
from workers.notifications.formatting import text, title


def compose(notification: Notification, settings: Settings, now: datetime) -> EmailMessage:
    """The message as it goes out."""
    rules = settings.notifications.email
    message = EmailMessage()
    message["Subject"] = title(notification)
    message["From"] = rules.sender
    message["To"] = ", ".join(rules.recipients)
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{notification.key}@{rules.sender.rpartition('@')[2].rstrip('>') or 'pleura'}>"
    message["Auto-Submitted"] = "auto-generated"
    message["Importance"] = "high"
    message.set_content(text(notification, settings, patient_name=rules.patient_name))
    return message


class Email:
    """See :class:`workers.notifications.channel.Channel`."""

    def send(self, notification: Notification, settings: Settings, now: datetime) -> None:
        """Hand the message to the SMTP server, for each recipient to whom it has not been handed yet."""
        rules = settings.notifications.email
        owed = [each for each in rules.recipients if each not in notification.taken_by]
        if not owed:
            return
        message = compose(notification, settings, now)
        with _Session(rules) as session:
            try:
                not_eligible = session.send_message(message, to_addrs=owed)
            except smtplib.SMTPRecipientsRefused as error:  # every one of them
                not_eligible = error.recipients
        if not_eligible:
            raise PartlySentError(
                _refusals(not_eligible, rules.recipients), [each for each in owed if each not in not_eligible]
            )

    def verify(self, settings: Settings) -> str:
        """Connect, secure and log in as for a message, and quit."""
        rules = settings.notifications.email
        with _Session(rules) as session:
            session.noop()
        return f"{rules.host}:{rules.port} takes mail ({rules.security}{', logged in' if rules.user else ''})"


def _refusals(not_eligible: Mapping[str, tuple[int, bytes]], recipients: Sequence[str]) -> str:
    """Who has not been told, by place in the settings: addresses and the server's own words stay out of the log."""
    places = [f"{recipients.index(name) + 1} ({code})" for name, (code, _) in not_eligible.items()]
    return f"the SMTP server has not taken it for recipient {', '.join(sorted(places))} of {len(recipients)}"


class _Session:
    """An SMTP session that is ready to take a message; every failure in it is a NotSentError without its words."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._smtp: smtplib.SMTP | None = None

    def __enter__(self) -> smtplib.SMTP:
        try:
            self._smtp = _connect(self._rules)
        except (smtplib.SMTPException, OSError) as error:
            raise _not_sent(error) from error
        return self._smtp

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._smtp is not None:
            _quit(self._smtp)
        if isinstance(error, smtplib.SMTPException | OSError):
            raise _not_sent(error) from error


def _connect(rules: Rules) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=rules.ca_file) if rules.security != "none" else None
    if rules.security == "tls":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(rules.host, rules.port, timeout=rules.timeout_seconds, context=context)
    else:
        smtp = smtplib.SMTP(rules.host, rules.port, timeout=rules.timeout_seconds)
    try:
        if rules.security == "starttls":
            smtp.starttls(context=context)
        if rules.user:
            smtp.login(rules.user, rules.password.get_secret_value() if rules.password else "")
    except BaseException:
        smtp.close()
        raise
    return smtp


def _quit(smtp: smtplib.SMTP) -> None:
    """Say goodbye. The message is taken or not by now, whatever becomes of this."""
    try:
        smtp.quit()
    except (smtplib.SMTPException, OSError):
        smtp.close()


def _not_sent(error: Exception) -> NotSentError:
    # A server's words may quote addresses; its code is enough to look it up in its own log.
    code = f" {error.smtp_code}" if isinstance(error, smtplib.SMTPResponseException) else ""
    return NotSentError(f"the SMTP server has not taken it ({type(error).__name__}{code})")
