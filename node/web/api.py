"""The JSON API: the same functions as the page, for programs. It needs a token or the session of a logged-in user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from db import studies, study_status
from db.assessments import Unmatched, unmatched
from db.audit import AuditEntry
from db.errors import RecordNotFoundError
from db.feedback import Agreement, FeedbackRecord, IdentifiedFinding
from db.model_states import ModelState, Switch, model_history
from db.queries import study_details
from db.queries.statistics import Failure, RunningWorker
from db.queries.worklist import Order, Show
from db.records import Priority, StudyDetail, WorklistRow
from db.user_tables import Role, Verdict
from node.monitoring.drift import DriftReport, drift_report
from node.web import formatting
from node.web.api_operation import Operation, Strict, body_of, query_of
from node.web.middleware import Endpoint, RequestContext
from node.web.openapi import describe
from node.web.pages.models import known_models
from node.web.pages.system import notification_counts

PREFIX = "/api/v1"
STUDY = PREFIX + "/studies/{study:row}"


class WorklistQuery(Strict):
    """Which part of the worklist to return."""

    show: Show = Show.UNREPORTED
    """Part of the worklist."""
    order: Order = Order.DUE
    """Sort key."""
    descending: bool = False
    """Reverse the order."""
    search: str = Field(default="", max_length=100)
    """Text in name or description, or the beginning of patient ID or accession number."""
    limit: int = Field(default=50, ge=1, le=200)
    """Number of rows to return."""
    offset: int = Field(default=0, ge=0, le=1_000_000)
    """Number of rows to skip."""


class PageQuery(Strict):
    """Which part of a long list to return."""

    limit: int = Field(default=100, ge=1, le=500)
    """Number of rows to return."""
    offset: int = Field(default=0, ge=0, le=1_000_000)
    """Number of rows to skip."""


class PriorityBody(Strict):
    """The hospital's priority."""

    priority: Priority | None
    """Lower limit of the triage priority; null removes it."""


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


class SwitchBody(Strict):
    """How a model's findings are used from now on."""

    state: ModelState
    """Active: findings are delivered and used for triage. Shadow: stored and compared. Off: only stored."""
    reason: str = Field(min_length=1, max_length=400)
    """Reason for the change, in one sentence."""


class DriftQuery(Strict):
    """Which part of the drift report to return."""

    weeks: int = Field(default=8, ge=1, le=104)
    """Number of ISO weeks, including the current one."""
    model: str = Field(default="", max_length=64)
    """Limit the report to this model and to the images."""


class Worklist(BaseModel):
    """A part of the worklist."""

    studies: tuple[WorklistRow, ...]
    counts: dict[str, int]


class StudyAnswer(BaseModel):
    """A study with all its details."""

    study: StudyDetail
    findings: tuple[IdentifiedFinding, ...]
    feedback: tuple[FeedbackRecord, ...]
    hospital_priority: Priority | None


class SystemAnswer(BaseModel):
    """State of the node."""

    queue: dict[str, int]
    oldest_job_seconds: float
    overdue: int
    workers: tuple[RunningWorker, ...]
    failures: tuple[Failure, ...]
    agreement: tuple[Agreement, ...]
    notifications: dict[str, dict[str, int]]
    assessments_unmatched: tuple[Unmatched, ...]


class ModelAnswer(BaseModel):
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


class ModelsAnswer(BaseModel):
    """The models of this node."""

    models: tuple[ModelAnswer, ...]


class DriftAnswer(BaseModel):
    """Figures on models, images and readers for each ISO week, the latest first."""

    report: DriftReport


class SwitchAnswer(BaseModel):
    """Whether the state changed, and how many deliveries were put on hold and notifications cancelled."""

    changed: bool
    on_hold: int
    cancelled: int


class AuditAnswer(BaseModel):
    """A part of the audit trail, the latest first."""

    entries: tuple[AuditEntry, ...]


class StudyName(BaseModel):
    """Attributes by which a person identifies a study."""

    id: int
    study_instance_uid: str
    patient_id: str
    patient_name: str
    accession_number: str
    study_date: str


