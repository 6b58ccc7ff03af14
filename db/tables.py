"""The tables of a node, mapped for SQLAlchemy: one class a table, readable for an admin with psql or sqlite3.

Patient identity lives on ``studies``. States are stored as the lower-case words of :mod:`db.records`. The views for
people and reports (:mod:`db.views`) belong to the schema, too. Every table and column has a comment: PostgreSQL keeps
it, and ``docs/database.md`` is made of it (:mod:`db.reference`). The comment of a table is its class's docstring.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

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
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from db.records import LesionRecord, Route, SimilarRecord
from db.states import JOBS, Analysis, DeliveryState, InstanceState, JobState, Priority, StudyState


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

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """Give aware times in UTC, for a list of studies has hundreds: in one step from what the driver gives."""
        del coltype
        return _read_text if dialect.name == "sqlite" else _read_time


def _read_text(kept: str | None) -> datetime | None:
    return None if kept is None else datetime.fromisoformat(kept + "+00:00")


def _read_time(kept: datetime | None) -> datetime | None:
    return kept if kept is None or kept.tzinfo is UTC else kept.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """Values as JSON: ``plain`` makes them writable, ``record`` reads them. What is empty is NULL, and read as None."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def __init__(self, plain: Callable[[Any], Any], record: Callable[[Any], Any]) -> None:
        super().__init__()
        self.plain = plain
        self.record = record

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Give plain values."""
        del dialect
        return self.plain(value) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Give records."""
        del dialect
        return self.record(value)


def _plain_route(route: Route) -> dict[str, Any]:
    return {name: each for name, each in asdict(route).items() if each is not None}


def _route(kept: dict[str, Any] | None) -> Route | None:
    fields: dict[str, Any] = {
        name: tuple(each) if isinstance(each, list) else each for name, each in (kept or {}).items()
    }
    return Route(**fields) if fields else None


ROUTE = Json(_plain_route, _route)
"""A decision of the routing rules, by the names of its fields; what leaves the default is left out."""

SIMILAR_CASES = Json(
    lambda cases: [[one.reference, one.label, one.distance] for one in cases],
    lambda kept: tuple(SimilarRecord(str(one[0]), str(one[1]), float(one[2])) for one in kept or ()),
)
"""What a retrieval model found beside a finding: a tuple of records."""

LESIONS = Json(
    lambda lesions: [[one.tracking_uid, one.probability] for one in lesions],
    lambda kept: tuple(LesionRecord(str(one[0]), float(one[1])) for one in kept or ()),
)
"""The places of a finding where they are told apart: a tuple of records."""

NAMED = Json(dict, lambda kept: kept or {})
"""Values by name: a dictionary."""

NAMES = Json(list, lambda kept: tuple(kept or ()))
"""A tuple of texts."""


def words(states: type[StrEnum]) -> Enum:
    """Column type for a closed list of words, kept as text so that a new word needs no change of type."""
    return Enum(states, native_enum=False, length=16, values_callable=lambda members: [m.value for m in members])


_NUMBERED_ONCE = frozenset(
    {"studies", "series", "instances", "jobs", "findings", "results", "deliveries", "events", "notifications"}
)


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

    def __init_subclass__(cls, **options: Any) -> None:
        """Make the table; its comment is the docstring of the class."""
        super().__init_subclass__(**options)
        assert isinstance(cls.__table__, Table)
        # Audit trail, log and messages name rows by their numbers: that of an erased row is given to nobody else.
        cls.__table__.dialect_options["sqlite"]["autoincrement"] = cls.__tablename__ in _NUMBERED_ONCE
        cls.__table__.comment = " ".join(inspect.cleandoc(cls.__doc__ or "").replace("``", "").split())


RowNumber = Annotated[int, mapped_column(primary_key=True, comment="Row number.")]


# The worklist shows what nobody has reported: a handful of all studies, and the oldest of all are not among them.
_UNREPORTED = text("reported_at IS NULL")
# What needs a person is rare, and an index of it alone costs nothing where a study is well.
_NOT_ANALYSED = text("reported_at IS NULL AND analysis IN ('not analysed', 'failed')")
_ON_HOLD = "reported_at IS NULL AND (on_hold IS {} OR correction <> '')"
# Figures per week look at what has ended; what waits is in no week.
_FINISHED = text("finished_at IS NOT NULL")
_ASKED = text("verify_due_at IS NOT NULL")
_SENT = text("sent_at IS NOT NULL")
_SEARCHING = text("ended_at IS NULL")
_STALE = text("stale_code <> '' AND note_id IS NULL")
# A pass of retention looks at what still has files, not at all old studies, and at none that was never complete.
_KEPT = text("files_removed_at IS NULL AND completed_at IS NOT NULL")
_COMPARED = text("compared_with <> ''")

