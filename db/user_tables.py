"""The tables of people: who may look, what they did, and what they thought of a finding.

They are apart from :mod:`db.tables` because no image, job or delivery depends on them.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import DIGEST, UID, Base


class Role(StrEnum):
    """What a user may do; each role may do all that the one before it may."""

    VIEWER = "viewer"
    RADIOLOGIST = "radiologist"
    ADMIN = "admin"


class Verdict(StrEnum):
    """What a reader thinks of a finding."""

    ACCEPT = "accept"
    MODIFY = "modify"
    REJECT = "reject"


class UserRow(Base):
    """A person who may log in. An empty ``password_hash`` means that only single sign-on lets them in."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    display_name: Mapped[str]
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str]
    disabled: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime]
    last_login_at: Mapped[datetime | None]


class SessionRow(Base):
    """A log-in. Only the digest of its token is kept: whoever reads this table cannot use what it says."""

    __tablename__ = "sessions"

    token_digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    csrf: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class TokenRow(Base):
    """A token for the JSON API, again only as its digest."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    token_digest: Mapped[str] = mapped_column(DIGEST, unique=True)
    role: Mapped[str] = mapped_column(String(16))
    created_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AttemptRow(Base):
    """A password that is being tried, or that was wrong; rows go when the window of the limit is over."""

    __tablename__ = "login_attempts"

    id: Mapped[int] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(String(120), index=True)
    address: Mapped[str] = mapped_column(String(64), index=True)
    at: Mapped[datetime]
    failed: Mapped[bool] = mapped_column(server_default=false())


class AuditRow(Base):
    """Something that a person did or saw: never changed, never removed by Pleura."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_action_at", "action", "at"),
        Index("ix_audit_study_id", "study_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(48))
    subject: Mapped[str] = mapped_column(String(120))
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"))
    address: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str]


class FeedbackRow(Base):
    """A reader's verdict on a finding. The latest one of a finding counts; earlier ones stay."""

    __tablename__ = "feedback"
    __table_args__ = (Index("ix_feedback_model_at", "model", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    finding_id: Mapped[int] = mapped_column(ForeignKey("findings.id"), index=True)
    label: Mapped[str]
    model: Mapped[str]
    model_version: Mapped[str]
    probability: Mapped[float | None]
    present: Mapped[bool]
    verdict: Mapped[str] = mapped_column(String(16))
    comment: Mapped[str]
    actor: Mapped[str] = mapped_column(String(80))
    source: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime]


class AssessmentRow(Base):
    """One statement of a received AI result assessment (IHE RAD): a verdict, on what, by whom.

    ``feedback_id`` is the verdict that it became; without one ``problem`` says why it fits no finding of ours.
    """

    __tablename__ = "assessments"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "ordinal"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    ordinal: Mapped[int]
    referenced_uid: Mapped[str] = mapped_column(UID)
    tracking_uid: Mapped[str] = mapped_column(UID)
    verdict: Mapped[str] = mapped_column(String(16))
    comment: Mapped[str]
    observer: Mapped[str]
    feedback_id: Mapped[int | None] = mapped_column(ForeignKey("feedback.id"))
    problem: Mapped[str]
    at: Mapped[datetime]
