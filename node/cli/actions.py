"""``pleura hold``, ``release``, ``retry``, ``reported``, ``priority`` and ``feedback``: the actions of the admin page.

Each writes the audit trail with the user of the operating system.
"""

from __future__ import annotations

from datetime import UTC, datetime

import click
from sqlalchemy import Engine

from config.settings import Settings
from db import deliveries, holds, jobs
from db.audit import AuditEntry, AuditTrail
from db.errors import DatabaseError
from db.feedback import Feedback, IdentifiedFinding
from db.records import DeliveryState, JobState, Priority
from db.study_status import Reporting
from db.user_tables import Verdict
from node.cli.common import console, fail, settings_of
from node.cli.worklist import actor, describe_study, find_detail, finding_text, open_engine
from workers.enqueue import TaskQueue
from workers.open_database import database_of, triage_study

_BY_TRIAGE = "by-triage"


class _Call:
    """One call of a command: its study, the database and the time."""

    def __init__(self, context: click.Context, study: str) -> None:
        self.settings: Settings = settings_of(context)
        self.engine: Engine = open_engine(self.settings)
        self.database = database_of(self.settings, self.engine)
        self.detail = find_detail(self.database, study)
        self.study_id = self.detail.row.study_id
        self.now = datetime.now(UTC)

    def audit(self, action: str, subject: str = "study", detail: str = "") -> None:
        """Write the audit trail."""
        AuditTrail(self.engine).add(AuditEntry(self.now, actor(), action, subject, self.study_id, "", detail))

    def print_outcome(self, outcome: str) -> None:
        """Print the study (patient, accession number and date) and the outcome."""
        console.print(f"{describe_study(self.detail)} {outcome}", markup=False, soft_wrap=True)

    def triage_again(self) -> Priority:
        """Repeat the triage decision with the current facts."""
        return triage_study(self.study_id, self.database, self.settings.triage, self.now).priority


@click.command()
@click.argument("study")
@click.option("--again", is_flag=True, help="Also run jobs again that are done: a new revision of their results.")
@click.pass_context
def retry(context: click.Context, study: str, again: bool) -> None:
    """Run the failed jobs and deliveries of STUDY again."""
    call = _Call(context, study)
    states = {JobState.FAILED, JobState.DONE} if again else {JobState.FAILED}
    job_rows = [job for job in call.detail.jobs if job.state in states]
    delivery_rows = [item for item in call.detail.deliveries if item.state is DeliveryState.FAILED]
    try:
        for job in job_rows:
            call.database.write(jobs.requeue, job.id, actor(), "retry", call.now)
            call.audit("retry job", f"job {job.id}")
        for delivery in delivery_rows:
            call.database.write(deliveries.requeue, delivery.id, actor(), "retry", call.now)
            call.audit("re-send", f"delivery {delivery.id}")
    except DatabaseError as error:
        fail(str(error))
    task_queue = TaskQueue(call.settings.broker_url)
    dispatched = task_queue.enqueue_jobs([(job.id, job.stat) for job in job_rows])
    dispatched = task_queue.enqueue_deliveries([item.id for item in delivery_rows]) and dispatched
    call.print_outcome(f"is retried: {len(job_rows)} jobs and {len(delivery_rows)} deliveries are queued again")
    if not dispatched:
        console.print("The broker cannot be reached; the scheduler enqueues them when it can.")


@click.command()
@click.argument("study")
@click.option("--reason", required=True, help="Reason, shown with the study.")
@click.pass_context
def hold(context: click.Context, study: str, reason: str) -> None:
    """Put STUDY on hold: nothing of it is analysed or sent until it is released."""
    call = _Call(context, study)
    call.database.write(holds.hold, call.study_id, reason, actor(), call.now)
    call.audit("hold", detail=reason)
    call.print_outcome("is on hold")


@click.command()
@click.argument("study")
@click.pass_context
def release(context: click.Context, study: str) -> None:
    """Release a STUDY that is on hold."""
    call = _Call(context, study)
    job_rows = call.database.write(holds.release, call.study_id, actor(), call.now)
    call.audit("release")
    call.triage_again()
    TaskQueue(call.settings.broker_url).enqueue_jobs([(job, call.detail.row.stat) for job in job_rows])
    call.print_outcome(f"is released; {len(job_rows)} jobs are queued")