UID = String(64)
DIGEST = String(64)


class Study(Base):
    """A study (PS3.3 C.7.2.1) with its patient, its triage and what is counted of it for the worklist."""

    __tablename__ = "studies"
    __table_args__ = (
        Index("ix_studies_due_at_id", "due_at", "id"),
        Index("ix_studies_state_due_at_id", "state", "due_at", "id"),
        Index("ix_studies_state_last_activity_at", "state", "last_activity_at"),
        Index("ix_studies_study_date_due_at_id", "study_date", "due_at", "id"),
        Index(
            "ix_studies_unreported_due_at_id",
            *("due_at", "id", "reported_at"),
            sqlite_where=_UNREPORTED,
            postgresql_where=_UNREPORTED,
        ),
        # All that the parts of the worklist are counted by: SQLite reads no row where reported_at is in the index, too.
        Index(
            "ix_studies_unreported_counted",
            *("priority", "analysis", "on_hold", "correction", "reported_at"),
            sqlite_where=_UNREPORTED,
            postgresql_where=_UNREPORTED,
        ),
        Index(
            "ix_studies_not_analysed_due_at_id",
            *("analysis", "due_at", "id"),
            sqlite_where=_NOT_ANALYSED,
            postgresql_where=_NOT_ANALYSED,
        ),
        Index(
            "ix_studies_on_hold_due_at_id",
            *("due_at", "id"),
            sqlite_where=text(_ON_HOLD.format(1)),
            postgresql_where=text(_ON_HOLD.format("true")),
        ),
        Index("ix_studies_completed_at", "completed_at", sqlite_where=_KEPT, postgresql_where=_KEPT),
        Index("ix_studies_compared_with", "compared_with", sqlite_where=_COMPARED, postgresql_where=_COMPARED),
    )

    id: Mapped[RowNumber]
    study_instance_uid: Mapped[str] = mapped_column(UID, unique=True, comment="Study Instance UID (0020,000D).")
    patient_id: Mapped[str] = mapped_column(
        index=True, comment="Patient ID (0010,0020), after the hospital's corrections."
    )
    issuer_of_patient_id: Mapped[str] = mapped_column(
        comment="Issuer of Patient ID (0010,0021); empty where the image has none."
    )
    patient_name: Mapped[str] = mapped_column(comment="Patient's Name (0010,0010) as DICOM writes it: Family^Given.")
    patient_birth_date: Mapped[str] = mapped_column(
        comment="Patient's Birth Date (0010,0030), YYYYMMDD; empty where unknown."
    )
    patient_sex: Mapped[str] = mapped_column(comment="Patient's Sex (0010,0040): M, F, O or empty.")
    accession_number: Mapped[str] = mapped_column(
        index=True, comment="Accession Number (0008,0050) as received; several are apart in study_accessions."
    )
    study_date: Mapped[str] = mapped_column(
        comment="Study Date (0008,0020), YYYYMMDD, in the time zone of the modality."
    )
    study_time: Mapped[str] = mapped_column(comment="Study Time (0008,0030), HHMMSS.")
    study_description: Mapped[str] = mapped_column(comment="Study Description (0008,1030).")
    modalities: Mapped[str] = mapped_column(
        server_default="", comment="Modalities in Study (0008,0061): those of its series, backslashes in between."
    )
    state: Mapped[StudyState] = mapped_column(
        comment="Open while images arrive or are analysed, complete when nothing has happened for a time."
    )
    on_hold: Mapped[bool] = mapped_column(
        server_default=false(), comment="True: nothing of it is analysed or sent until a person releases it."
    )
    hold_reason: Mapped[str] = mapped_column(server_default="", comment="Why it is on hold, for a person.")
    stat: Mapped[bool] = mapped_column(
        server_default=false(),
        comment="True: the configuration makes it urgent (calling AE, DIMSE priority or description).",
    )
    hospital_priority: Mapped[Priority | None] = mapped_column(
        comment="Priority that the hospital gave it by HL7 or by hand: a lower limit. NULL: none."
    )
    priority: Mapped[Priority] = mapped_column(comment="Triage priority: the highest of its images.")
    analysis: Mapped[Analysis] = mapped_column(comment="What the analysis of its images has come to.")
    reason: Mapped[str] = mapped_column(comment="Why it has this priority, or why it is not analysed, in words.")
    due_at: Mapped[datetime] = mapped_column(
        comment="When it should be read at the latest; the worklist is in this order."
    )
    first_received_at: Mapped[datetime] = mapped_column(comment="When its first image arrived.")
    last_activity_at: Mapped[datetime] = mapped_column(comment="When something last happened to its images.")
    completed_at: Mapped[datetime | None] = mapped_column(comment="When it was last complete. NULL: never yet.")
    activity: Mapped[int] = mapped_column(
        server_default=text("0"),
        comment="Counts what has happened to its images; whoever completes it must have seen the latest.",
    )
    revision: Mapped[int] = mapped_column(server_default=text("0"), comment="How many summaries were written.")
    compared_with: Mapped[str] = mapped_column(
        UID, server_default="", comment="Study Instance UID of the prior that its summary compares it with, if any."
    )
    correction: Mapped[str] = mapped_column(
        server_default="",
        comment="Why its results stay here until a person releases them: the hospital has corrected the patient.",
    )
    images: Mapped[int] = mapped_column(
        server_default=text("0"), comment="Images that count: without repeats and replaced ones."
    )
    not_eligible: Mapped[int] = mapped_column(
        server_default=text("0"), comment="Images among them that are not eligible for analysis."
    )
    reported_at: Mapped[datetime | None] = mapped_column(
        comment="When a person or the hospital's system called it reported. NULL: unreported."
    )
    reported_by: Mapped[str] = mapped_column(
        server_default="", comment="Who did: a user, an API token, cli:USER, hl7 or dicom:AE."
    )
    files_removed_at: Mapped[datetime | None] = mapped_column(
        comment="When retention removed its files; nothing has come since. NULL: they are there."
    )


