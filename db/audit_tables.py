"""The tables of the audit trail. Triggers that the migrations make refuse to change or remove what is in two of them.

They refer to no other table, so that nothing which is removed elsewhere takes an entry along.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import DIGEST, UID, Base


class AuditRow(Base):
    """What a person, a program, a peer or the node itself did or saw: append-only, in a hash chain."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_action_at", "action", "at"),
        Index("ix_audit_at", "at"),
        Index("ix_audit_study_id", "study_id"),
    )

    id: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False, comment="Place in the hash chain, without gaps."
    )
    at: Mapped[datetime] = mapped_column(comment="When.")
    actor: Mapped[str] = mapped_column(
        String(80), comment="Who: a user, api:TOKEN, cli:USER, the AE title of a peer or a part of the node."
    )
    action: Mapped[str] = mapped_column(String(48), comment="What: log in, view study, hold, receive ...")
    event: Mapped[str] = mapped_column(String(40), comment="What it is to DICOM: Audit Event ID (PS3.16 CID 400).")
    failed: Mapped[bool] = mapped_column(server_default=false(), comment="True: it was tried and did not succeed.")
    subject: Mapped[str] = mapped_column(String(120), comment="Of what: a name or number.")
    study_id: Mapped[int | None] = mapped_column(comment="Row of the study in studies. NULL: none, or not known.")
    study_instance_uid: Mapped[str] = mapped_column(UID, comment="Study Instance UID (0020,000D); empty: no study.")
    patient_id: Mapped[str] = mapped_column(comment="Patient ID (0010,0020) as it was then; empty: no study.")
    address: Mapped[str] = mapped_column(
        String(64), comment="IP address of the request, or host of the peer; empty on the command line."
    )
    detail: Mapped[str] = mapped_column(comment="Details for a person.")
    data: Mapped[str] = mapped_column(Text, comment="Details for programs, as JSON; empty: none.")
    digest: Mapped[str] = mapped_column(DIGEST, comment="SHA-256 of this entry and of the digest before it.")


class AuditCheckpointRow(Base):
    """Up to which entry the audit trail was removed because of its age; append-only."""

    __tablename__ = "audit_checkpoints"

    position: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False, comment="The last entry that was removed."
    )
    digest: Mapped[str] = mapped_column(DIGEST, comment="Its digest, which the next entry follows.")
    at: Mapped[datetime] = mapped_column(comment="When it was removed.")


class AuditFeedRow(Base):
    """How far an audit record repository has been sent the audit trail."""

    __tablename__ = "audit_feeds"

    repository: Mapped[str] = mapped_column(String(64), primary_key=True, comment="Its name in the configuration.")
    position: Mapped[int] = mapped_column(comment="The last entry that it has been sent.")
    sent_at: Mapped[datetime | None] = mapped_column(comment="When it was last sent something.")
    worker: Mapped[str] = mapped_column(server_default="", comment="Who sends, or has sent last.")
    lease_until: Mapped[datetime | None] = mapped_column(comment="Until when nobody else may send. NULL: anybody may.")
    due_at: Mapped[datetime | None] = mapped_column(comment="Not before this time. NULL: at once.")
    attempts: Mapped[int] = mapped_column(comment="How often it has failed since it last succeeded.")
    error: Mapped[str] = mapped_column(server_default="", comment="Why it has failed; empty: it has not.")


class AuditedConfigurationRow(Base):
    """The configuration with which a machine was last started, so that the next start can tell what has changed."""

    __tablename__ = "audited_configurations"

    host: Mapped[str] = mapped_column(primary_key=True, comment="Host name.")
    at: Mapped[datetime] = mapped_column(comment="When a part of the node first started with it.")
    digest: Mapped[str] = mapped_column(DIGEST, comment="SHA-256 of the values.")
    settings: Mapped[dict[str, Any]] = mapped_column(JSON, comment="Values by their key as TOML, secrets masked.")
