"""Requests and answers of the JSON API as pydantic models; their docstrings are the texts of its OpenAPI document.

Times are ISO 8601 with a time zone. Dates and times of a study are texts as in its DICOM header (DA, TM), because
they say no time zone and may be invalid.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from config.notice import NOTICE
from db.assessments import Unmatched
from db.audit import RecordedEntry
from db.erasures import LONGEST_REASON
from db.feedback import FeedbackRecord, IdentifiedFinding
from db.model_states import ModelState, Switch
from db.queries.erasure import ErasurePlan
from db.queries.problems import Problem
from db.queries.statistics import Failure, RunningWorker
from db.queries.worklist import Order, WorklistPart
from db.queries.worklist_filters import Filters
from db.shown_records import StudyDetail, WorklistRow
from db.states import Priority, StudyState
from db.user_tables import Verdict
from node.monitoring.drift import DriftReport, VerdictWeek

MOST_DETAIL = 400
"""An error's sentence is cut after this many characters: it may repeat what was sent."""

_DATE = r"^(\d{8})?$"


class Strict(BaseModel):
    """Parameters or a body; anything that is not asked for is an error."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Answer(BaseModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ReadAnswer(Answer):
    """An answer in which findings stand."""

    notice: str = NOTICE
    """Research use only."""


class WorklistQuery(Strict):
    """Which part of the worklist to return."""

    show: WorklistPart = WorklistPart.UNREPORTED
    """Part of the worklist."""
    order: Order = Order.DUE
    """Sort key."""
    descending: bool = False
    """Reverse the order."""
    search: str = Field(default="", max_length=100)
    """Words, or beginnings of words, of patient, accession number, date, description or station, without case and
    accents and in any order; or a UID."""
    date_from: str = Field(default="", pattern=_DATE)
    """Study Date from this day on, YYYYMMDD."""
    date_to: str = Field(default="", pattern=_DATE)
    """Study Date until this day, YYYYMMDD."""
    modality: str = Field(default="", max_length=16)
    """Modality of one of its series."""
    station: str = Field(default="", max_length=64)
    """Station Name of one of its series; case does not matter."""
    calling_ae_title: str = Field(default="", max_length=16)
    """AE title that has sent an instance of it."""
    destination: str = Field(default="", max_length=64)
    """Destination to which something of it goes."""
    finding: str = Field(default="", max_length=64)
    """Label of a finding that an active model has found."""
    state: StudyState | None = None
    """State of the study."""
    limit: int = Field(default=50, ge=1, le=200)
    """Number of rows to return."""
    offset: int = Field(default=0, ge=0, le=1_000_000)
    """Number of rows to skip."""

    @property
    def filters(self) -> Filters:
        """What is looked for; no database takes NUL."""
        names = [name for name in Filters.__dataclass_fields__ if name != "state"]
        texts: dict[str, Any] = {name: getattr(self, name).replace("\x00", "") for name in names}
        return Filters(**texts, state=self.state)


class StudyQuery(Strict):
    """By what a study is known; at least one of the two."""

    study_instance_uid: str = Field(default="", max_length=64)
    """Study Instance UID (0020,000D)."""
    accession_number: str = Field(default="", max_length=64)
    """Accession Number (0008,0050), or one of several in it. It is compared exactly."""


class PageQuery(Strict):
    """Which part of a long list to return."""

    limit: int = Field(default=100, ge=1, le=500)
    """Number of rows to return."""
    offset: int = Field(default=0, ge=0, le=1_000_000)
    """Number of rows to skip."""


class DriftQuery(Strict):
    """Which part of the drift report to return."""

    weeks: int = Field(default=8, ge=1, le=104)
    """Number of ISO weeks, including the current one."""
    model: str = Field(default="", max_length=64)
    """Limit the report to this model and to the images."""


class PriorityBody(Strict):
    """The hospital's priority."""

    priority: Priority | None
    """Lower limit of the triage priority; null removes it."""


class EraseBody(Strict):
    """Why a study is erased, and whose it is."""

    reason: str = Field(min_length=1, max_length=LONGEST_REASON)
    """Why; the audit trail keeps it, so it must not name the patient."""
    confirmation: str = Field(max_length=64)
    """The patient ID of the study, or its Study Instance UID where it has none: another one is refused."""


class HoldBody(Strict):
    """Why a study is on hold."""

    reason: str = Field(min_length=1, max_length=200)
    """One sentence for the users who find the study on hold."""


class FeedbackBody(Strict):
    """A reader's verdict on a finding."""

    verdict: Verdict
    """Accept, modify or reject."""
    comment: str = Field(default="", max_length=2000)
    """Comment on the finding."""


class RetryBody(Strict):
    """What to try again: everything that fails, or a part of it."""

    entity: Literal["job", "delivery"] | None = None
    """Only jobs, or only deliveries."""
    destination: str = Field(default="", max_length=64)
    """Only deliveries to this destination."""
    cause: str = Field(default="", max_length=2000)
    """Only what fails for this cause, as `GET /problems` names it."""