class StudyAccession(Base):
    """One of the accession numbers of a study that has several (two orders, one exposure).

    ``studies.accession_number`` keeps the text as it came; a study with one number has no row here.
    """

    __tablename__ = "study_accessions"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True, comment="The study.")
    accession_number: Mapped[str] = mapped_column(primary_key=True, index=True, comment="One of its accession numbers.")


class StudyWord(Base):
    """A word by which people find a study, without case and accents."""

    # PostgreSQL compares words as bytes, as SQLite does, so that the beginning of a word is a range of the index. On
    # SQLite the primary key is the table: a row number would make it a third place to write each word of a new study.
    __tablename__ = "study_words"
    __table_args__ = (Index("ix_study_words_study_id_word", "study_id", "word"), {"sqlite_with_rowid": False})

    word: Mapped[str] = mapped_column(
        String(64).with_variant(String(64, collation="C"), "postgresql"),
        primary_key=True,
        comment="A word of patient, accession number, date, description or station, folded.",
    )
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True, comment="The study.")


class Series(Base):
    """A series (PS3.3 C.7.3.1), with the station that made it (C.7.5.1)."""

    __tablename__ = "series"

    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    id: Mapped[RowNumber]
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), comment="Its study.")
    series_instance_uid: Mapped[str] = mapped_column(UID, index=True, comment="Series Instance UID (0020,000E).")
    modality: Mapped[str] = mapped_column(comment="Modality (0008,0060): DX, CR ...")
    body_part: Mapped[str] = mapped_column(comment="Body Part Examined (0018,0015).")
    series_description: Mapped[str] = mapped_column(comment="Series Description (0008,103E).")
    station_name: Mapped[str] = mapped_column(
        server_default="", comment="Station Name (0008,1010); empty where the image has none."
    )


