"""Records that pages, API and commands show: a row of the worklist, and a study with all that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from db.records import FindingRecord, NotEligible, ResultRecord, Route
from db.states import JOBS, Analysis, DeliveryState, InstanceState, JobState, Priority, StudyState


@dataclass(frozen=True, slots=True)
class WorklistRow:
    """One study as the worklist shows it.

    ``findings`` are those of the latest revision of each job, absent and shadow ones too. ``jobs`` and ``deliveries``
    count by state. ``reason`` is that of the triage decision; ``hold_reason`` is empty where the study is not on hold.
    """

    study_id: int
    study_instance_uid: str
    patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    study_date: str
    study_description: str
    state: StudyState
    priority: Priority
    analysis: Analysis
    reason: str
    on_hold: bool
    hold_reason: str
    stat: bool
    received_at: datetime
    due_at: datetime
    reported_at: datetime | None
    reported_by: str
    images: int
    not_eligible: int
    findings: tuple[FindingRecord, ...]
    jobs: dict[str, int]
    deliveries: dict[str, int]
    modalities: tuple[str, ...]

    @property
    def present(self) -> tuple[FindingRecord, ...]:
        """Findings that count: present, not in shadow, the most probable first."""
        found = [finding for finding in self.findings if finding.present and not finding.shadow]
        return tuple(sorted(found, key=lambda finding: -(finding.probability or 0)))

    @property
    def deliveries_open(self) -> int:
        """Deliveries that have not ended yet."""
        return self._deliveries_in(DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.ON_HOLD)

    @property
    def deliveries_failed(self) -> int:
        """Deliveries of which all attempts failed."""
        return self._deliveries_in(DeliveryState.FAILED)

    @property
    def deliveries_on_hold(self) -> int:
        """Deliveries that wait for a person to release them."""
        return self._deliveries_in(DeliveryState.ON_HOLD)

    @property
    def deliveries_arrived(self) -> int:
        """Deliveries that the destination has accepted."""
        return self._deliveries_in(DeliveryState.SENT, DeliveryState.VERIFIED)

    @property
    def deliveries_all(self) -> int:
        """All deliveries but those withdrawn."""
        return sum(self.deliveries.values()) - self._deliveries_in(DeliveryState.WITHDRAWN)

    def _deliveries_in(self, *states: DeliveryState) -> int:
        return sum(self.deliveries.get(state, 0) for state in states)


@dataclass(frozen=True, slots=True)
class InstanceDetail:
    """A received instance as the study's page shows it.

    ``flag``: empty, ``compare`` (same SOP Instance UID in other bytes: a worker will compare), ``repeat`` (the same
    image again), ``conflict`` (same SOP Instance UID, other content), ``replaced`` (by a newer one with its UID),
    ``patient`` (another patient than the rest of the study) or ``own`` (a result of this node that came back).
    ``route``: what the routing rules decided; null where there were none.
    """

    id: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    series_description: str
    modality: str
    body_part: str
    view: str
    digest: str
    path: str
    byte_count: int
    patient_id: str
    calling_ae_title: str
    state: InstanceState
    not_eligible: NotEligible | None
    flag: str
    received_at: datetime
    route: Route | None


@dataclass(frozen=True, slots=True)
class JobDetail:
    """A job as the study's page shows it."""

    id: int
    instance_id: int
    pipeline: str
    revision: int
    state: JobState
    attempts: int
    stat: bool
    worker: str
    error: str
    not_analysed: NotEligible | None
    timings: dict[str, float]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime | None
    queue: str = JOBS
    findings: tuple[FindingRecord, ...] = ()
    modes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResultDetail:
    """A result as the study's page shows it. ``job_id`` is None for a summary of the study."""

    id: int
    job_id: int | None
    revision: int
    record: ResultRecord
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryDetail:
    """A delivery as the study's page shows it.

    ``stale_code``: the destination holds it, or may, and it is not right any more (title of a rejection note);
    ``note_id`` is then the result that takes it back there, None where no note does.
    """

    id: int
    result_id: int
    kind: str
    destination: str
    state: DeliveryState
    attempts: int
    error: str
    due_at: datetime | None
    created_at: datetime
    sent_at: datetime | None
    verified_at: datetime | None
    stale_code: str = ""
    note_id: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One transition: which record went from where to where, why, by whom, and when."""

    entity: str
    entity_id: int
    from_state: str
    to_state: str
    cause: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class PriorSearchDetail:
    """The search for the last prior in an archive: ``ended_at`` is None while it runs.

    ``prior_study_instance_uid`` is empty where none was found, and ``problem`` says why.
    """

    started_at: datetime
    ended_at: datetime | None
    prior_study_instance_uid: str
    problem: str


@dataclass(frozen=True, slots=True)
class StudyDetail:
    """Everything about one study.

    Each job has its own findings. ``revision`` counts the summaries written so far, ``activity`` what has happened to
    the images (see ``complete_study``). ``prior_search`` is None where none was made.
    """

    row: WorklistRow
    issuer_of_patient_id: str
    study_time: str
    completed_at: datetime | None
    last_activity_at: datetime
    activity: int
    revision: int
    instances: tuple[InstanceDetail, ...]
    jobs: tuple[JobDetail, ...]
    results: tuple[ResultDetail, ...]
    deliveries: tuple[DeliveryDetail, ...]
    events: tuple[Event, ...]
    prior_search: PriorSearchDetail | None
