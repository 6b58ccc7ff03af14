"""Actions on a study, a job, a delivery or a finding, shared by the page and the API.

Each changes the database, writes the audit trail, and enqueues the work that follows. Errors are those of
:mod:`db.errors`.
"""

from __future__ import annotations

from db import deliveries, holds, jobs
from db.errors import RecordNotFoundError
from db.model_states import ModelState, Switched, set_model_state
from db.records import Priority
from db.user_tables import Verdict
from node.web.dependencies import Services
from node.web.middleware import RequestContext
from workers.open_database import triage_study


def retry_job(context: RequestContext, study_id: int, job_id: int) -> None:
    """Run a job again."""
    context.services.database.write(jobs.requeue, job_id, context.actor, "requested on the admin page", context.now)
    context.services.task_queue.enqueue_jobs([(job_id, False)])
    context.audit("retry job", f"job {job_id}", study_id)
    triage_again(context.services, study_id, context)


def send_again(context: RequestContext, study_id: int, delivery_id: int) -> None:
    """Send a delivery again."""
    context.services.database.write(
        deliveries.requeue, delivery_id, context.actor, "requested on the admin page", context.now
    )
    context.services.task_queue.enqueue_deliveries([delivery_id])
    context.audit("re-send", f"delivery {delivery_id}", study_id)


def hold(context: RequestContext, study_id: int, reason: str) -> None:
    """Put a study and everything of it that has not been sent on hold."""
    reason = reason.strip()[:200] or "put on hold by hand"
    context.services.database.write(holds.hold, study_id, reason, context.actor, context.now)
    context.audit("hold", "study", study_id, reason)


def release(context: RequestContext, study_id: int) -> None:
    """Release a study on hold."""
    job_ids = context.services.database.write(holds.release, study_id, context.actor, context.now)
    context.services.task_queue.enqueue_jobs([(job_id, False) for job_id in job_ids])
    context.audit("release", "study", study_id)
    triage_again(context.services, study_id, context)


def report(context: RequestContext, study_id: int) -> None:
    """Mark a study as reported; it leaves the worklist."""
    context.services.reporting.mark_reported(study_id, context.now, actor=context.actor, cause="marked as reported")
    context.audit("reported", "study", study_id)


def mark_unreported(context: RequestContext, study_id: int) -> None:
    """Put a reported study back on the worklist."""
    context.services.reporting.mark_unreported(study_id, context.now, actor=context.actor, cause="marked as unreported")
    context.audit("unreported", "study", study_id)
    triage_again(context.services, study_id, context)


def set_priority(context: RequestContext, study_id: int, priority: Priority | None) -> None:
    """Set the hospital's priority, or remove it; the worklist is updated at once."""
    chosen = priority.value if priority else "by triage"
    context.services.reporting.set_priority(study_id, priority, context.now, actor=context.actor, cause="set by hand")
    context.audit("set priority", "study", study_id, chosen)
    triage_again(context.services, study_id, context)


def give_feedback_on(context: RequestContext, finding_id: int, verdict: Verdict, comment: str, source: str) -> None:
    """Store a reader's verdict on a finding."""
    context.services.feedback.give(
        finding_id,
        verdict,
        context.now,
        actor=context.actor,
        comment=comment,
        source=source,
        address=context.address,
    )


def switch_model(context: RequestContext, name: str, state: ModelState, reason: str) -> Switched:
    """Set a model's state for all jobs that start from now on, and write the audit trail.

    Raises:
        RecordNotFoundError: there is no such model on this node, or it is the input quality check.
    """
    configured = context.services.settings.models
    if name not in (*configured.active, *configured.shadow):
        raise RecordNotFoundError("model that delivers findings", name)
    return set_model_state(
        context.services.engine,
        name,
        state,
        actor=context.actor,
        reason=reason,
        now=context.now,
        address=context.address,
    )


def triage_again(services: Services, study_id: int, context: RequestContext) -> None:
    """Repeat the triage decision with the current facts."""
    triage_study(study_id, services.database, services.settings.triage, context.now)