class Instance(Base):
    """A received data set: SOP Instance UID and digest identify it.

    Values of ``flag``: ``compare`` and ``repeat`` (the same UID came in other bytes), ``conflict`` (the same UID came
    with other content), ``patient`` (another Patient ID than the rest of its study), ``own`` (one of our results came
    back), ``replaced`` (a newer one has its UID). Repeats, and what is replaced or still to be compared, are not
    counted in the study.
    """

    __tablename__ = "instances"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "digest"),
        Index("ix_instances_received_at", "received_at"),
    )

    id: Mapped[RowNumber]
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True, comment="Its study.")
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), comment="Its series.")
    sop_instance_uid: Mapped[str] = mapped_column(UID, comment="SOP Instance UID (0008,0018).")
    sop_class_uid: Mapped[str] = mapped_column(UID, comment="SOP Class UID (0008,0016).")
    transfer_syntax_uid: Mapped[str] = mapped_column(
        UID, comment="Transfer Syntax UID (0002,0010) in which it was received and is stored."
    )
    digest: Mapped[str] = mapped_column(DIGEST, comment="SHA-256 (hexadecimal) of the data set as received.")
    path: Mapped[str] = mapped_column(comment="Its file, relative to the folder of the store.")
    byte_count: Mapped[int] = mapped_column(BigInteger, comment="Size of that file in bytes.")
    patient_id: Mapped[str] = mapped_column(comment="Patient ID of the image itself.")
    view: Mapped[str] = mapped_column(comment="View Position (0018,5101), or what the view code says.")
    calling_ae_title: Mapped[str] = mapped_column(comment="AE title that has sent it.")
    state: Mapped[InstanceState] = mapped_column(comment="What became of it.")
    not_eligible_code: Mapped[str] = mapped_column(
        server_default="", comment="Why it is not eligible, as a code; empty where it is."
    )
    not_eligible_reason: Mapped[str] = mapped_column(server_default="", comment="The same for a person.")
    flag: Mapped[str] = mapped_column(
        String(16),
        server_default="",
        comment="Empty, or what is special: compare, repeat, conflict, patient, own, replaced.",
    )
    route: Mapped[Route | None] = mapped_column(
        ROUTE,
        comment="Decision of the routing rules: rule, why, models, destinations (JSON). NULL: there were no rules.",
    )
    received_at: Mapped[datetime] = mapped_column(
        comment="When it was stored: the moment before the sender heard 0x0000."
    )


