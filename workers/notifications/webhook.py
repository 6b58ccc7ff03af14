"""Notification by HTTPS: POST of a JSON document with a signature as in Standard Webhooks.

``webhook-id`` is the key of the notification, so that a receiver recognises a repeat. ``webhook-signature`` is the
HMAC-SHA256 of id, time and body, so that a notification cannot be forged or changed, and a replayed one is recognised.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import ssl
from datetime import datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import version
from urllib.parse import SplitResult, urlsplit

from config.notifications import Webhook
from config.settings import Settings
from db.notifications import Notification
from models.remote.time_limit import within
from workers.notifications.channel import NotSentError, reason
from workers.notifications.formatting import values

_PREFIX = "whsec_"


def signature(secret: str, key: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature`` for one attempt at the notification ``key``."""
    signed = f"{key}.{timestamp}.".encode() + body
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode("ascii")


def _key(secret: str) -> bytes:
    if secret.startswith(_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            pass  # a secret that is not base64 is used unchanged
    return secret.encode()


class WebhookChannel:
    """See :class:`workers.notifications.channel.Channel`."""

    def send(self, notification: Notification, settings: Settings, now: datetime) -> None:
        """POST the notification; only a status 2xx is a success, and redirects are not followed."""
        webhook = settings.notifications.webhook
        content = values(notification, settings, patient_name=webhook.patient_name)
        body = json.dumps(content, ensure_ascii=False, sort_keys=True).encode()
        timestamp = int(now.timestamp())
        secret = webhook.secret.get_secret_value() if webhook.secret else ""
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": f"Pleura/{version('pleura')}",
            "Idempotency-Key": notification.key,
            "webhook-id": notification.key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, notification.key, timestamp, body),
        }
        status = _post(webhook, body, headers)
        if not 200 <= status < 300:
            raise NotSentError(f"the webhook answered with status {status}")

    def verify(self, settings: Settings) -> str:
        """Connect, with TLS for https, and disconnect."""
        webhook = settings.notifications.webhook
        url = urlsplit(webhook.url)
        connection = _connection(url, webhook)
        try:
            connection.connect()
        except (OSError, HTTPException) as error:
            raise NotSentError(f"no connection to {url.hostname}: {error}") from error
        finally:
            connection.close()
        return f"{url.hostname} accepts connections"


def _post(webhook: Webhook, body: bytes, headers: dict[str, str]) -> int:
    url = urlsplit(webhook.url)
    connection = _connection(url, webhook)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        connection.connect()
        connection.request("POST", target, body, headers)
        with within(webhook.timeout_seconds, connection.sock):
            return connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise NotSentError(f"the webhook does not answer ({reason(error)})") from error
    finally:
        connection.close()


def _connection(url: SplitResult, webhook: Webhook) -> HTTPConnection:
    host = url.hostname or ""
    if url.scheme != "https":
        return HTTPConnection(host, url.port, timeout=webhook.timeout_seconds)
    try:
        context = ssl.create_default_context(cafile=webhook.ca_file)
    except OSError as error:
        raise NotSentError(f"notifications.webhook.ca_file cannot be read: {error}") from error
    return HTTPSConnection(host, url.port, timeout=webhook.timeout_seconds, context=context)