class SwitchBody(Strict):
    """How a model's findings are used from now on."""

    state: ModelState
    """Active: findings are delivered and used for triage. Shadow: stored and compared. Off: only stored."""
    reason: str = Field(min_length=1, max_length=400)
    """Reason for the change, in one sentence."""


class Error(Answer):
    """Every error of the API has this shape."""

    detail: str
    """What is wrong, in one sentence. It begins with the name of the parameter if one is invalid."""


class Worklist(ReadAnswer):
    """A part of the worklist."""

    studies: tuple[WorklistRow, ...]
    """The rows of this part, in the order that was asked for."""
    counts: dict[str, int]
    """Number of unreported studies in each part of the worklist."""


class Studies(ReadAnswer):
    """The studies that are known so."""

    studies: tuple[WorklistRow, ...]
    """None, one, or several: an accession number need not be unique."""


class StudyAnswer(ReadAnswer):
    """A study with all its details."""

    study: StudyDetail
    """The study with its instances, jobs, results, deliveries and history."""
    findings: tuple[IdentifiedFinding, ...]
    """Findings on which a verdict may be given."""
    feedback: tuple[FeedbackRecord, ...]
    """Verdicts of readers."""
    hospital_priority: Priority | None
    """Priority that the hospital has set: a lower limit."""


class SystemAnswer(Answer):
    """State of the node."""

    queue: dict[str, int]
    """Number of jobs and deliveries by state."""
    oldest_job_seconds: float
    """Age of the oldest waiting job."""
    overdue: int
    """Number of unreported studies whose due time has passed."""
    workers: tuple[RunningWorker, ...]
    """Workers of the last 24 hours."""
    failures: tuple[Failure, ...]
    """The latest failed jobs and deliveries."""
    agreement: tuple[VerdictWeek, ...]
    """Verdicts of readers for each model and label."""
    notifications: dict[str, dict[str, int]]
    """Number of critical-result notifications by channel and state."""
    assessments_unmatched: tuple[Unmatched, ...]
    """Verdicts that arrived as DICOM objects and fit no finding."""


class ProblemsAnswer(Answer):
    """What fails, grouped by cause and destination: what is given up first."""

    problems: tuple[Problem, ...]


class RetryAnswer(Answer):
    """What is tried again."""

    jobs: int
    """Number of jobs that run again."""
    deliveries: int
    """Number of deliveries that are sent again."""
    left: int
    """Number of those that could not be: their study is on hold, or a worker has just taken them."""


class ModelAnswer(Answer):
    """A model of this node. ``state`` is active, shadow or off; gate or not configured if it cannot be switched."""

    name: str
    version: str
    title: str
    kind: str
    digest: str
    state: str
    configured: str
    findings: int
    positives: int
    switches: tuple[Switch, ...]


class ModelsAnswer(Answer):
    """The models of this node."""

    models: tuple[ModelAnswer, ...]


class DriftAnswer(ReadAnswer):
    """Figures on models, images and readers for each ISO week, the latest first."""

    report: DriftReport


class SwitchAnswer(Answer):
    """Whether the state changed, and how many deliveries were put on hold and notifications cancelled."""

    changed: bool
    on_hold: int
    cancelled: int


class AuditAnswer(Answer):
    """A part of the audit trail, the latest first."""

    entries: tuple[RecordedEntry, ...]


class StudyName(Answer):
    """Attributes by which a person identifies a study."""

    id: int
    study_instance_uid: str
    patient_id: str
    patient_name: str
    accession_number: str
    study_date: str


class ErasureAnswer(Answer):
    """What erasing a study removes, and what others hold of it: ``held`` by destinations, ``taken`` by people, programs
    and receivers of notifications."""

    erasure: ErasurePlan
    deidentified: tuple[str, ...]
    """Folders with de-identified copies of it."""
    noted_first: tuple[str, ...]
    """Destinations that get a rejection note about it before it is erased."""


class Done(Answer):
    """The action was done on this study."""

    done: Literal[True] = True
    study: StudyName


class NotifiedFinding(Answer):
    """The finding that a notification is about."""

    label: str
    """Name of the finding; ``test`` for a test message."""
    probability: float | None
    status: Literal["suspected"]


class NotifiedStudy(Answer):
    """The study that a notification is about, with texts as in its DICOM header."""

    study_instance_uid: str
    accession_number: str
    patient_id: str
    issuer_of_patient_id: str
    study_date: str
    study_description: str
    patient_name: str | None = None
    """Only with ``notifications.webhook.patient_name``."""


class CriticalFinding(Answer):
    """A critical finding, or a test message. The receiver answers with a status of 200 to 299; any other is retried."""

    type: Literal["pleura.critical_finding", "pleura.test"]
    id: str
    """The same for every attempt at one notification: a receiver recognises a repeat by it."""
    raised_at: AwareDatetime
    notice: str
    """Research use only."""
    node: str
    finding: NotifiedFinding
    study: NotifiedStudy
    priority: Priority
    due_at: AwareDatetime
    link: str
    """Address of the study's page; empty if ``notifications.link`` is not set."""