class Done(BaseModel):
    """The action was done on this study."""

    done: Literal[True] = True
    study: StudyName


def _worklist(context: RequestContext) -> Worklist:
    query = query_of(context, WorklistQuery)
    search = query.search.replace("\x00", "")
    rows = context.services.reading.page(
        show=query.show,
        search=search,
        order=query.order,
        descending=query.descending,
        limit=query.limit,
        offset=query.offset,
    )
    counts = {part.value: number for part, number in context.services.reading.counts().items() if part != Show.REPORTED}
    return Worklist(studies=tuple(_without_name(context, row) for row in rows), counts=counts)


def _without_name(context: RequestContext, row: WorklistRow) -> WorklistRow:
    hidden = context.services.settings.admin.hide_patient_names
    return replace(row, patient_name=formatting.NAME_HIDDEN) if hidden else row


def _study(context: RequestContext) -> StudyAnswer:
    study_id, services = context.number("study"), context.services
    detail = services.database.read(study_details.study_detail, study_id)
    if services.settings.admin.hide_patient_names:
        detail = replace(detail, row=replace(detail.row, patient_name=formatting.NAME_HIDDEN))
    context.audit("view study", "study", study_id, "by the API")
    return StudyAnswer(
        study=detail,
        findings=services.feedback.findings(study_id),
        feedback=services.feedback.of_study(study_id),
        hospital_priority=services.database.read(study_status.hospital_priority, study_id),
    )


def _system(context: RequestContext) -> SystemAnswer:
    services = context.services
    return SystemAnswer(
        queue=services.statistics.queue_counts(),
        oldest_job_seconds=services.statistics.oldest_queued(context.now),
        overdue=services.statistics.overdue(context.now),
        workers=services.statistics.workers(context.now - timedelta(hours=24)),
        failures=services.statistics.failures(),
        agreement=services.feedback.agreement(context.now),
        notifications=notification_counts(services),
        assessments_unmatched=unmatched(services.engine),
    )


def _models(context: RequestContext) -> ModelsAnswer:
    return ModelsAnswer(
        models=tuple(
            ModelAnswer(
                name=shown.name,
                version=shown.spec.version,
                title=shown.spec.title,
                kind=shown.spec.kind.value,
                digest=shown.spec.digest,
                state=shown.use.state,
                configured=shown.use.configured,
                findings=shown.findings,
                positives=shown.positives,
                switches=model_history(context.services.engine, shown.name),
            )
            for shown in known_models(context)
        )
    )


def _switch_model(context: RequestContext) -> SwitchAnswer:
    body = body_of(context, SwitchBody)
    switched = context.actions.switch_model(str(context.request.path_params["name"]), body.state, body.reason)
    return SwitchAnswer(changed=switched.changed, on_hold=switched.on_hold, cancelled=switched.cancelled)


def _drift(context: RequestContext) -> DriftAnswer:
    query = query_of(context, DriftQuery)
    return DriftAnswer(report=drift_report(context.services.counts, context.now, weeks=query.weeks, model=query.model))


def _audit(context: RequestContext) -> AuditAnswer:
    query = query_of(context, PageQuery)
    return AuditAnswer(entries=context.services.audit.entries(limit=query.limit, offset=query.offset))


def _study_action(act: Callable[[RequestContext, int], object]) -> Callable[[RequestContext], BaseModel]:
    """Make an operation on one study, which must exist."""

    def run(context: RequestContext) -> BaseModel:
        study_id = context.number("study")
        context.services.database.read(studies.facts, study_id, context.services.database.rules.patients)
        act(context, study_id)
        row = _without_name(context, context.services.reading.rows([study_id])[0])
        names = {name: getattr(row, name) for name in StudyName.model_fields if name != "id"}
        return Done(study=StudyName(id=study_id, **names))

    return run


def _retry(context: RequestContext, study_id: int) -> None:
    job_id = context.number("job")
    if job_id not in {job.id for job in context.services.database.read(study_details.study_detail, study_id).jobs}:
        raise RecordNotFoundError("job", job_id)
    context.actions.retry_job(study_id, job_id)


