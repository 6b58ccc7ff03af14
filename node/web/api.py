"""The operations of the JSON API: the same services as the page, for programs.

FastAPI reads parameters, bodies and answers from the annotations. :mod:`node.web.routes` has the path and the least
role of each operation; :mod:`node.web.api_app` authenticates before any of them runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Path, Query, Request

from db import feedback, study_status
from db.assessments import unmatched
from db.errors import RecordNotFoundError
from db.model_states import model_history
from db.queries import study_details
from db.queries.erasure import ErasurePlan, erasure_plan
from db.queries.problems import Selection, problems
from db.queries.worklist import WorklistPart
from db.shown_records import WorklistRow
from node.monitoring.drift import drift_report, reader_verdicts, weeks_before
from node.web import formatting
from node.web.api_models import (
    AuditAnswer,
    Done,
    DriftAnswer,
    DriftQuery,
    EraseBody,
    ErasureAnswer,
    FeedbackBody,
    HoldBody,
    ModelAnswer,
    ModelsAnswer,
    PageQuery,
    PriorityBody,
    ProblemsAnswer,
    RetryAnswer,
    RetryBody,
    Studies,
    StudyAnswer,
    StudyName,
    StudyQuery,
    SwitchAnswer,
    SwitchBody,
    SystemAnswer,
    Worklist,
    WorklistQuery,
)
from node.web.middleware import RequestContext
from node.web.pages.models import known_models
from node.web.pages.system import notification_counts
from workers.services.actions import Actions
from workers.services.erasure import check_confirmation, deidentified_folders, held_by_others, noted_first

LARGEST_ROW = 2**31 - 1
_WEEKS = 8


async def context_of(request: Request) -> RequestContext:
    """The context of a request that was admitted."""
    context: RequestContext = request.state.context
    return context


Context = Annotated[RequestContext, Depends(context_of)]


def _study_id(
    context: Context,
    study: Annotated[
        str,
        Path(
            pattern=r"^([0-9]{1,10}|[0-9]+(\.[0-9]+)+)$",
            max_length=64,
            description="Row number of the study, or its Study Instance UID.",
            examples=["3", "1.2.826.0.1.3680043.8.498.1"],
        ),
    ],
) -> int:
    return context.services.database.read(study_details.study_id_of, study)


Row = Annotated[int, Path(ge=1, le=LARGEST_ROW)]
Study = Annotated[int, Depends(_study_id)]


def read_worklist(context: Context, query: Annotated[WorklistQuery, Query()]) -> Worklist:
    """Part of the worklist."""
    rows = context.services.worklist.page(
        show=query.show,
        filters=query.filters,
        order=query.order,
        descending=query.descending,
        limit=query.limit,
        offset=query.offset,
    )
    counts = {
        part.value: number
        for part, number in context.services.worklist.counts().items()
        if part != WorklistPart.REPORTED
    }
    return Worklist(studies=_as_shown(context, rows), counts=counts)


def _as_shown(context: RequestContext, rows: tuple[WorklistRow, ...]) -> tuple[WorklistRow, ...]:
    """The rows without patient names if the settings hide them."""
    if not context.services.settings.admin.hide_patient_names:
        return rows
    return tuple(replace(row, patient_name=formatting.NAME_HIDDEN) for row in rows)


def find_studies(context: Context, query: Annotated[StudyQuery, Query()]) -> Studies:
    """Studies by Study Instance UID or accession number."""
    found = context.services.database.read(
        study_details.studies_named, query.study_instance_uid.strip(), query.accession_number.strip()
    )
    return Studies(studies=_as_shown(context, context.services.worklist.rows(found)))


def read_study(context: Context, study: Study) -> StudyAnswer:
    """One study with all its details."""
    services = context.services
    detail = services.database.read(study_details.study_detail, study)
    context.audit("view study", "study", study, "by the API")
    return StudyAnswer(
        study=replace(detail, row=_as_shown(context, (detail.row,))[0]),
        findings=services.database.read(feedback.findings, study),
        feedback=services.database.read(feedback.of_study, study),
        hospital_priority=services.database.read(study_status.hospital_priority, study),
    )


def set_priority(context: Context, study: Study, body: PriorityBody) -> Done:
    """Set the hospital's priority."""
    return _done(context, study, lambda actions: actions.set_priority(study, body.priority))


def hold_study(context: Context, study: Study, body: HoldBody) -> Done:
    """Put a study on hold."""
    return _done(context, study, lambda actions: actions.hold(study, body.reason))


def release_study(context: Context, study: Study) -> Done:
    """Release a study that is on hold."""
    return _done(context, study, lambda actions: actions.release(study))


def mark_reported(context: Context, study: Study) -> Done:
    """Mark a study as reported."""
    return _done(context, study, lambda actions: actions.report(study))


