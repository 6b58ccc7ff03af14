"""Notification by e-mail. The Message-ID contains the notification's key, so that a second copy is recognised."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

from config.notifications import Email
from config.settings import Settings
from db.notifications import Notification
from models.remote.time_limit import within
from workers.notifications.channel import NotSentError, PartlySentError, reason
from workers.notifications.formatting import text, title


def compose(notification: Notification, settings: Settings, now: datetime) -> EmailMessage:
    """Make the e-mail message."""
    email = settings.notifications.email
    message = EmailMessage()
    message["Subject"] = title(notification)
    message["From"] = email.sender
    message["To"] = ", ".join(email.recipients)
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{notification.key}@{email.sender.rpartition('@')[2].rstrip('>') or 'pleura'}>"
    message["Auto-Submitted"] = "auto-generated"
    message["Importance"] = "high"
    message.set_content(text(notification, settings, patient_name=email.patient_name))
    return message


class EmailChannel:
    """See :class:`workers.notifications.channel.Channel`."""

    def send(self, notification: Notification, settings: Settings, now: datetime) -> None:
        """Send the message by SMTP to each recipient for whom the server has not accepted it yet."""
        email = settings.notifications.email
        open_recipients = [each for each in email.recipients if each not in notification.taken_by]
        if not open_recipients:
            return
        message = compose(notification, settings, now)
        with _Session(email) as session:
            try:
                refused = session.send_message(message, to_addrs=open_recipients)
            except smtplib.SMTPRecipientsRefused as error:  # the server refused all recipients
                refused = error.recipients
        if refused:
            accepted = [each for each in open_recipients if each not in refused]
            raise PartlySentError(_refusals(refused, email.recipients), accepted)

    def verify(self, settings: Settings) -> str:
        """Connect, start TLS and log in as for a message, then quit."""
        email = settings.notifications.email
        with _Session(email) as session:
            session.noop()
        return f"{email.host}:{email.port} accepts mail ({email.security}{', logged in' if email.user else ''})"


def _refusals(refused: Mapping[str, tuple[int, bytes]], recipients: Sequence[str]) -> str:
    """Refused recipients by their number in the settings: addresses and the server's texts stay out of the log."""
    numbers = [f"{recipients.index(name) + 1} ({code})" for name, (code, _) in refused.items()]
    return f"the SMTP server did not accept it for recipient {', '.join(sorted(numbers))} of {len(recipients)}"


class _Smtp(smtplib.SMTP):
    """Each answer comes within the time limit, however many lines it has: servers that delay spammers send some."""

    def getreply(self) -> tuple[int, bytes]:
        """Read an answer."""
        if self.sock is None:
            return super().getreply()
        with within(self.timeout, self.sock):
            return super().getreply()


class _SmtpByTls(_Smtp, smtplib.SMTP_SSL):
    """The same by TLS from the first byte on."""


class _Session:
    """An SMTP session that is ready for a message; every failure in it becomes a NotSentError without its text."""

    def __init__(self, email: Email) -> None:
        self._email = email
        self._smtp: smtplib.SMTP | None = None

    def __enter__(self) -> smtplib.SMTP:
        try:
            self._smtp = _connect(self._email)
        except (smtplib.SMTPException, OSError) as error:
            raise _not_sent(error) from error
        return self._smtp

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._smtp is not None:
            _quit(self._smtp)
        if isinstance(error, smtplib.SMTPException | OSError):
            raise _not_sent(error) from error


def _connect(email: Email) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=email.ca_file) if email.security != "none" else None
    if email.security == "tls":
        smtp: _Smtp = _SmtpByTls(email.host, email.port, timeout=email.timeout_seconds, context=context)
    else:
        smtp = _Smtp(email.host, email.port, timeout=email.timeout_seconds)
    try:
        if email.security == "starttls":
            smtp.starttls(context=context)
        if email.user:
            smtp.login(email.user, email.password.get_secret_value() if email.password else "")
    except BaseException:
        smtp.close()
        raise
    return smtp


def _quit(smtp: smtplib.SMTP) -> None:
    """Quit the session. Errors are ignored: they do not affect the message."""
    try:
        smtp.quit()
    except (smtplib.SMTPException, OSError):
        smtp.close()


def _not_sent(error: Exception) -> NotSentError:
    # A server's text may quote addresses; its code is enough to find the error in its log.
    code = f" {error.smtp_code}" if isinstance(error, smtplib.SMTPResponseException) else ""
    return NotSentError(f"the SMTP server did not accept it ({reason(error)}{code})")
