"""``pleura hold``, ``release``, ``retry``, ``reported``, ``priority`` and ``feedback``: what the page's buttons do.

Each writes the audit trail with the user of the operating system, as the page does with the one who is logged in.
"""

from __future__ import annotations

from datetime import UTC, datetime

import click
from sqlalchemy import Engine

from config.settings import Settings
from db.audit import AuditEntry, AuditTrail
from db.errors import DatabaseError
from db.feedback import Feedback, IdentifiedFinding
from db.records import DeliveryState, JobState, Priority
from db.study_status import Reporting
from db.user_tables import Verdict
from node.cli.common import console, fail, settings_of
from node.cli.worklist import actor, find_detail, finding_words, named, open_engine
from workers.enqueue import TaskQueue
from workers.open_worklist import triage_study, worklist_of

_BY_TRIAGE = "by-triage"


class _Call:
    """One call of a command: the study that it names, the database, and when it was made."""

    def __init__(self, context: click.Context, study: str) -> None:
        self.settings: Settings = settings_of(context)
        self.engine: Engine = open_engine(self.settings)
        self.worklist = worklist_of(self.settings, self.engine)
        self.detail = find_detail(self.worklist, study)
        self.study_id = self.detail.row.study_id
        self.now = datetime.now(UTC)

    def audit(self, action: str, subject: str = "study", detail: str = "") -> None:
        """Write the audit trail."""
        AuditTrail(self.engine).add(AuditEntry(self.now, actor(), action, subject, self.study_id, "", detail))

    def tell(self, words: str) -> None:
        """Say what became of the study, and which one it is: patient, accession number and date."""
        console.print(f"{named(self.detail)} {words}", markup=False, soft_wrap=True)

    def triage_again(self) -> Priority:
        """Let triage decide anew with what is known now."""
        return triage_study(self.study_id, self.worklist, self.settings.triage, self.now).priority


@click.command()
@click.argument("study")
@click.option("--again", is_flag=True, help="Also run jobs again that are done: a new revision of their results.")
@click.pass_context
def retry(context: click.Context, study: str, again: bool) -> None:
    """Run the failed jobs and deliveries of STUDY again."""
    call = _Call(context, study)
    states = {JobState.FAILED, JobState.DONE} if again else {JobState.FAILED}
    jobs = [job for job in call.detail.jobs if job.state in states]
    deliveries = [item for item in call.detail.deliveries if item.state is DeliveryState.FAILED]
    try:
        for job in jobs:
            call.worklist.requeue_job(job.id, actor(), "retry", call.now)
            call.audit("retry job", f"job {job.id}")
        for delivery in deliveries:
            call.worklist.requeue_delivery(delivery.id, actor(), "retry", call.now)
            call.audit("re-send", f"delivery {delivery.id}")
    except DatabaseError as error:
        fail(str(error))
    task_queue = TaskQueue(call.settings.broker_url)
    dispatched = task_queue.enqueue_jobs([(job.id, job.stat) for job in jobs])
    dispatched = task_queue.enqueue_deliveries([item.id for item in deliveries]) and dispatched
    call.tell(f"goes on: {len(jobs)} jobs and {len(deliveries)} deliveries are queued again")
    if not dispatched:
        console.print("The broker does not answer; the scheduler will enqueues them when it does.")


@click.command()
@click.argument("study")
@click.option("--reason", required=True, help="Why, for whoever looks at the study next.")
@click.pass_context
def hold(context: click.Context, study: str, reason: str) -> None:
    """Stop everything about STUDY until it is released: nothing is analysed, nothing is sent."""
    call = _Call(context, study)
    call.worklist.hold_study(call.study_id, reason, actor(), call.now)
    call.audit("hold", detail=reason)
    call.tell("is held")


@click.command()
@click.argument("study")
@click.pass_context
def release(context: click.Context, study: str) -> None:
    """Let a held STUDY go on."""
    call = _Call(context, study)
    jobs = call.worklist.release_study(call.study_id, actor(), call.now)
    call.audit("release")
    call.triage_again()
    TaskQueue(call.settings.broker_url).enqueue_jobs([(job, call.detail.row.stat) for job in jobs])
    call.tell(f"is released; {len(jobs)} jobs are queued")


