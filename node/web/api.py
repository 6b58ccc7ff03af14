"""The JSON API: the same as the page, for programs. A token is needed, or the session of a logged-in user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from db.assessments import Unmatched, unmatched
from db.audit import AuditEntry
from db.errors import DatabaseError, RecordNotFoundError
from db.feedback import Agreement, FeedbackRecord, IdentifiedFinding
from db.model_states import ModelState, Switch, model_history
from db.queries.statistics import Failure, RunningWorker
from db.queries.worklist import ListedStudy, Order, Show
from db.records import Priority, StudyDetail
from db.user_tables import Role, Verdict
from node.monitoring.drift import Watch, watch
from node.web import actions, formatting
from node.web.middleware import Endpoint, Visit
from node.web.openapi import describe
from node.web.pages.models import known_models
from node.web.pages.system import alarm_counts

PREFIX = "/api/v1"
STUDY = PREFIX + "/studies/{study:row}"
Body = TypeVar("Body", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class WorklistQuery(_Strict):
    """What part of the worklist to give."""

    show: Show = Show.UNREAD
    """Part of the worklist."""
    order: Order = Order.DUE
    """What to sort by."""
    descending: bool = False
    """Sort the other way round."""
    search: str = Field(default="", max_length=100)
    """Words in name or description, or the beginning of patient ID or accession number."""
    limit: int = Field(default=50, ge=1, le=200)
    """Rows to give."""
    offset: int = Field(default=0, ge=0, le=1_000_000)
    """Rows to leave out."""


class PageQuery(_Strict):
    """What part of a long list to give."""

    limit: int = Field(default=100, ge=1, le=500)
    """Rows to give."""
    offset: int = Field(default=0, ge=0, le=1_000_000)
    """Rows to leave out."""


class NoQuery(_Strict):
    """Nothing can be asked for in the address."""


class PriorityBody(_Strict):
    """The hospital's priority."""

    priority: Priority | None
    """Triage never goes below it; null leaves it to triage."""


class HoldBody(_Strict):
    """Why a study is held."""

    reason: str = Field(min_length=1, max_length=200)
    """One sentence for whoever finds it held."""


class FeedbackBody(_Strict):
    """What a reader thinks of a finding."""

    verdict: Verdict
    """Accept, modify or reject."""
    comment: str = Field(default="", max_length=2000)
    """What is right or wrong about it."""


class SwitchBody(_Strict):
    """What becomes of a model's findings from now on."""

    state: ModelState
    """Active: delivered and counted. Shadow: stored and compared. Off: stored, nothing else."""
    reason: str = Field(min_length=1, max_length=400)
    """One sentence for whoever finds it so."""


class DriftQuery(_Strict):
    """What part of the report on drift to give."""

    weeks: int = Field(default=8, ge=1, le=104)
    """ISO weeks to look back, with this one."""
    model: str = Field(default="", max_length=64)
    """Only what is about this model, and about the images."""


class Worklist(BaseModel):
    """A part of the worklist."""

    studies: tuple[ListedStudy, ...]
    counts: dict[str, int]


class StudyAnswer(BaseModel):
    """A study with everything that is known of it."""

    study: StudyDetail
    findings: tuple[IdentifiedFinding, ...]
    feedback: tuple[FeedbackRecord, ...]
    hospital_priority: Priority | None
    reported_by: str


class SystemAnswer(BaseModel):
    """How the node is."""

    queue: dict[str, int]
    oldest_job_seconds: float
    overdue: int
    workers: tuple[RunningWorker, ...]
    failures: tuple[Failure, ...]
    agreement: tuple[Agreement, ...]
    alarms: dict[str, dict[str, int]]
    assessments_unmatched: tuple[Unmatched, ...]


class ModelAnswer(BaseModel):
    """A model of this node. ``state`` is active, shadow or off; gate or not configured where it cannot be switched."""

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
    """How models, images and readers have behaved, per ISO week, the latest first."""

    report: Watch


class SwitchAnswer(BaseModel):
    """Whether anything changed, how many deliveries wait for a person now, and how many alarms were withdrawn."""

    changed: bool
    held: int
    silenced: int


class AuditAnswer(BaseModel):
    """A part of the audit trail, the latest first."""

    entries: tuple[AuditEntry, ...]


class StudyName(BaseModel):
    """What a person tells a study from others by."""

    id: int
    study_instance_uid: str
    patient_id: str
    patient_name: str
    accession_number: str
    study_date: str