def _resend(context: RequestContext, study_id: int) -> None:
    delivery_id = context.number("delivery")
    if delivery_id not in {
        one.id for one in context.services.database.read(study_details.study_detail, study_id).deliveries
    }:
        raise RecordNotFoundError("delivery", delivery_id)
    context.actions.resend(study_id, delivery_id)


def _give_feedback(context: RequestContext, study_id: int) -> None:
    finding_id, body = context.number("finding"), body_of(context, FeedbackBody)
    if finding_id not in {finding.id for finding in context.services.feedback.findings(study_id)}:
        raise RecordNotFoundError("finding", finding_id)
    context.actions.give_feedback(finding_id, body.verdict, body.comment, "api")


def _set_priority(context: RequestContext, study_id: int) -> None:
    context.actions.set_priority(study_id, body_of(context, PriorityBody).priority)


def _hold(context: RequestContext, study_id: int) -> None:
    context.actions.hold(study_id, body_of(context, HoldBody).reason)


VIEWER, RADIOLOGIST, ADMIN = Role.VIEWER, Role.RADIOLOGIST, Role.ADMIN
OPERATIONS = (
    Operation("GET", PREFIX + "/worklist", "Part of the worklist", VIEWER, _worklist, Worklist, WorklistQuery),
    Operation("GET", STUDY, "One study with all its details", VIEWER, _study, StudyAnswer),
    Operation(
        "POST",
        STUDY + "/priority",
        "Set the priority",
        RADIOLOGIST,
        _study_action(_set_priority),
        Done,
        body=PriorityBody,
    ),
    Operation("POST", STUDY + "/hold", "Put a study on hold", RADIOLOGIST, _study_action(_hold), Done, body=HoldBody),
    Operation(
        "POST",
        STUDY + "/release",
        "Release a study",
        RADIOLOGIST,
        _study_action(lambda context, study_id: context.actions.release(study_id)),
        Done,
    ),
    Operation(
        "POST",
        STUDY + "/reported",
        "Mark as reported",
        RADIOLOGIST,
        _study_action(lambda context, study_id: context.actions.report(study_id)),
        Done,
    ),
    Operation(
        "POST",
        STUDY + "/unreported",
        "Mark as unreported",
        RADIOLOGIST,
        _study_action(lambda context, study_id: context.actions.undo_report(study_id)),
        Done,
    ),
    Operation("POST", STUDY + "/jobs/{job:row}/retry", "Run a job again", RADIOLOGIST, _study_action(_retry), Done),
    Operation(
        "POST", STUDY + "/deliveries/{delivery:row}/resend", "Send again", RADIOLOGIST, _study_action(_resend), Done
    ),
    Operation(
        "POST",
        STUDY + "/findings/{finding:row}/feedback",
        "Give a verdict on a finding",
        RADIOLOGIST,
        _study_action(_give_feedback),
        Done,
        body=FeedbackBody,
    ),
    Operation("GET", PREFIX + "/system", "State of the node", RADIOLOGIST, _system, SystemAnswer),
    Operation("GET", PREFIX + "/drift", "Drift, agreement, comparison", RADIOLOGIST, _drift, DriftAnswer, DriftQuery),
    Operation("GET", PREFIX + "/models", "The models and their state", RADIOLOGIST, _models, ModelsAnswer),
    Operation(
        "POST",
        PREFIX + "/models/{name:str}/state",
        "Set the state of a model",
        ADMIN,
        _switch_model,
        SwitchAnswer,
        body=SwitchBody,
    ),
    Operation("GET", PREFIX + "/audit", "The audit trail", ADMIN, _audit, AuditAnswer, PageQuery),
)


def api_endpoints() -> tuple[Endpoint, ...]:
    """The routes of the API, including its OpenAPI document."""
    described = describe(OPERATIONS)

    def openapi(context: RequestContext) -> Response:
        del context
        return JSONResponse(described)

    return (
        Endpoint("GET", PREFIX + "/openapi.json", openapi, Role.VIEWER, api=True),
        *(operation.endpoint() for operation in OPERATIONS),
    )