class Job(Base):
    """One pipeline on one instance; a job that is run again on request stays one row, with the next revision."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("instance_id", "pipeline", "revision"),
        Index("ix_jobs_study_id_state", "study_id", "state"),
        Index("ix_jobs_state_dispatched_at", "state", "dispatched_at"),
        Index("ix_jobs_finished_at", "finished_at", sqlite_where=_FINISHED, postgresql_where=_FINISHED),
    )

    id: Mapped[RowNumber]
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), comment="Its study.")
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), comment="The image.")
    pipeline: Mapped[str] = mapped_column(
        DIGEST, comment="Digest of models, thresholds, processing options and encoder versions."
    )
    revision: Mapped[int] = mapped_column(comment="Grows when a finished job is run again on request.")
    state: Mapped[JobState] = mapped_column(comment="Where it stands.")
    stat: Mapped[bool] = mapped_column(comment="True: it is taken before others.")
    attempts: Mapped[int] = mapped_column(comment="How often it was begun.")
    queue: Mapped[str] = mapped_column(
        server_default=JOBS, comment="Where it waits for a worker: jobs, or jobs.cpu and jobs.gpu (models.gpu)."
    )
    worker: Mapped[str] = mapped_column(server_default="", comment="The worker that holds it, or held it last.")
    lease_until: Mapped[datetime | None] = mapped_column(comment="Until when that worker holds it. NULL: nobody does.")
    due_at: Mapped[datetime | None] = mapped_column(comment="When it may be tried again. NULL: at once.")
    dispatched_at: Mapped[datetime | None] = mapped_column(
        comment="When it was last given to the task queue. NULL: it should be, at once."
    )
    error: Mapped[str] = mapped_column(server_default="", comment="The last error, for a person.")
    not_analysed_code: Mapped[str] = mapped_column(
        server_default="", comment="Why the image is not analysed, as a code; empty where it is."
    )
    not_analysed_reason: Mapped[str] = mapped_column(server_default="", comment="The same for a person.")
    timings: Mapped[dict[str, float]] = mapped_column(comment="Seconds of each stage by name (JSON).")
    modes: Mapped[dict[str, str]] = mapped_column(
        NAMED, nullable=True, comment="State of each model when it ran: active, shadow or off (JSON)."
    )
    measures: Mapped[dict[str, Any]] = mapped_column(
        NAMED,
        nullable=True,
        comment="Measures of the image: brightness, contrast, size, spacing, view, manufacturer, device (JSON).",
    )
    ran_on: Mapped[str] = mapped_column(
        server_default="", comment="Device of its networks: cpu or gpu; empty before it ran."
    )
    created_at: Mapped[datetime] = mapped_column(comment="When this revision was made.")
    queued_at: Mapped[datetime] = mapped_column(comment="When it was last put into the queue.")
    started_at: Mapped[datetime | None] = mapped_column(comment="When it last began. NULL: never.")
    finished_at: Mapped[datetime | None] = mapped_column(
        comment="When it was done, failed or was withdrawn. NULL: not yet."
    )


class Finding(Base):
    """What a model reports of an image: one row a label, present or not."""

    __tablename__ = "findings"

    id: Mapped[RowNumber]
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True, comment="Its study.")
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True, comment="The job that has made it.")
    revision: Mapped[int] = mapped_column(comment="Revision of the job.")
    label: Mapped[str] = mapped_column(comment="What was looked for: pneumothorax, lung_opacity ...")
    model: Mapped[str] = mapped_column(comment="Name of the model.")
    model_version: Mapped[str] = mapped_column(comment="Version of the model.")
    probability: Mapped[float | None] = mapped_column(
        comment="Probability from 0 to 1. NULL: the model could not tell, and reason says why."
    )
    threshold: Mapped[float] = mapped_column(comment="From this probability on it is present.")
    present: Mapped[bool] = mapped_column(comment="True: the model says that it is there.")
    shadow: Mapped[bool] = mapped_column(comment="True: the model was in shadow: stored and compared, never sent.")
    reason: Mapped[str] = mapped_column(
        comment="Why there is no probability or place, why it is only stored, or what it follows from; may be empty."
    )
    area_mm2: Mapped[float | None] = mapped_column(
        comment="Area of its region in square millimetres. NULL: no region, or no pixel spacing."
    )
    area_fraction: Mapped[float | None] = mapped_column(
        comment="Area of its region as a share of the image, 0 to 1. NULL: no region."
    )
    tracking_uid: Mapped[str] = mapped_column(
        UID, server_default="", comment="Tracking UID (0062,0021) in SEG and SR; empty where it is in none."
    )
    similar: Mapped[tuple[SimilarRecord, ...]] = mapped_column(
        SIMILAR_CASES, nullable=True, comment="Similar cases of a retrieval model (JSON). NULL: none."
    )
    side: Mapped[str] = mapped_column(
        String(8),
        server_default="",
        comment="Side of the patient: left, right, both, or empty where it may not be told.",
    )
    zones: Mapped[str] = mapped_column(
        String(32), server_default="", comment="Zones of the lung (upper, middle, lower), separated by commas."
    )
    lung_share: Mapped[float | None] = mapped_column(comment="Its share of the lung, 0 to 1. NULL: unknown.")
    lesions: Mapped[tuple[LesionRecord, ...]] = mapped_column(
        LESIONS,
        nullable=True,
        comment="Tracking UID and probability of each of its lesions (JSON). NULL: not told apart.",
    )
    placed_by: Mapped[str] = mapped_column(
        server_default="", comment="Model and version that its place is from; empty: the model itself."
    )
    lungs_by: Mapped[str] = mapped_column(
        server_default="", comment="Model and version of the lungs that its zones and share are of; empty: none."
    )
    superseded: Mapped[bool] = mapped_column(
        server_default=false(), comment="True: a later revision of the job has replaced it."
    )


class Result(Base):
    """An encoded DICOM object that this node has made."""

    __tablename__ = "results"

    id: Mapped[RowNumber]
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True, comment="Its study.")
    job_id: Mapped[int | None] = mapped_column(
        ForeignKey("jobs.id"), index=True, comment="The job that has made it. NULL: the summary of the study."
    )
    revision: Mapped[int] = mapped_column(comment="Revision of the job, or of the summary.")
    ordinal: Mapped[int] = mapped_column(comment="Place in the order of storing.")
    kind: Mapped[str] = mapped_column(String(16), comment="Kind of object: seg, sr, summary ...")
    sop_class_uid: Mapped[str] = mapped_column(UID, comment="SOP Class UID (0008,0016).")
    sop_instance_uid: Mapped[str] = mapped_column(UID, unique=True, comment="SOP Instance UID (0008,0018).")
    series_instance_uid: Mapped[str] = mapped_column(UID, comment="Series Instance UID (0020,000E).")
    digest: Mapped[str] = mapped_column(DIGEST, comment="SHA-256 (hexadecimal) of its data set.")
    path: Mapped[str] = mapped_column(comment="Its file, relative to the folder of the store.")
    byte_count: Mapped[int] = mapped_column(BigInteger, comment="Size of that file in bytes.")
    patient_id: Mapped[str] = mapped_column(comment="Patient ID in the object.")
    created_at: Mapped[datetime] = mapped_column(comment="When it was made.")


class Delivery(Base):
    """One result's way to one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("result_id", "destination"),
        Index("ix_deliveries_study_id_state", "study_id", "state"),
        Index("ix_deliveries_state_dispatched_at", "state", "dispatched_at"),
        Index("ix_deliveries_verify_due_at", "verify_due_at", sqlite_where=_ASKED, postgresql_where=_ASKED),
        Index("ix_deliveries_sent_at", "sent_at", sqlite_where=_SENT, postgresql_where=_SENT),
        Index("ix_deliveries_stale", "study_id", sqlite_where=_STALE, postgresql_where=_STALE),
    )

    id: Mapped[RowNumber]
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), comment="Its study.")
    result_id: Mapped[int] = mapped_column(ForeignKey("results.id"), comment="The object.")
    destination: Mapped[str] = mapped_column(ForeignKey("destinations.name"), comment="The destination.")
    state: Mapped[DeliveryState] = mapped_column(comment="Where it stands.")
    attempts: Mapped[int] = mapped_column(comment="How often it was sent.")
    worker: Mapped[str] = mapped_column(server_default="", comment="The worker that holds it, or held it last.")
    lease_until: Mapped[datetime | None] = mapped_column(comment="Until when that worker holds it. NULL: nobody does.")
    due_at: Mapped[datetime | None] = mapped_column(comment="When it may be tried again. NULL: at once.")
    dispatched_at: Mapped[datetime | None] = mapped_column(
        comment="When it was last given to the task queue. NULL: it should be, at once."
    )
    error: Mapped[str] = mapped_column(server_default="", comment="The last error, for a person.")
    on_hold_with_study: Mapped[bool] = mapped_column(
        server_default=false(), comment="True: it waits only because its study does."
    )
    created_at: Mapped[datetime] = mapped_column(comment="When it was made.")
    sent_at: Mapped[datetime | None] = mapped_column(comment="When the destination took it. NULL: not yet.")
    verified_at: Mapped[datetime | None] = mapped_column(
        comment="When the destination confirmed that it holds the object. NULL: not yet."
    )
    verify_due_at: Mapped[datetime | None] = mapped_column(
        comment="When the destination is next asked. NULL: nobody asks."
    )
    verify_attempts: Mapped[int] = mapped_column(
        server_default=text("0"), comment="How often it was asked since it took the object."
    )
    verify_missing: Mapped[int] = mapped_column(
        server_default=text("0"), comment="How often it said that it does not hold it."
    )
    transaction_uid: Mapped[str | None] = mapped_column(
        UID, comment="Transaction UID (0008,1195) of the last request for Storage Commitment."
    )
    lost: Mapped[int] = mapped_column(
        server_default=text("0"), comment="Claims in a row whose process ended without a word."
    )
    refused: Mapped[int] = mapped_column(
        server_default=text("0"), comment="Attempts at which the destination answered, and could not take it then."
    )
    unanswered: Mapped[bool] = mapped_column(
        server_default=false(), comment="True: at some attempt it may have arrived without a word of the destination."
    )
    stale_code: Mapped[str] = mapped_column(
        String(16),
        server_default="",
        comment="Title (DCM) of the rejection note that what was sent needs by now; empty: none.",
    )
    note_id: Mapped[int | None] = mapped_column(comment="The result that is this note. NULL: none yet.")