class Done(BaseModel):
    """It is done, to this study."""

    done: Literal[True] = True
    study: StudyName


@dataclass(frozen=True)
class Operation:
    """One operation of the API: its route, what it takes and gives, and who may."""

    method: str
    path: str
    summary: str
    role: Role
    run: Callable[[Visit], BaseModel]
    answer: type[BaseModel]
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None

    def endpoint(self) -> Endpoint:
        """The route of this operation; what was asked for wrongly is answered with 422, a refusal with 409."""

        def handle(visit: Visit) -> Response:
            try:
                _parsed(self.query, dict(visit.request.query_params))
                made = self.run(visit)
            except RecordNotFoundError as error:
                raise HTTPException(404, str(error)) from error
            except DatabaseError as error:
                raise HTTPException(409, str(error)) from error
            return JSONResponse(made.model_dump(mode="json"))

        return Endpoint(self.method, self.path, handle, self.role, api=True)


def _parsed(kind: type[Body], values: Any) -> Body:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise HTTPException(422, f"{place}: {first['msg']}") from error


def _body(visit: Visit, kind: type[Body]) -> Body:
    return _parsed(kind, visit.body)


def _query(visit: Visit, kind: type[Body]) -> Body:
    return _parsed(kind, dict(visit.request.query_params))


def _worklist(visit: Visit) -> Worklist:
    asked = _query(visit, WorklistQuery)
    search = asked.search.replace("\x00", "")
    rows = visit.services.reading.page(
        show=asked.show,
        search=search,
        order=asked.order,
        descending=asked.descending,
        limit=asked.limit,
        offset=asked.offset,
    )
    counts = {part.value: number for part, number in visit.services.reading.counts().items() if part != Show.REPORTED}
    return Worklist(studies=tuple(_veiled(visit, row) for row in rows), counts=counts)


def _veiled(visit: Visit, row: ListedStudy) -> ListedStudy:
    hidden = visit.services.settings.admin.hide_patient_names
    return replace(row, patient_name=formatting.NAME_HIDDEN) if hidden else row


def _study(visit: Visit) -> StudyAnswer:
    study_id, services = visit.number("study"), visit.services
    detail = services.worklist.study_detail(study_id)
    if services.settings.admin.hide_patient_names:
        detail = replace(detail, row=replace(detail.row, patient_name=formatting.NAME_HIDDEN))
    visit.audit("view study", "study", study_id, "by the API")
    return StudyAnswer(
        study=detail,
        findings=services.feedback.findings(study_id),
        feedback=services.feedback.of_study(study_id),
        hospital_priority=services.reporting.hospital_priority(study_id),
        reported_by=services.reading.rows([study_id])[0].reported_by,
    )


def _system(visit: Visit) -> SystemAnswer:
    services = visit.services
    return SystemAnswer(
        queue=services.statistics.queue_counts(),
        oldest_job_seconds=services.statistics.oldest_queued(visit.now),
        overdue=services.statistics.overdue(visit.now),
        workers=services.statistics.workers(visit.now - timedelta(hours=24)),
        failures=services.statistics.failures(),
        agreement=services.feedback.agreement(visit.now),
        alarms=alarm_counts(services),
        assessments_unmatched=unmatched(services.engine),
    )


def _models(visit: Visit) -> ModelsAnswer:
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
                switches=model_history(visit.services.engine, shown.name),
            )
            for shown in known_models(visit)
        )
    )


def _switch_model(visit: Visit) -> SwitchAnswer:
    asked = _body(visit, SwitchBody)
    done = actions.switch_model(visit, str(visit.request.path_params["name"]), asked.state, asked.reason)
    return SwitchAnswer(changed=done.changed, held=done.held, silenced=done.silenced)


def _drift(visit: Visit) -> DriftAnswer:
    asked = _query(visit, DriftQuery)
    return DriftAnswer(report=watch(visit.services.counts, visit.now, weeks=asked.weeks, model=asked.model))


def _audit(visit: Visit) -> AuditAnswer:
    asked = _query(visit, PageQuery)
    return AuditAnswer(entries=visit.services.audit.entries(limit=asked.limit, offset=asked.offset))


