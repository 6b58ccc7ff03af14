"""The records of a node as frozen values; :mod:`db.states` has their states, :mod:`db.shown_records` what people see.

Every time is an aware ``datetime`` in UTC. Row identifiers are integers given by the database. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from db.states import JOBS, Analysis, DeliveryState, JobState, Priority

IS_REPORTED = "the study is reported"
IS_PRIOR = "the study was pulled only to compare a newer one with it"
"""Why a notification is withdrawn, or a result recorded and not sent: it holds until the report is taken back."""


@dataclass(frozen=True, slots=True)
class Route:
    """What the routing rules have decided about an image (docs/routing.md); :mod:`workers.routing` decides.

    ``rule`` is empty where none matched; ``why`` says what matched. ``models``, ``destinations`` and ``kinds`` are None
    where the rule leaves the default. ``excluded`` is the reason of a rule that keeps the image from being analysed.
    """

    rule: str
    why: str
    models: tuple[str, ...] | None = None
    destinations: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    excluded: str = ""


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """One data set as it lies in the instance store, with the header values that the database keeps.

    ``digest`` is the SHA-256 (hexadecimal) of the data set as received, without file meta information; together with
    ``sop_instance_uid`` it identifies the instance. ``path`` is relative to the store folder. Texts are decoded; empty
    where the header has none. ``route`` is None where there are no routing rules, or no rule was asked; ``queue`` is
    where its job waits for a worker.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    digest: str
    path: str
    byte_count: int
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    modality: str = ""
    body_part: str = ""
    view: str = ""
    series_description: str = ""
    station_name: str = ""
    calling_ae_title: str = ""
    stat: bool = False
    route: Route | None = None
    queue: str = JOBS


@dataclass(frozen=True, slots=True)
class NotEligible:
    """Why an instance is not analysed: a code from a closed list and a sentence for a person."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class RejectionNote:
    """A Key Object Selection that takes images back (IHE RAD IOCM): its UID, why, and the images.

    ``code`` is that of the document title (113001, 113037, 113038, 113039; PS3.16 CID 7011), ``sentence`` says it to a
    person.
    """

    note_uid: str
    code: str
    sentence: str
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ingest:
    """What recording an instance did: its row, and the jobs to enqueue.

    ``repeat``: the same UID and digest were there already. ``comparing``: the same UID came for the same patient, study
    and series in other bytes, and a worker will see whether the image is the same. ``conflict``: the same UID came for
    another patient, study or series, both are kept apart and the study is on hold for a person. ``pressing``: the jobs
    are to be taken first: an order that came before the study is urgent, or there is only something to compare.
    ``returned``: the study that it has brought back to the worklist, because it came after its report.
    """

    instance_id: int
    job_ids: tuple[int, ...] = ()
    repeat: bool = False
    comparing: bool = False
    conflict: bool = False
    pressing: bool = False
    returned: int | None = None


@dataclass(frozen=True, slots=True)
class PatientIdentity:
    """Who a study is of, as it is known now: header values, empty where nothing is known."""

    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as a worker claims it. ``created_at`` is fixed when the job is made: result times are taken from it.

    ``compare_with``: its instance came under a SOP Instance UID that was there already; the files of the earlier ones,
    with which it is compared instead of being analysed. None where it is to be analysed. ``replaces``: it replaces an
    earlier instance with its SOP Instance UID. ``patient`` is what the hospital has said of the patient since the image
    was made; None where that is nothing. ``route`` is what the routing rules decided, None where there were none.
    """

    id: int
    instance_id: int
    study_id: int
    pipeline: str
    state: JobState
    attempts: int
    revision: int
    stat: bool
    created_at: datetime
    sop_instance_uid: str
    instance_digest: str
    instance_path: str
    compare_with: tuple[str, ...] | None = None
    replaces: bool = False
    patient: PatientIdentity | None = None
    route: Route | None = None
    calling_ae_title: str = ""


@dataclass(frozen=True, slots=True)
class SimilarRecord:
    """A case that a retrieval model thinks alike: a reference into its own index, never patient data."""

    reference: str
    label: str
    distance: float


@dataclass(frozen=True, slots=True)
class LesionRecord:
    """One of several places of a finding: what its segment in our SEG is called (Tracking UID), and its probability."""

    tracking_uid: str
    probability: float


@dataclass(frozen=True, slots=True)
class FindingRecord:
    """One finding as the database keeps it (numbers only; pixels live in the result objects).

    ``tracking_uid`` is what our SEG and SR call it (Tracking Unique Identifier), empty where nothing was written.
    ``side`` is the patient's side on which it lies: left, right, both, unknown (the image does not
    say which way the patient lies), or empty where the model shows no place. ``zones`` are the zones of the lungs
    (upper, middle, lower; separated by commas), ``lung_share`` is the share of the lung that is involved more; both are
    empty where the lungs were not found. ``lesions`` are its places where they are told apart. ``placed_by`` is the
    model with its version whose place it is, where that is another one; ``lungs_by`` that which has found the lungs.
    """

    label: str
    model: str
    model_version: str
    probability: float | None
    threshold: float
    present: bool
    shadow: bool
    reason: str = ""
    area_mm2: float | None = None
    area_fraction: float | None = None
    tracking_uid: str = ""
    similar: tuple[SimilarRecord, ...] = ()
    side: str = ""
    zones: str = ""
    lung_share: float | None = None
    lesions: tuple[LesionRecord, ...] = ()
    placed_by: str = ""
    lungs_by: str = ""

    @property
    def answered(self) -> bool:
        """Whether it says anything that counts: it is not in shadow, and its model could tell."""
        return not self.shadow and (self.present or self.probability is not None)

    @property
    def tracking_uids(self) -> tuple[str, ...]:
        """All that our SEG and SR call it and its places."""
        return (self.tracking_uid, *(lesion.tracking_uid for lesion in self.lesions))