class Destination(Base):
    """How it stands with a destination; where it is and what it takes is defined in the configuration."""

    __tablename__ = "destinations"

    name: Mapped[str] = mapped_column(String(64), primary_key=True, comment="Name in the configuration.")
    last_sent_at: Mapped[datetime | None] = mapped_column(comment="When it last took an object. NULL: never.")
    last_failed_at: Mapped[datetime | None] = mapped_column(
        comment="When an object last could not be sent. NULL: never."
    )
    last_error: Mapped[str] = mapped_column(server_default="", comment="Why.")
    failures: Mapped[int] = mapped_column(server_default=text("0"), comment="Calls in a row that it did not answer.")
    open_until: Mapped[datetime | None] = mapped_column(
        comment="Until then nobody calls it (circuit breaker). NULL: it may be called."
    )


class DestinationLease(Base):
    """A worker that is in contact with a destination, or may be for a time."""

    __tablename__ = "destination_leases"

    worker: Mapped[str] = mapped_column(primary_key=True, comment="The worker.")
    destination: Mapped[str] = mapped_column(ForeignKey("destinations.name"), comment="The destination.")
    lease_until: Mapped[datetime] = mapped_column(comment="Until when it counts.")


class SchedulerLease(Base):
    """Which of the schedulers acts: one row."""

    __tablename__ = "scheduler_lease"

    id: Mapped[RowNumber]
    worker: Mapped[str] = mapped_column(comment="The one that acts; empty where none does.")
    lease_until: Mapped[datetime | None] = mapped_column(comment="Until when, by the clock of the database.")
    stand_by: Mapped[str] = mapped_column(comment="The last other one that would have acted; empty without one.")
    stand_by_at: Mapped[datetime | None] = mapped_column(comment="When it would have.")