def _steer(act: Callable[[Visit, int], None]) -> Callable[[Visit], BaseModel]:
    """An operation on one study, which must be there."""

    def run(visit: Visit) -> BaseModel:
        study_id = visit.number("study")
        visit.services.worklist.study_facts(study_id)
        act(visit, study_id)
        row = _veiled(visit, visit.services.reading.rows([study_id])[0])
        names = {name: getattr(row, name) for name in StudyName.model_fields if name != "id"}
        return Done(study=StudyName(id=study_id, **names))

    return run


def _retry(visit: Visit, study_id: int) -> None:
    job_id = visit.number("job")
    if job_id not in {job.id for job in visit.services.worklist.study_detail(study_id).jobs}:
        raise RecordNotFoundError("job", job_id)
    actions.retry_job(visit, study_id, job_id)


def _resend(visit: Visit, study_id: int) -> None:
    delivery_id = visit.number("delivery")
    if delivery_id not in {one.id for one in visit.services.worklist.study_detail(study_id).deliveries}:
        raise RecordNotFoundError("delivery", delivery_id)
    actions.send_again(visit, study_id, delivery_id)


def _give_feedback(visit: Visit, study_id: int) -> None:
    finding_id, body = visit.number("finding"), _body(visit, FeedbackBody)
    if finding_id not in {finding.id for finding in visit.services.feedback.findings(study_id)}:
        raise RecordNotFoundError("finding", finding_id)
    actions.judge_finding(visit, finding_id, body.verdict, body.comment, "api")


def _set_priority(visit: Visit, study_id: int) -> None:
    actions.set_priority(visit, study_id, _body(visit, PriorityBody).priority)


def _hold(visit: Visit, study_id: int) -> None:
    actions.hold(visit, study_id, _body(visit, HoldBody).reason)


VIEWER, RADIOLOGIST, ADMIN = Role.VIEWER, Role.RADIOLOGIST, Role.ADMIN
OPERATIONS = (
    Operation("GET", PREFIX + "/worklist", "Part of the worklist", VIEWER, _worklist, Worklist, WorklistQuery),
    Operation("GET", STUDY, "One study with everything", VIEWER, _study, StudyAnswer),
    Operation(
        "POST",
        STUDY + "/priority",
        "Set the priority",
        RADIOLOGIST,
        _steer(_set_priority),
        Done,
        body=PriorityBody,
    ),
    Operation("POST", STUDY + "/hold", "Hold a study", RADIOLOGIST, _steer(_hold), Done, body=HoldBody),
    Operation("POST", STUDY + "/release", "Release a study", RADIOLOGIST, _steer(actions.release), Done),
    Operation("POST", STUDY + "/reported", "Take off the worklist", RADIOLOGIST, _steer(actions.report), Done),
    Operation("POST", STUDY + "/unread", "Put back", RADIOLOGIST, _steer(actions.make_unread), Done),
    Operation("POST", STUDY + "/jobs/{job:row}/retry", "Run a job again", RADIOLOGIST, _steer(_retry), Done),
    Operation("POST", STUDY + "/deliveries/{delivery:row}/resend", "Send again", RADIOLOGIST, _steer(_resend), Done),
    Operation(
        "POST",
        STUDY + "/findings/{finding:row}/feedback",
        "Say what you think of a finding",
        RADIOLOGIST,
        _steer(_give_feedback),
        Done,
        body=FeedbackBody,
    ),
    Operation("GET", PREFIX + "/system", "How the node is", RADIOLOGIST, _system, SystemAnswer),
    Operation("GET", PREFIX + "/drift", "Drift, agreement, comparison", RADIOLOGIST, _drift, DriftAnswer, DriftQuery),
    Operation("GET", PREFIX + "/models", "The models and their state", RADIOLOGIST, _models, ModelsAnswer),
    Operation(
        "POST",
        PREFIX + "/models/{name:str}/state",
        "Switch a model",
        ADMIN,
        _switch_model,
        SwitchAnswer,
        body=SwitchBody,
    ),
    Operation("GET", PREFIX + "/audit", "The audit trail", ADMIN, _audit, AuditAnswer, PageQuery),
)


def api_endpoints() -> tuple[Endpoint, ...]:
    """The routes of the API, its own description included."""
    described = describe(OPERATIONS)

    def openapi(visit: Visit) -> Response:
        del visit
        return JSONResponse(described)

    return (
        Endpoint("GET", PREFIX + "/openapi.json", openapi, Role.VIEWER, api=True),
        *(operation.endpoint() for operation in OPERATIONS),
    )
