"""Celery's messages, made once for a task, queue and priority: those that follow differ from it by their ids.

Celery and kombu take 150 µs to make a message, and a listener makes one for each image. So the first one is made by
them and published in this process (kombu's transport ``memory``), and the others are its text with other ids.
"""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.entity import PERSISTENT_DELIVERY_MODE
from kombu.utils.uuid import uuid

_ROW_ID = 9_007_199_254_740_993
"""Stands where the id of a row is to come; no table has so many."""
_in_memory = threading.Lock()  # what is in kombu's memory belongs to all threads


class MessageTemplate:
    """The messages of a task in a queue, as they lie in Redis (Celery's protocol 2, kombu's envelope)."""

    def __init__(self, app: Celery, task: str, queue: str, priority: int) -> None:
        self._task_id = uuid()
        message = _published(app, task, self._task_id, queue, priority)
        self._tag, self._encoded = message["properties"]["delivery_tag"], message["body"]
        self._body = base64.b64decode(self._encoded).decode()
        self._text = json.dumps(message)
        places = {self._task_id: 3, self._tag: 1, self._encoded: 1, str(_ROW_ID): 1}
        if {place: self._text.count(place) for place in places} != places or self._body.count(str(_ROW_ID)) != 1:
            raise ValueError("a message of Celery's does not hold its ids where they are expected")

    def message(self, row_id: int) -> str:
        """The text of a message for a row."""
        body = base64.b64encode(self._body.replace(str(_ROW_ID), str(row_id)).encode()).decode()
        with_body = self._text.replace(self._encoded, body).replace(str(_ROW_ID), str(row_id))
        return with_body.replace(self._task_id, uuid()).replace(self._tag, uuid())


def _published(app: Celery, task: str, task_id: str, queue: str, priority: int) -> dict[str, Any]:
    """A message for :data:`_ROW_ID` as kombu's virtual transports, of which Redis is one, hand it to the broker."""
    headers, properties, body, _ = app.amqp.create_task_message(
        task_id, task, (_ROW_ID,), argsrepr=f"({_ROW_ID},)", kwargsrepr="{}", ignore_result=True
    )
    with _in_memory, Connection("memory://") as connection:
        channel = connection.default_channel
        producer = app.amqp.Producer(channel, auto_declare=False)
        producer.publish(
            body, queue, PERSISTENT_DELIVERY_MODE, priority=priority, serializer="json", headers=headers, **properties
        )
        published: dict[str, Any] = channel.basic_get(queue, no_ack=True).serializable()
    return published
