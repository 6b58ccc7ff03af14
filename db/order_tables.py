"""Tables of HL7 v2: orders, messages and patient updates of the hospital, and the notifications of this node.

``orders`` may be ahead of their studies: what they say is applied when the first image arrives.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.states import Priority
from db.tables import DIGEST, NAMES, UID, Base, RowNumber, words


class NotificationState(StrEnum):
    """Where a notification stands. ``withdrawn``: it need not be sent any more."""

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
    """An order or a report as the hospital's systems tell of it, with its study once that is here."""

    __tablename__ = "orders"
    __table_args__ = (
        Index("ix_orders_placer_order_number", "placer_order_number"),
        Index("ix_orders_filler_order_number", "filler_order_number"),
        Index("ix_orders_accession_number", "accession_number"),
        Index("ix_orders_study_instance_uid", "study_instance_uid"),
        Index("ix_orders_updated_at", "updated_at"),
    )

    id: Mapped[RowNumber]
    study_id: Mapped[int | None] = mapped_column(
        ForeignKey("studies.id"), index=True, comment="The study. NULL: not here yet."
    )
    placer_order_number: Mapped[str] = mapped_column(comment="Placer Order Number (ORC-2).")
    filler_order_number: Mapped[str] = mapped_column(comment="Filler Order Number (ORC-3).")
    accession_number: Mapped[str] = mapped_column(comment="Accession number.")
    study_instance_uid: Mapped[str] = mapped_column(
        UID, comment="Study Instance UID; empty where the message has none."
    )
    patient_id: Mapped[str] = mapped_column(comment="Patient ID (PID-3).")
    issuer_of_patient_id: Mapped[str] = mapped_column(comment="Its assigning authority.")
    other_identifiers: Mapped[list[list[str]] | None] = mapped_column(
        JSON(none_as_null=True), comment="Pairs of patient ID and issuer that name the same patient (JSON)."
    )
    priority: Mapped[Priority | None] = mapped_column(comment="Priority that the order asks for. NULL: none.")
    status: Mapped[str] = mapped_column(String(16), comment="ordered, cancelled or reported.")
    reported_at: Mapped[datetime | None] = mapped_column(comment="When a final report was announced. NULL: not yet.")
    created_at: Mapped[datetime] = mapped_column(comment="First message.")
    updated_at: Mapped[datetime] = mapped_column(comment="Latest message.")


class MessageRow(Base):
    """An HL7 message that was answered AA: the same one again changes nothing."""

    __tablename__ = "hl7_messages"
    __table_args__ = (UniqueConstraint("sender", "control_id", "digest"),)

    id: Mapped[RowNumber]
    sender: Mapped[str] = mapped_column(comment="Sending application and facility (MSH-3, MSH-4).")
    control_id: Mapped[str] = mapped_column(comment="Message Control ID (MSH-10).")
    digest: Mapped[str] = mapped_column(DIGEST, comment="SHA-256 of the message.")
    kind: Mapped[str] = mapped_column(String(16), comment="Message type (MSH-9).")
    at: Mapped[datetime] = mapped_column(index=True, comment="When it was answered.")


class MergeRow(Base):
    """A patient identifier that the hospital has given up for another one; images may still come under it."""

    __tablename__ = "patient_merges"

    id: Mapped[RowNumber]
    prior_patient_id: Mapped[str] = mapped_column(index=True, comment="The identifier that was given up.")
    prior_issuer: Mapped[str] = mapped_column(comment="Its issuer.")
    patient_id: Mapped[str] = mapped_column(comment="The identifier that holds.")
    issuer_of_patient_id: Mapped[str] = mapped_column(comment="Its issuer.")
    at: Mapped[datetime] = mapped_column(comment="When the message came.")


class NotificationRow(Base):
    """One notification's way through one channel."""

    __tablename__ = "notifications"
    __table_args__ = (
        UniqueConstraint("study_id", "channel", "reason"),
        Index("ix_notifications_state_channel", "state", "channel"),
    )

    id: Mapped[RowNumber]
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), comment="Its study.")
    channel: Mapped[str] = mapped_column(String(16), comment="hl7, email or webhook.")
    reason: Mapped[str] = mapped_column(String(64), comment="The finding: each is told once a study and channel.")
    state: Mapped[NotificationState] = mapped_column(words(NotificationState), comment="Where it stands.")
    key: Mapped[str] = mapped_column(
        String(64),
        unique=True,
        comment="Names it to its receiver, who may hear of it twice where a process died at the wrong moment.",
    )
    probability: Mapped[float | None] = mapped_column(comment="Probability of the finding. NULL: none.")
    attempts: Mapped[int] = mapped_column(comment="How often it was sent.")
    worker: Mapped[str] = mapped_column(server_default="", comment="The process that holds it, or held it last.")
    lease_until: Mapped[datetime | None] = mapped_column(comment="Until when that process holds it. NULL: nobody does.")
    due_at: Mapped[datetime | None] = mapped_column(comment="When it may be tried again. NULL: at once.")
    error: Mapped[str] = mapped_column(server_default="", comment="The last error, for a person.")
    created_at: Mapped[datetime] = mapped_column(comment="When it was made.")
    sent_at: Mapped[datetime | None] = mapped_column(comment="When it was taken. NULL: not yet.")
    taken_by: Mapped[tuple[str, ...]] = mapped_column(
        NAMES, nullable=True, comment="Receivers of a channel with several that have taken it already (JSON)."
    )
