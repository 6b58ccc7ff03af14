"""The tables of a node, mapped for SQLAlchemy: one class a table, readable for an admin with psql or sqlite3.

Patient identity lives on ``studies``. States are stored as the lower-case words of :mod:`db.records`. The view
``worklist`` (one row per study) belongs to the schema too and is made by the first migration.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from db.records import Analysis, DeliveryState, InstanceState, JobState, Priority, SimilarRecord, StudyState


class UTCDateTime(TypeDecorator[datetime]):
    """An aware time, stored as UTC and read back aware on every database.

    PostgreSQL has a type for it. SQLite keeps text such as ``2026-01-31 12:00:00.000000``, which sorts as time does.
    A naive time is refused: it would mean another moment on another machine.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert ``value`` to UTC; raise ValueError where it has no time zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times given to the database must be aware (they have no time zone)")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give an aware time in UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class SimilarCases(TypeDecorator[tuple[SimilarRecord, ...]]):
    """What a retrieval model found beside a finding, as JSON; NULL where there is nothing."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: tuple[SimilarRecord, ...] | None, dialect: Dialect) -> Any:
        """Give plain values."""
        del dialect
        return [[one.reference, one.label, one.distance] for one in value] if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[SimilarRecord, ...]:
        """Give records, none where the column is NULL."""
        del dialect
        return tuple(SimilarRecord(str(one[0]), str(one[1]), float(one[2])) for one in value or ())


class Named(TypeDecorator[dict[str, Any]]):
    """Values by name, as JSON; NULL reads as none at all."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> Any:
        """Keep nothing as NULL."""
        del dialect
        return value or None

    def process_result_value(self, value: Any, dialect: Dialect) -> dict[str, Any]:
        """Give a dictionary."""
        del dialect
        return value or {}


def words(states: type[StrEnum]) -> Enum:
    """Column type for a closed list of words, kept as text so that a new word needs no change of type."""
    return Enum(states, native_enum=False, length=16, values_callable=lambda members: [m.value for m in members])