def mark_unreported(context: Context, study: Study) -> Done:
    """Mark a study as unreported."""
    return _done(context, study, lambda actions: actions.undo_report(study))


def retry_job(context: Context, study: Study, job: Row) -> Done:
    """Run a job again."""
    if job not in {one.id for one in context.services.database.read(study_details.study_detail, study).jobs}:
        raise RecordNotFoundError("job", job)
    return _done(context, study, lambda actions: actions.retry_job(study, job))


def resend_delivery(context: Context, study: Study, delivery: Row) -> Done:
    """Send a result to its destination again."""
    known = context.services.database.read(study_details.study_detail, study).deliveries
    if delivery not in {one.id for one in known}:
        raise RecordNotFoundError("delivery", delivery)
    return _done(context, study, lambda actions: actions.resend(study, delivery))


def give_feedback(context: Context, study: Study, finding: Row, body: FeedbackBody) -> Done:
    """Give a verdict on a finding."""
    if finding not in {one.id for one in context.services.database.read(feedback.findings, study)}:
        raise RecordNotFoundError("finding", finding)
    return _done(context, study, lambda actions: actions.give_feedback(finding, body.verdict, body.comment, "api"))


def _done(context: RequestContext, study_id: int, act: Callable[[Actions], object]) -> Done:
    """Act on a study, and name it."""
    act(context.actions)
    row = _as_shown(context, context.services.worklist.rows([study_id]))[0]
    names = {name: getattr(row, name) for name in StudyName.model_fields if name != "id"}
    return Done(study=StudyName(id=study_id, **names))


def read_erasure(context: Context, study: Study) -> ErasureAnswer:
    """What erasing a study would remove, and what others hold of it."""
    plan = context.services.database.read(erasure_plan, study, context.now)
    context.audit("view study", "study", study, "before erasing, by the API")
    return _erasure(context, plan)


def erase_study(context: Context, study: Study, body: EraseBody) -> ErasureAnswer:
    """Erase a study: it is on hold at once, and gone when nothing of it is under way."""
    plan = context.services.database.read(erasure_plan, study, context.now)
    check_confirmation(plan, body.confirmation)
    context.actions.erase(study, body.reason)
    return _erasure(context, replace(plan, requested=True))


def _erasure(context: RequestContext, plan: ErasurePlan) -> ErasureAnswer:
    services = context.services
    folders = deidentified_folders(plan, services.settings, services.database)
    shown = formatting.NAME_HIDDEN if services.settings.admin.hide_patient_names else plan.patient_name
    held = held_by_others(plan, services.settings)
    erasure = replace(plan, patient_name=shown, held=held)
    return ErasureAnswer(erasure=erasure, deidentified=folders, noted_first=noted_first(services.settings))


def read_system(context: Context) -> SystemAnswer:
    """State of the node."""
    services = context.services
    return SystemAnswer(
        queue=services.statistics.queue_counts(),
        oldest_job_seconds=services.statistics.oldest_queued(context.now),
        overdue=services.statistics.overdue(context.now),
        workers=services.statistics.workers(context.now - timedelta(hours=24)),
        failures=services.statistics.failures(),
        agreement=reader_verdicts(services.counts.monitoring, weeks_before(context.now, _WEEKS)),
        notifications=notification_counts(services),
        assessments_unmatched=unmatched(services.engine),
    )


def read_problems(context: Context) -> ProblemsAnswer:
    """What fails, by cause and destination."""
    return ProblemsAnswer(problems=context.services.database.read(problems))


def retry_problems(context: Context, body: RetryBody) -> RetryAnswer:
    """Try again what fails."""
    done = context.actions.retry_all(Selection(body.entity or "", body.destination, body.cause))
    return RetryAnswer(jobs=done.jobs, deliveries=done.deliveries, left=done.left)


def read_drift(context: Context, query: Annotated[DriftQuery, Query()]) -> DriftAnswer:
    """Drift of models and images, agreement with readers, comparison of models."""
    return DriftAnswer(report=drift_report(context.services.counts, context.now, weeks=query.weeks, model=query.model))


def read_models(context: Context) -> ModelsAnswer:
    """The models and their state."""
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


def switch_model(
    context: Context,
    name: Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,64}$", description="Name of the model.")],
    body: SwitchBody,
) -> SwitchAnswer:
    """Set the state of a model."""
    switched = context.actions.switch_model(name, body.state, body.reason)
    return SwitchAnswer(changed=switched.changed, on_hold=switched.on_hold, cancelled=switched.cancelled)


def read_audit(context: Context, query: Annotated[PageQuery, Query()]) -> AuditAnswer:
    """The audit trail."""
    return AuditAnswer(entries=context.services.audit.entries(limit=query.limit, offset=query.offset))
