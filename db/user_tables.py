"""The tables of users, sessions, tokens, feedback and assessments.

They are apart from :mod:`db.tables` because no image, job or delivery depends on them.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, String, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import DIGEST, UID, Base, RowNumber

SECRET = {"info": {"secret": True}}
"""Marks a table that nobody but the node may read: :mod:`db.reader_role` grants it to no role."""


class Role(StrEnum):
    """What a user or a program may do; each role may do all that the one before it may. ``sender`` stands apart: it
    may store by STOW-RS and nothing else, and is for API tokens only.
    """

    SENDER = "sender"
    VIEWER = "viewer"
    RADIOLOGIST = "radiologist"
    ADMIN = "admin"


OF_USERS = (Role.VIEWER, Role.RADIOLOGIST, Role.ADMIN)
"""Roles that a person may have."""


class Verdict(StrEnum):
    """What a reader thinks of a finding."""

    ACCEPT = "accept"
    MODIFY = "modify"
    REJECT = "reject"


class UserRow(Base):
    """A person who may log in.

    Issuer and subject are whom an OpenID provider knows them as: together they never change and are never given to
    somebody else (OpenID Connect Core 5.7), as a name may be.
    """

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("issuer", "subject"), SECRET)

    id: Mapped[RowNumber]
    name: Mapped[str] = mapped_column(String(64), unique=True, comment="Log-in name.")
    display_name: Mapped[str] = mapped_column(comment="Name shown on the page.")
    role: Mapped[str] = mapped_column(String(16), comment="viewer, radiologist or admin.")
    password_hash: Mapped[str] = mapped_column(comment="Hash of the password; empty: single sign-on only.")
    disabled: Mapped[bool] = mapped_column(server_default=false(), comment="True: may not log in.")
    issuer: Mapped[str | None] = mapped_column(String(255), comment="Their OpenID provider. NULL: they have none.")
    subject: Mapped[str | None] = mapped_column(String(255), comment="What it calls them. NULL: they have none.")
    created_at: Mapped[datetime] = mapped_column(comment="When the user was added.")
    last_login_at: Mapped[datetime | None] = mapped_column(comment="Last log-in. NULL: never.")
    language: Mapped[str] = mapped_column(
        String(8), server_default="", comment="Language of the page; empty: the browser's."
    )
    theme: Mapped[str] = mapped_column(String(8), server_default="", comment="light or dark; empty: the browser's.")


class SavedFilterRow(Base):
    """Filters of the worklist to which a user has given a name."""

    __tablename__ = "saved_filters"
    __table_args__ = (UniqueConstraint("user_id", "name"), SECRET)

    id: Mapped[RowNumber]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), comment="Whose filters: row in users.")
    name: Mapped[str] = mapped_column(String(60), comment="Name that the user has given.")
    query: Mapped[str] = mapped_column(comment="Query of the address of the worklist.")
    created_at: Mapped[datetime] = mapped_column(comment="When it was saved.")


class SessionRow(Base):
    """A log-in. Only the digest of its token is kept: whoever reads this table cannot use what it says."""

    __tablename__ = "sessions"
    __table_args__ = SECRET

    token_digest: Mapped[str] = mapped_column(DIGEST, primary_key=True, comment="SHA-256 of the token in the cookie.")
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True, comment="The user.")
    csrf: Mapped[str] = mapped_column(String(64), comment="Token against cross-site requests.")
    method: Mapped[str] = mapped_column(String(32), comment="password, single sign-on (a proxy's) or OpenID Connect.")
    address: Mapped[str] = mapped_column(String(64), comment="IP address of the log-in.")
    created_at: Mapped[datetime] = mapped_column(comment="When it began.")
    expires_at: Mapped[datetime] = mapped_column(comment="When it ends.")


class TokenRow(Base):
    """A token for the JSON API or the DICOMweb server, again only as its digest."""

    __tablename__ = "api_tokens"
    __table_args__ = SECRET

    id: Mapped[RowNumber]
    name: Mapped[str] = mapped_column(String(64), comment="Name, as in the audit trail.")
    token_digest: Mapped[str] = mapped_column(DIGEST, unique=True, comment="SHA-256 of the token.")
    role: Mapped[str] = mapped_column(String(16), comment="sender, viewer, radiologist or admin.")
    created_by: Mapped[str] = mapped_column(String(64), comment="Who made it.")
    created_at: Mapped[datetime] = mapped_column(comment="When.")
    last_used_at: Mapped[datetime | None] = mapped_column(comment="Last use. NULL: never.")
    revoked_at: Mapped[datetime | None] = mapped_column(comment="When it was revoked. NULL: it is valid.")


class AttemptRow(Base):
    """A password that is being tried, or that was wrong; rows go when the window of the limit is over."""

    __tablename__ = "login_attempts"
    __table_args__ = SECRET

    id: Mapped[RowNumber]
    subject: Mapped[str] = mapped_column(String(120), index=True, comment="Log-in name that was tried.")
    address: Mapped[str] = mapped_column(String(64), index=True, comment="IP address.")
    at: Mapped[datetime] = mapped_column(comment="When.")
    failed: Mapped[bool] = mapped_column(server_default=false(), comment="True: the password was wrong.")


class FeedbackRow(Base):
    """A reader's verdict on a finding. The latest one of a finding counts; earlier ones stay."""

    __tablename__ = "feedback"

    id: Mapped[RowNumber]
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True, comment="Its study.")
    finding_id: Mapped[int] = mapped_column(ForeignKey("findings.id"), index=True, comment="The finding.")
    label: Mapped[str] = mapped_column(comment="Label of the finding.")
    model: Mapped[str] = mapped_column(comment="Name of the model.")
    model_version: Mapped[str] = mapped_column(comment="Version of the model.")
    probability: Mapped[float | None] = mapped_column(comment="Probability that the model gave. NULL: none.")
    present: Mapped[bool] = mapped_column(comment="True: the model said that it is there.")
    verdict: Mapped[str] = mapped_column(String(16), comment="accept, modify or reject.")
    comment: Mapped[str] = mapped_column(comment="The reader's words.")
    actor: Mapped[str] = mapped_column(String(80), comment="Who.")
    source: Mapped[str] = mapped_column(String(16), comment="web, api, cli or dicom.")
    at: Mapped[datetime] = mapped_column(comment="When.")


class AssessmentRow(Base):
    """One statement of a received AI result assessment (IHE RAD): a verdict, on what, by whom."""

    __tablename__ = "assessments"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "ordinal"),)

    id: Mapped[RowNumber]
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True, comment="Its study.")
    sop_instance_uid: Mapped[str] = mapped_column(UID, comment="SOP Instance UID of the received object.")
    ordinal: Mapped[int] = mapped_column(comment="Place in the object.")
    referenced_uid: Mapped[str] = mapped_column(UID, comment="SOP Instance UID of the result that is assessed.")
    tracking_uid: Mapped[str] = mapped_column(UID, comment="Tracking UID of the finding; empty: the whole result.")
    verdict: Mapped[str] = mapped_column(String(16), comment="What it says: accept, modify, reject, added.")
    comment: Mapped[str] = mapped_column(comment="The reader's words.")
    observer: Mapped[str] = mapped_column(comment="Person Observer Name.")
    feedback_id: Mapped[int | None] = mapped_column(
        ForeignKey("feedback.id"), comment="The verdict that it became. NULL: none, problem says why."
    )
    problem: Mapped[str] = mapped_column(comment="Why it fits no finding; empty where it does.")
    at: Mapped[datetime] = mapped_column(comment="When it came.")