class Base(DeclarativeBase):
    """Parent of all tables; names of constraints are fixed, so that migrations can name them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (read by SQLAlchemy while the class is made)
        str: Text(),
        float: Double(),
        datetime: UTCDateTime(),
        StudyState: words(StudyState),
        InstanceState: words(InstanceState),
        JobState: words(JobState),
        DeliveryState: words(DeliveryState),
        Priority: words(Priority),
        Analysis: words(Analysis),
        dict[str, float]: JSON(),
    }


# The worklist shows what nobody has reported: a handful of all studies, and the oldest of all are not among them.
_UNREPORTED = text("reported_at IS NULL")
# Figures per week look at what has ended; what waits is in no week.
_FINISHED = text("finished_at IS NOT NULL")
_ASKED = text("verify_due_at IS NOT NULL")
_SENT = text("sent_at IS NOT NULL")
_STALE = text("stale_code <> '' AND note_id IS NULL")
# A pass of retention looks at what still has files, not at all old studies.
_KEPT = text("files_removed_at IS NULL")

UID = String(64)
DIGEST = String(64)


class Study(Base):
    """A study (PS3.3 C.7.2.1) with its patient, its triage and what is counted of it for the worklist.

    ``activity`` counts what has happened to its images; whoever completes it must have seen the latest. ``revision``
    counts the summaries that were written. ``correction``: the hospital has corrected the patient since the images were
    made, so what is made of them stays here until a person lets it go. ``files_removed_at``: retention has removed its
    files, and nothing has come since.
    """

    __tablename__ = "studies"
    __table_args__ = (
        Index("ix_studies_due_at_id", "due_at", "id"),
        Index("ix_studies_state_due_at_id", "state", "due_at", "id"),
        Index("ix_studies_state_last_activity_at", "state", "last_activity_at"),
        Index("ix_studies_study_date", "study_date"),
        Index(
            "ix_studies_unreported_due_at_id", "due_at", "id", sqlite_where=_UNREPORTED, postgresql_where=_UNREPORTED
        ),
        Index("ix_studies_completed_at", "completed_at", sqlite_where=_KEPT, postgresql_where=_KEPT),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    patient_id: Mapped[str] = mapped_column(index=True)
    issuer_of_patient_id: Mapped[str]
    patient_name: Mapped[str]
    patient_birth_date: Mapped[str]
    patient_sex: Mapped[str]
    accession_number: Mapped[str] = mapped_column(index=True)
    study_date: Mapped[str]
    study_time: Mapped[str]
    study_description: Mapped[str]
    state: Mapped[StudyState]
    on_hold: Mapped[bool] = mapped_column(server_default=false())
    hold_reason: Mapped[str] = mapped_column(server_default="")
    stat: Mapped[bool] = mapped_column(server_default=false())
    hospital_priority: Mapped[Priority | None]
    priority: Mapped[Priority]
    analysis: Mapped[Analysis]
    reason: Mapped[str]
    due_at: Mapped[datetime]
    first_received_at: Mapped[datetime]
    last_activity_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    activity: Mapped[int] = mapped_column(server_default=text("0"))
    revision: Mapped[int] = mapped_column(server_default=text("0"))
    correction: Mapped[str] = mapped_column(server_default="")
    images: Mapped[int] = mapped_column(server_default=text("0"))
    not_eligible: Mapped[int] = mapped_column(server_default=text("0"))
    reported_at: Mapped[datetime | None]
    reported_by: Mapped[str] = mapped_column(server_default="")
    files_removed_at: Mapped[datetime | None]


class StudyAccession(Base):
    """One of the accession numbers of a study that has several (``B100\\B101``: two orders, one exposure).

    ``studies.accession_number`` keeps the text as it came; a study with one number has no row here.
    """

    __tablename__ = "study_accessions"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    accession_number: Mapped[str] = mapped_column(primary_key=True, index=True)


class StudyWord(Base):
    """A word by which people find a study, without case and accents; :mod:`db.search_words`.

    PostgreSQL compares words as bytes, as SQLite does, so that the beginning of a word is a range of the index.
    """

    __tablename__ = "study_words"
    __table_args__ = (Index("ix_study_words_study_id_word", "study_id", "word"),)

    word: Mapped[str] = mapped_column(
        String(64).with_variant(String(64, collation="C"), "postgresql"), primary_key=True
    )
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)


class Series(Base):
    """A series (PS3.3 C.7.3.1), with the station that made it (C.7.5.1)."""

    __tablename__ = "series"

    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    series_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    modality: Mapped[str]
    body_part: Mapped[str]
    series_description: Mapped[str]
    station_name: Mapped[str] = mapped_column(server_default="")


class Instance(Base):
    """A received data set: SOP Instance UID and digest identify it.

    ``flag`` is empty, or says what is special about it: ``compare`` and ``repeat`` (the same UID came in other bytes,
    see :mod:`db.repeated_instances`), ``conflict`` (the same UID came with other content), ``patient`` (another
    Patient ID than the rest of its study), ``own`` (one of our results came back), ``replaced`` (a newer one has its
    UID). See
    :mod:`db.instance_flags`. Repeats, and what is replaced or still to be compared, are not counted in the study.
    """

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    digest: Mapped[str] = mapped_column(DIGEST)
    path: Mapped[str]
    byte_count: Mapped[int] = mapped_column(BigInteger)
    patient_id: Mapped[str]
    view: Mapped[str]
    calling_ae_title: Mapped[str]
    state: Mapped[InstanceState]
    not_eligible_code: Mapped[str] = mapped_column(server_default="")
    not_eligible_reason: Mapped[str] = mapped_column(server_default="")
    flag: Mapped[str] = mapped_column(String(16), server_default="")
    received_at: Mapped[datetime]


class Job(Base):
    """One pipeline on one instance. ``revision`` grows when a finished job is run again on request.

    ``worker`` and ``lease_until`` tell who holds it; ``due_at`` when it may be tried again; ``dispatched_at`` when the
    task queue was last enqueued it, empty where it should be enqueued at once. ``created_at`` belongs to the revision,
    ``queued_at`` to the last time that it was put into the queue. ``modes`` says what became of each model's findings
    (active, shadow, off) when it ran, ``measures`` what can be said of the image cheaply, and
    ``ran_on`` is the device of its networks (cpu, gpu).
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("instance_id", "pipeline", "revision"),
        Index("ix_jobs_study_id_state", "study_id", "state"),
        Index("ix_jobs_state_dispatched_at", "state", "dispatched_at"),
        Index("ix_jobs_finished_at", "finished_at", sqlite_where=_FINISHED, postgresql_where=_FINISHED),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"))
    pipeline: Mapped[str] = mapped_column(DIGEST)
    revision: Mapped[int]
    state: Mapped[JobState]
    stat: Mapped[bool]
    attempts: Mapped[int]
    worker: Mapped[str] = mapped_column(server_default="")
    lease_until: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    error: Mapped[str] = mapped_column(server_default="")
    not_analysed_code: Mapped[str] = mapped_column(server_default="")
    not_analysed_reason: Mapped[str] = mapped_column(server_default="")
    timings: Mapped[dict[str, float]]
    modes: Mapped[dict[str, str]] = mapped_column(Named(), nullable=True)
    measures: Mapped[dict[str, Any]] = mapped_column(Named(), nullable=True)
    ran_on: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Finding(Base):
    """What a model reports of an image. ``superseded``: a later revision of the job has replaced it."""

    __tablename__ = "findings"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    revision: Mapped[int]
    label: Mapped[str]
    model: Mapped[str]
    model_version: Mapped[str]
    probability: Mapped[float | None]
    threshold: Mapped[float]
    present: Mapped[bool]
    shadow: Mapped[bool]
    reason: Mapped[str]
    area_mm2: Mapped[float | None]
    area_fraction: Mapped[float | None]
    tracking_uid: Mapped[str] = mapped_column(UID, server_default="")
    similar: Mapped[tuple[SimilarRecord, ...]] = mapped_column(SimilarCases(), nullable=True)
    side: Mapped[str] = mapped_column(String(8), server_default="")
    zones: Mapped[str] = mapped_column(String(32), server_default="")
    lung_share: Mapped[float | None]
    superseded: Mapped[bool] = mapped_column(server_default=false())