NOTE = "note"
"""Kind of a result that is a rejection note of our own."""

FOR_QUALITY, FOR_SAFETY, FOR_RETENTION = "113001", "113037", "113039"
"""Titles (DCM; PS3.16 CID 7031) of a rejection note: for what a newer revision replaces, and for what was made of an
image that was replaced, whose patient or side may have been wrong."""


@dataclass(frozen=True, slots=True)
class StaleObject:
    """An object of ours that a destination holds, or may hold, and that is not right any more.

    ``code`` is the title (DCM) of the rejection note that it needs, ``reason`` says it to a person.
    """

    delivery_id: int
    destination: str
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """One encoded object: its UID and where its bytes lie (relative to the store folder)."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    digest: str
    path: str
    byte_count: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a finished job leaves, written in one transaction with its deliveries.

    ``not_analysed``: why the pixels were not analysed. ``destinations`` maps a destination's name to the kinds it
    takes, and ``recorded`` says why nothing is sent to them for the time being.
    ``modes`` says of each model what became of its findings (active, shadow or off), ``measures`` is what can be said
    of the image cheaply (see :mod:`workers.image_measures`), ``ran_on`` the device of the networks. ``route`` replaces
    the stored decision of the routing rules, where ``decided_anew``. ``patient`` is that of the :class:`Job`: whom the
    results name.
    """

    findings: tuple[FindingRecord, ...] = ()
    results: tuple[ResultRecord, ...] = ()
    not_analysed: NotEligible | None = None
    timings: dict[str, float] = field(default_factory=dict)
    destinations: dict[str, tuple[str, ...]] = field(default_factory=dict)
    recorded: str = ""
    modes: dict[str, str] = field(default_factory=dict)
    measures: dict[str, float | str] = field(default_factory=dict)
    ran_on: str = ""
    route: Route | None = None
    decided_anew: bool = False
    patient: PatientIdentity | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as a worker claims it, with what the source said about its patient when the result was made.

    ``missing``: how often the destination has said that it does not hold the object though it took it; ``lost``: how
    many claims in a row, before this one, ended with their process; ``refused``: at how many attempts it answered, and
    could not take the object then. ``digest`` is the SHA-256 of the file at ``path``, and ``made_at`` when that was
    recorded.
    """

    id: int
    result_id: int
    destination: str
    state: DeliveryState
    attempts: int
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    study_id: int
    study_instance_uid: str
    patient_id: str
    job_id: int | None
    missing: int = 0
    lost: int = 0
    refused: int = 0
    series_instance_uid: str = ""
    digest: str = ""
    made_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Unverified:
    """An object that a destination has taken, while it is asked whether it holds it.

    ``attempts``: how often it was asked, this time included; ``missing``: how often it said no before;
    ``transaction_uid``: names this question.
    """

    id: int
    destination: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    attempts: int
    missing: int
    transaction_uid: str


@dataclass(frozen=True, slots=True)
class PriorFinding:
    """What an earlier study of the same patient says of a label, analysed by a model that counts.

    ``present`` is False where the model saw nothing or a reader has rejected it. ``study_date`` is as in the header.
    """

    label: str
    present: bool
    study_date: str
    received_at: datetime
    side: str = ""


@dataclass(frozen=True, slots=True)
class ComparableFinding:
    """A finding with its image, to be compared with the same finding on another film.

    ``rejected``: a reader has said that it is not there. ``view`` is that of the image, in the words of its header.
    """

    finding: FindingRecord
    rejected: bool
    view: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True)
class PriorStudy:
    """An earlier analysed study of the same patient, with its findings (none in shadow)."""

    study_instance_uid: str
    study_date: str
    findings: tuple[ComparableFinding, ...]


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What triage needs to know of a study: pure policy input.

    ``jobs_waiting`` counts jobs on hold too. ``activity`` goes up with everything that happens to the images: who
    completes the study hands it back, so that nothing which came since is left out. ``revision`` counts the summaries
    so far. ``priors`` are looked up only where something is present. ``returned_at``: when an image came after the
    report and brought the study back to the list, if that was the last thing that happened to its report.
    ``not_eligible_reasons`` say why images were not analysed, those that were tried first; they are looked up only
    where one was tried in vain or none was analysed. ``pulled``: the study came because a backfill asked for it;
    ``only_prior``: to compare a newer one with it. ``decision`` is what triage decided last, without notifications.
    """

    study_id: int
    first_received_at: datetime
    stat: bool
    hospital_priority: Priority | None
    findings: tuple[FindingRecord, ...]
    jobs_waiting: int
    jobs_done: int
    jobs_failed: int
    images_not_eligible: int
    images_not_analysed: int
    activity: int = 0
    revision: int = 0
    reported: bool = False
    study_date: str = ""
    priors: tuple[PriorFinding, ...] = ()
    returned_at: datetime | None = None
    not_eligible_reasons: tuple[NotEligible, ...] = ()
    pulled: bool = False
    only_prior: bool = False
    decision: TriageDecision | None = None


@dataclass(frozen=True, slots=True)
class TriageDecision:
    """What triage decides: never lower than the hospital's own priority.

    ``notifications`` are the findings that somebody must be told of at once; what the hospital asked for itself is
    none.
    """

    priority: Priority
    due_at: datetime
    analysis: Analysis
    reason: str
    notifications: tuple[FindingRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class ExpiredStudy:
    """A study that needs its files no longer; ``paths`` are relative to the store folder.

    ``activity`` as in :class:`StudyFacts`, when it was found.
    """

    study_id: int
    paths: tuple[str, ...]
    activity: int = 0