class Model(Base):
    """Which version of which model has analysed images of this node, and since when."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True, comment="Name of the model.")
    version: Mapped[str] = mapped_column(primary_key=True, comment="Its version.")
    first_used_at: Mapped[datetime] = mapped_column(comment="When it analysed its first image here.")


class ModelSwitch(Base):
    """A person has switched a model: the latest row of a model is its state, the earlier ones are its history."""

    __tablename__ = "model_switches"

    id: Mapped[RowNumber]
    model: Mapped[str] = mapped_column(String(64), index=True, comment="Name of the model, in all its versions.")
    from_state: Mapped[str] = mapped_column(String(16), comment="State before: active, shadow, off, or as configured.")
    to_state: Mapped[str] = mapped_column(String(16), comment="State after.")
    reason: Mapped[str] = mapped_column(comment="Why.")
    actor: Mapped[str] = mapped_column(String(80), comment="Who did it.")
    at: Mapped[datetime] = mapped_column(comment="When.")


class Event(Base):
    """One transition: which record went from where to where, why, by whom, and when."""

    __tablename__ = "events"

    id: Mapped[RowNumber]
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True, comment="Its study.")
    entity: Mapped[str] = mapped_column(
        String(16), comment="What moved: study, instance, job, delivery or notification."
    )
    entity_id: Mapped[int] = mapped_column(comment="Its row number.")
    from_state: Mapped[str] = mapped_column(comment="State before; empty for a new row.")
    to_state: Mapped[str] = mapped_column(comment="State after.")
    cause: Mapped[str] = mapped_column(comment="Why, in words.")
    actor: Mapped[str] = mapped_column(comment="Who did it: node, a worker, a user, an API token or a system.")
    at: Mapped[datetime] = mapped_column(comment="When.")


class Rejection(Base):
    """An instance that a rejection note has taken back; the note may have come before the instance."""

    __tablename__ = "rejections"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "note_uid"),)

    id: Mapped[RowNumber]
    sop_instance_uid: Mapped[str] = mapped_column(String(64), comment="SOP Instance UID of the instance.")
    note_uid: Mapped[str] = mapped_column(String(64), comment="SOP Instance UID of the rejection note.")
    code: Mapped[str] = mapped_column(comment="Document title of the note (DCM): 113001, 113037, 113038 or 113039.")
    sentence: Mapped[str] = mapped_column(comment="The same for a person.")
    at: Mapped[datetime] = mapped_column(comment="When the note came.")


class RejectedAssociation(Base):
    """A caller whose associations were rejected for one reason, and how often."""

    __tablename__ = "rejected_associations"

    calling_ae_title: Mapped[str] = mapped_column(String(64), primary_key=True, comment="AE title of the caller.")
    called_ae_title: Mapped[str] = mapped_column(String(64), primary_key=True, comment="AE title that it asked for.")
    address: Mapped[str] = mapped_column(String(64), primary_key=True, comment="Its IP address.")
    reason: Mapped[str] = mapped_column(String(80), primary_key=True, comment="Why it was rejected.")
    count: Mapped[int] = mapped_column(comment="How often.")
    first_at: Mapped[datetime] = mapped_column(comment="First time.")
    last_at: Mapped[datetime] = mapped_column(comment="Last time.")


class BackfillRun(Base):
    """A search for images that an archive holds and this node has not received."""

    __tablename__ = "backfill_runs"

    id: Mapped[RowNumber]
    scheduled_for: Mapped[str | None] = mapped_column(
        String(8), unique=True, comment="Day (YYYYMMDD) for which the schedule started it. NULL: a person did."
    )
    archive: Mapped[str] = mapped_column(String(64), comment="Name of the destination that was searched.")
    date_from: Mapped[str] = mapped_column(String(8), comment="First Study Date (YYYYMMDD) of the search.")
    date_to: Mapped[str] = mapped_column(String(8), comment="Last Study Date (YYYYMMDD) of the search.")
    started_at: Mapped[datetime] = mapped_column(
        comment="When it was started, or taken over from a process that ended."
    )
    lease_until: Mapped[datetime] = mapped_column(comment="Until when the process that runs it is taken to be alive.")
    ended_at: Mapped[datetime | None] = mapped_column(comment="When it ended. NULL: it runs, or its process ended.")
    studies: Mapped[int] = mapped_column(comment="Studies that the archive listed.")
    incomplete: Mapped[int] = mapped_column(comment="Studies of which images were missing here.")
    images: Mapped[int] = mapped_column(comment="Images that arrived.")
    failed: Mapped[int] = mapped_column(comment="Studies that could not be completed.")
    erased: Mapped[int] = mapped_column(
        server_default=text("0"), comment="Studies that were erased here, and therefore left out."
    )
    problem: Mapped[str] = mapped_column(comment="The last problem, for a person; empty if there was none.")


class Erasure(Base):
    """A person has asked to erase a study, and it is still here: something of it is under way, or nobody acts."""

    __tablename__ = "erasures"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True, comment="The study.")
    actor: Mapped[str] = mapped_column(String(80), comment="Who asked.")
    address: Mapped[str] = mapped_column(String(64), comment="IP address of the request; empty on the command line.")
    reason: Mapped[str] = mapped_column(comment="Why.")
    requested_at: Mapped[datetime] = mapped_column(comment="When.")


class ErasedStudy(Base):
    """A study that was erased, known by a digest alone: backfill leaves it out."""

    __tablename__ = "erased_studies"

    id: Mapped[RowNumber]
    key: Mapped[str] = mapped_column(DIGEST, comment="Random key of this digest, hexadecimal.")
    digest: Mapped[str] = mapped_column(
        DIGEST, comment="HMAC-SHA-256 (hexadecimal) of the Study Instance UID under this key."
    )
    at: Mapped[datetime] = mapped_column(comment="When it was erased.")


class ErasedFile(Base):
    """A file of an erased study that is still to be removed; a folder is still to be searched for copies."""

    __tablename__ = "erased_files"

    path: Mapped[str] = mapped_column(
        primary_key=True, comment="Its place, relative to the folder of the store; a folder ends with a slash."
    )
    sop_instance_uid: Mapped[str] = mapped_column(
        UID, comment="SOP Instance UID, by which a row is found that names the file again; empty for a folder."
    )


class BackfilledStudy(Base):
    """A study of an earlier day that this node first received because a backfill asked for it: it notifies nobody."""

    __tablename__ = "backfilled_studies"

    study_instance_uid: Mapped[str] = mapped_column(UID, primary_key=True, comment="Study Instance UID (0020,000D).")
    requested_at: Mapped[datetime] = mapped_column(comment="When its images were first asked for.")
    pull_ends_at: Mapped[datetime] = mapped_column(
        comment="When the last pull has ended, or ends at the latest. An image that comes later comes by itself."
    )
    for_prior: Mapped[bool] = mapped_column(
        server_default=false(), comment="True: only to compare a newer study with it."
    )
    pulls: Mapped[int] = mapped_column(
        server_default=text("1"),
        comment="How many pulls of it run until then, those whose process was killed included.",
    )
    asked_twice: Mapped[bool] = mapped_column(
        server_default=false(), comment="True: it was asked for more than once, so an image may come again."
    )


class PriorSearch(Base):
    """The search for the last prior chest radiograph of a study's patient, once for each study."""

    __tablename__ = "prior_searches"
    __table_args__ = (
        Index("ix_prior_searches_started_at", "started_at", sqlite_where=_SEARCHING, postgresql_where=_SEARCHING),
    )

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True, comment="The newer study.")
    started_at: Mapped[datetime] = mapped_column(comment="When the archive was asked.")
    ended_at: Mapped[datetime | None] = mapped_column(
        comment="When the prior was here, or there was none. NULL: not yet."
    )
    prior_study_instance_uid: Mapped[str] = mapped_column(
        UID,
        server_default="",
        comment="Study Instance UID (0020,000D) of the prior, or of the study that is being pulled; empty: none.",
    )
    problem: Mapped[str] = mapped_column(server_default="", comment="Why none was found, for a person.")