class Result(Base):
    """An encoded object. Without a job it is the summary of its study. ``ordinal`` is its place in storing order."""

    __tablename__ = "results"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    revision: Mapped[int]
    ordinal: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    sop_class_uid: Mapped[str] = mapped_column(UID)
    sop_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    digest: Mapped[str] = mapped_column(DIGEST)
    path: Mapped[str]
    byte_count: Mapped[int] = mapped_column(BigInteger)
    patient_id: Mapped[str]
    created_at: Mapped[datetime]


class Delivery(Base):
    """One result's way to one destination. ``on_hold_with_study``: it waits only because its study does.

    ``verify_due_at``: when the destination is next asked whether it holds the object, None where nobody asks;
    ``verify_attempts``: how often it was asked since it took it; ``verify_missing``: how often it said no;
    ``transaction_uid``: names the last question. ``lost`` counts the claims in a row whose process ended
    without a word. ``stale_code``: what the destination took is not right any more, title (DCM) of the rejection note
    that it needs; ``note_id``: the result that is this note.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("result_id", "destination"),
        Index("ix_deliveries_study_id_state", "study_id", "state"),
        Index("ix_deliveries_state_dispatched_at", "state", "dispatched_at"),
        Index("ix_deliveries_verify_due_at", "verify_due_at", sqlite_where=_ASKED, postgresql_where=_ASKED),
        Index("ix_deliveries_sent_at", "sent_at", sqlite_where=_SENT, postgresql_where=_SENT),
        Index("ix_deliveries_stale", "study_id", sqlite_where=_STALE, postgresql_where=_STALE),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    result_id: Mapped[int] = mapped_column(ForeignKey("results.id"))
    destination: Mapped[str] = mapped_column(ForeignKey("destinations.name"))
    state: Mapped[DeliveryState]
    attempts: Mapped[int]
    worker: Mapped[str] = mapped_column(server_default="")
    lease_until: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    error: Mapped[str] = mapped_column(server_default="")
    on_hold_with_study: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    verified_at: Mapped[datetime | None]
    verify_due_at: Mapped[datetime | None]
    verify_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    verify_missing: Mapped[int] = mapped_column(server_default=text("0"))
    transaction_uid: Mapped[str | None] = mapped_column(UID)
    lost: Mapped[int] = mapped_column(server_default=text("0"))
    stale_code: Mapped[str] = mapped_column(String(16), server_default="")
    note_id: Mapped[int | None]


class Destination(Base):
    """How it stands with a destination; where it is and what it takes is defined in the configuration.

    ``failures`` counts the calls in a row that it did not answer, ``open_until`` is when it may be called again: the
    circuit breaker that all processes share.
    """

    __tablename__ = "destinations"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    last_sent_at: Mapped[datetime | None]
    last_failed_at: Mapped[datetime | None]
    last_error: Mapped[str] = mapped_column(server_default="")
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    open_until: Mapped[datetime | None]


class DestinationLease(Base):
    """A worker that is in contact with a destination, or may be until ``lease_until``."""

    __tablename__ = "destination_leases"

    worker: Mapped[str] = mapped_column(primary_key=True)
    destination: Mapped[str] = mapped_column(ForeignKey("destinations.name"))
    lease_until: Mapped[datetime]


class Model(Base):
    """Which version of which model has analysed images of this node, and since when."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    first_used_at: Mapped[datetime]


class ModelSwitch(Base):
    """A person has switched a model: the latest row of a model is its state, the earlier ones are its history."""

    __tablename__ = "model_switches"

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(64), index=True)
    from_state: Mapped[str] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str]
    actor: Mapped[str] = mapped_column(String(80))
    at: Mapped[datetime]


class Event(Base):
    """One transition: which record went from where to where, why, by whom, and when."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    entity: Mapped[str] = mapped_column(String(16))
    entity_id: Mapped[int]
    from_state: Mapped[str]
    to_state: Mapped[str]
    cause: Mapped[str]
    actor: Mapped[str]
    at: Mapped[datetime]


class Rejection(Base):
    """An instance that a rejection note has taken back; the note may have come before the instance."""

    __tablename__ = "rejections"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "note_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    note_uid: Mapped[str] = mapped_column(String(64))
    code: Mapped[str]
    sentence: Mapped[str]
    at: Mapped[datetime]


class RejectedAssociation(Base):
    """A caller whose associations were rejected for one reason, and how often; :mod:`db.rejected_associations`."""

    __tablename__ = "rejected_associations"

    calling_ae_title: Mapped[str] = mapped_column(String(64), primary_key=True)
    called_ae_title: Mapped[str] = mapped_column(String(64), primary_key=True)
    address: Mapped[str] = mapped_column(String(64), primary_key=True)
    reason: Mapped[str] = mapped_column(String(80), primary_key=True)
    count: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
