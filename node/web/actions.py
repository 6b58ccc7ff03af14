"""What a person can do to a study, a job, a delivery or a finding: the same for the page and for the API.

Each does it, writes the audit trail, and rings where there is work. Errors are those of :mod:`db.errors`.
"""

from __future__ import annotations

from db.errors import RecordNotFoundError
from db.model_states import ModelState, Switched, set_model_state
from db.records import Priority
from db.user_tables import Verdict
from node.web.dependencies import Services
from node.web.middleware import Visit
from workers.open_worklist import triage_study


def retry_job(visit: Visit, study_id: int, job_id: int) -> None:
    """Run a job again."""
    visit.services.worklist.requeue_job(job_id, visit.actor, "asked for on the admin page", visit.now)
    visit.services.doorbell.ring_jobs([(job_id, False)])
    visit.audit("retry job", f"job {job_id}", study_id)
    triage_again(visit.services, study_id, visit)


def send_again(visit: Visit, study_id: int, delivery_id: int) -> None:
    """Send a delivery again."""
    visit.services.worklist.requeue_delivery(delivery_id, visit.actor, "asked for on the admin page", visit.now)
    visit.services.doorbell.ring_deliveries([delivery_id])
    visit.audit("re-send", f"delivery {delivery_id}", study_id)


def hold(visit: Visit, study_id: int, reason: str) -> None:
    """Hold a study and all of it that has not left yet."""
    reason = reason.strip()[:200] or "held by hand"
    visit.services.worklist.hold_study(study_id, reason, visit.actor, visit.now)
    visit.audit("hold", "study", study_id, reason)


def release(visit: Visit, study_id: int) -> None:
    """Release a held study."""
    jobs = visit.services.worklist.release_study(study_id, visit.actor, visit.now)
    visit.services.doorbell.ring_jobs([(job_id, False) for job_id in jobs])
    visit.audit("release", "study", study_id)
    triage_again(visit.services, study_id, visit)


def report(visit: Visit, study_id: int) -> None:
    """Take a study off the worklist."""
    visit.services.reporting.mark_reported(study_id, visit.now, actor=visit.actor, cause="marked as reported")
    visit.audit("reported", "study", study_id)


def make_unread(visit: Visit, study_id: int) -> None:
    """Put a reported study back on the worklist."""
    visit.services.reporting.mark_unread(study_id, visit.now, actor=visit.actor, cause="marked as unread")
    visit.audit("unread", "study", study_id)
    triage_again(visit.services, study_id, visit)


def set_priority(visit: Visit, study_id: int, priority: Priority | None) -> None:
    """Set the hospital's priority, or leave it to triage; the worklist follows at once."""
    word = priority.value if priority else "by triage"
    visit.services.reporting.set_priority(study_id, priority, visit.now, actor=visit.actor, cause="set by hand")
    visit.audit("set priority", "study", study_id, word)
    triage_again(visit.services, study_id, visit)


def judge_finding(visit: Visit, finding_id: int, verdict: Verdict, comment: str, source: str) -> None:
    """Store what a reader thinks of a finding."""
    visit.services.feedback.give(
        finding_id,
        verdict,
        visit.now,
        actor=visit.actor,
        comment=comment,
        source=source,
        address=visit.address,
    )


def switch_model(visit: Visit, name: str, state: ModelState, reason: str) -> Switched:
    """Switch a model for all jobs that begin from now on; the audit line is written with it.

    Raises:
        RecordNotFoundError: no such model judges images here, or it is the gate.
    """
    configured = visit.services.settings.models
    if name not in (*configured.active, *configured.shadow):
        raise RecordNotFoundError("model that delivers findings", name)
    return set_model_state(
        visit.services.engine, name, state, actor=visit.actor, reason=reason, now=visit.now, address=visit.address
    )


def triage_again(services: Services, study_id: int, visit: Visit) -> None:
    """Let triage decide anew with what is known now."""
    triage_study(study_id, services.worklist, services.settings.triage, visit.now)
