"""The tables of what a hospital says of orders, reports and patients by HL7 v2, and of what this node tells back.

``orders`` may be ahead of their studies: what they say is applied when the first image arrives.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Dialect, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from db.records import Priority
from db.tables import DIGEST, UID, Base, words


class Receivers(TypeDecorator[tuple[str, ...]]):
    """Who has taken a message, as JSON; NULL where nobody has."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> Any:
        """Give plain values."""
        del dialect
        return list(value) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[str, ...]:
        """Give a tuple, empty where the column is NULL."""
        del dialect
        return tuple(value or ())


class NotificationState(StrEnum):
    """Where a notification stands. ``withdrawn``: nobody need hear of it any more."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


NOTIFICATION_TRANSITIONS: dict[NotificationState, frozenset[NotificationState]] = {
    NotificationState.PENDING: frozenset({NotificationState.SENDING, NotificationState.WITHDRAWN}),
    NotificationState.SENDING: frozenset(
        {
            NotificationState.SENT,
            NotificationState.PENDING,
            NotificationState.FAILED,
            NotificationState.WITHDRAWN,
        }
    ),
    NotificationState.SENT: frozenset(),
    NotificationState.FAILED: frozenset({NotificationState.PENDING, NotificationState.WITHDRAWN}),
    # Back: it was withdrawn with its image and another image of the study shows the same, or the study was called
    # reported by mistake.
    NotificationState.WITHDRAWN: frozenset({NotificationState.PENDING, NotificationState.FAILED}),
}


class OrderRow(Base):
    """An order or a report as the hospital's systems tell of it, with the study that it belongs to once that is here.

    ``other_identifiers``: pairs of patient ID and issuer that name the same patient, beside the first.
    ``priority`` is what the order asks for, empty where it asks for nothing. ``status`` is ordered, cancelled or
    reported; ``reported_at`` is there where a final report was announced.
    """

    __tablename__ = "orders"
    __table_args__ = (
        Index("ix_orders_placer_order_number", "placer_order_number"),
        Index("ix_orders_filler_order_number", "filler_order_number"),
        Index("ix_orders_accession_number", "accession_number"),
        Index("ix_orders_study_instance_uid", "study_instance_uid"),
        Index("ix_orders_updated_at", "updated_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"), index=True)
    placer_order_number: Mapped[str]
    filler_order_number: Mapped[str]
    accession_number: Mapped[str]
    study_instance_uid: Mapped[str] = mapped_column(UID)
    patient_id: Mapped[str]
    issuer_of_patient_id: Mapped[str]
    other_identifiers: Mapped[list[list[str]] | None] = mapped_column(JSON(none_as_null=True))
    priority: Mapped[Priority | None]
    status: Mapped[str] = mapped_column(String(16))
    reported_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class MessageRow(Base):
    """An HL7 message that was answered AA: the same one again changes nothing. ``sender`` is MSH-3 and MSH-4."""

    __tablename__ = "hl7_messages"
    __table_args__ = (UniqueConstraint("sender", "control_id", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sender: Mapped[str]
    control_id: Mapped[str]
    digest: Mapped[str] = mapped_column(DIGEST)
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime] = mapped_column(index=True)


class MergeRow(Base):
    """A patient identifier that the hospital has given up for another one; images may still come under it."""

    __tablename__ = "patient_merges"

    id: Mapped[int] = mapped_column(primary_key=True)
    prior_patient_id: Mapped[str] = mapped_column(index=True)
    prior_issuer: Mapped[str]
    patient_id: Mapped[str]
    issuer_of_patient_id: Mapped[str]
    at: Mapped[datetime]


class NotificationRow(Base):
    """One notification's way through one channel. ``reason`` is the finding; each is told once a study and channel.

    ``key`` names the notification to its receiver, who may hear of it twice where a process died at the wrong moment.
    ``taken_by``: receivers of a channel with several that have taken it already.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        UniqueConstraint("study_id", "channel", "reason"),
        Index("ix_notifications_state_channel", "state", "channel"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    channel: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(64))
    state: Mapped[NotificationState] = mapped_column(words(NotificationState))
    key: Mapped[str] = mapped_column(String(64), unique=True)
    probability: Mapped[float | None]
    attempts: Mapped[int]
    worker: Mapped[str] = mapped_column(server_default="")
    lease_until: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    error: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    taken_by: Mapped[tuple[str, ...]] = mapped_column(Receivers(), nullable=True)