@click.command()
@click.argument("study")
@click.option("--undo", is_flag=True, help="Put it back on the worklist instead.")
@click.pass_context
def reported(context: click.Context, study: str, undo: bool) -> None:
    """Mark STUDY as reported: it leaves the worklist, and nothing of it notifications any more."""
    call = _Call(context, study)
    reporting = Reporting(call.engine)
    if undo:
        changed = reporting.mark_unreported(call.study_id, call.now, actor=actor(), cause="marked as unreported")
        words = "is on the worklist again" if changed else "was on the worklist already"
    else:
        changed = reporting.mark_reported(call.study_id, call.now, actor=actor(), cause="marked as reported")
        words = "is reported" if changed else "was reported already"
    if changed:
        call.audit("unreported" if undo else "reported")
        if undo:
            call.triage_again()
    call.tell(words)


@click.command()
@click.argument("study")
@click.argument("level", type=click.Choice([*(level.value for level in Priority), _BY_TRIAGE]))
@click.pass_context
def priority(context: click.Context, study: str, level: str) -> None:
    """Set the hospital's own priority of STUDY, below which triage never goes; by-triage takes it back."""
    call = _Call(context, study)
    wanted = None if level == _BY_TRIAGE else Priority(level)
    if Reporting(call.engine).set_priority(call.study_id, wanted, call.now, actor=actor(), cause="set by hand"):
        call.audit("set priority", detail=level.replace("-", " "))
    now = call.triage_again()
    call.tell(f"is {now}")
    if wanted is not None and now is not wanted:
        console.print("Its findings or its order ask for more than that.")


@click.command()
@click.argument("study")
@click.argument("finding", required=False)
@click.argument("verdict", required=False, type=click.Choice([verdict.value for verdict in Verdict]))
@click.option("--comment", default="", help="What is to be said about it.")
@click.pass_context
def feedback(context: click.Context, study: str, finding: str | None, verdict: str | None, comment: str) -> None:
    """Accept, modify or reject a FINDING of STUDY: its label, or its number. Without both, print the findings."""
    call = _Call(context, study)
    store = Feedback(call.engine)
    known = store.findings(call.study_id)
    if finding is None:
        _list(known, store, call.study_id)
        return
    if verdict is None:
        raise click.UsageError(f"say accept, modify or reject after {finding}", ctx=context)
    chosen = _chosen(known, finding, study)
    store.give(chosen.id, Verdict(verdict), call.now, actor=actor(), comment=comment, source="cli")
    call.tell(f"finding {chosen.id}, {chosen.record.label}: {verdict}")


def _list(known: tuple[IdentifiedFinding, ...], store: Feedback, study_id: int) -> None:
    latest = {given.finding_id: given for given in store.of_study(study_id)}
    for each in known:
        given = latest.get(each.id)
        words = f"{each.id:>8}  {finding_words(each.record)}"
        said = f"  {given.verdict} by {given.actor}" + (f": {given.comment}" if given.comment else "") if given else ""
        console.print(words + said, markup=False)
    if not known:
        console.print("this study has no findings")


def _chosen(known: tuple[IdentifiedFinding, ...], wanted: str, study: str) -> IdentifiedFinding:
    """The one finding that is meant: by number, or by label among those that were reported."""
    label = wanted.strip().lower().replace(" ", "_").replace("-", "_")
    found = [each for each in known if wanted.strip() == str(each.id)]
    if not found:
        found = [each for each in known if each.record.label == label]
        # A model in shadow, or an image without the finding, is not what a reader speaks of.
        found = [each for each in found if each.record.present and not each.record.shadow] or found
    if not found:
        labels = ", ".join(sorted({each.record.label for each in known})) or "none"
        fail(f"this study has no finding {wanted}; it has: {labels} (`pleura feedback {study}` lists them)")
    if len(found) > 1:
        numbers = ", ".join(str(each.id) for each in found)
        fail(f"this study has {len(found)} findings {wanted}; name one by its number: {numbers}")
    return found[0]