@click.command()
@click.argument("study")
@click.option("--undo", is_flag=True, help="Mark it as unreported instead.")
@click.pass_context
def reported(context: click.Context, study: str, undo: bool) -> None:
    """Mark STUDY as reported: it leaves the worklist, and no more notifications are sent for it."""
    call = _Call(context, study)
    reporting = Reporting(call.engine)
    if undo:
        changed = reporting.mark_unreported(call.study_id, call.now, actor=actor(), cause="marked as unreported")
        outcome = "is on the worklist again" if changed else "was on the worklist already"
    else:
        changed = reporting.mark_reported(call.study_id, call.now, actor=actor(), cause="marked as reported")
        outcome = "is reported" if changed else "was reported already"
    if changed:
        call.audit("unreported" if undo else "reported")
        if undo:
            call.triage_again()
    call.print_outcome(outcome)


@click.command()
@click.argument("study")
@click.argument("level", type=click.Choice([*(level.value for level in Priority), _BY_TRIAGE]))
@click.pass_context
def priority(context: click.Context, study: str, level: str) -> None:
    """Set the hospital's priority of STUDY, the lower limit of its triage priority; by-triage removes it."""
    call = _Call(context, study)
    wanted = None if level == _BY_TRIAGE else Priority(level)
    if Reporting(call.engine).set_priority(call.study_id, wanted, call.now, actor=actor(), cause="set by hand"):
        call.audit("set priority", detail=level.replace("-", " "))
    now = call.triage_again()
    call.print_outcome(f"is {now}")
    if wanted is not None and now is not wanted:
        console.print("Its findings or its order require a higher priority.")


@click.command()
@click.argument("study")
@click.argument("finding", required=False)
@click.argument("verdict", required=False, type=click.Choice([verdict.value for verdict in Verdict]))
@click.option("--comment", default="", help="Comment on the finding.")
@click.pass_context
def feedback(context: click.Context, study: str, finding: str | None, verdict: str | None, comment: str) -> None:
    """Accept, modify or reject a FINDING of STUDY, given by label or number. Without FINDING, print the findings."""
    call = _Call(context, study)
    store = Feedback(call.engine)
    known = store.findings(call.study_id)
    if finding is None:
        _list(known, store, call.study_id)
        return
    if verdict is None:
        raise click.UsageError(f"give accept, modify or reject after {finding}", ctx=context)
    chosen = _chosen(known, finding, study)
    store.give(chosen.id, Verdict(verdict), call.now, actor=actor(), comment=comment, source="cli")
    call.print_outcome(f"finding {chosen.id}, {chosen.record.label}: {verdict}")


def _list(known: tuple[IdentifiedFinding, ...], store: Feedback, study_id: int) -> None:
    latest = {given.finding_id: given for given in store.of_study(study_id)}
    for each in known:
        given = latest.get(each.id)
        line = f"{each.id:>8}  {finding_text(each.record)}"
        if given:
            line += f"  {given.verdict} by {given.actor}" + (f": {given.comment}" if given.comment else "")
        console.print(line, markup=False)
    if not known:
        console.print("this study has no findings")


def _chosen(known: tuple[IdentifiedFinding, ...], wanted: str, study: str) -> IdentifiedFinding:
    """The finding with this number, or with this label among the reported ones."""
    label = wanted.strip().lower().replace(" ", "_").replace("-", "_")
    found = [each for each in known if wanted.strip() == str(each.id)]
    if not found:
        found = [each for each in known if each.record.label == label]
        # A reader means a reported finding, not one of a model in shadow or one that is not present.
        found = [each for each in found if each.record.present and not each.record.shadow] or found
    if not found:
        labels = ", ".join(sorted({each.record.label for each in known})) or "none"
        fail(f"this study has no finding {wanted}; it has: {labels} (`pleura feedback {study}` lists them)")
    if len(found) > 1:
        numbers = ", ".join(str(each.id) for each in found)
        fail(f"this study has {len(found)} findings {wanted}; name one by its number: {numbers}")
    return found[0]
