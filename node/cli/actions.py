"""``pleura hold``, ``release``, ``retry``, ``reported``, ``priority`` and ``feedback``: the actions of the admin page.

Each writes the audit trail with the user of the operating system.
"""

from __future__ import annotations

from datetime import UTC, datetime

import click
from sqlalchemy import Engine

from config.settings import Settings
from db import feedback as verdicts
from db.errors import StudyNotOnHoldError
from db.feedback import FeedbackRecord, IdentifiedFinding
from db.queries.problems import Selection
from db.states import DeliveryState, JobState, Priority
from db.user_tables import Verdict
from node.cli.common import console, fail, json_option, print_json, print_notice, settings_of
from node.cli.worklist import actor, describe_study, find_detail, finding_text, open_database, open_engine
from workers.enqueue import TaskQueue
from workers.open_database import database_of
from workers.services.actions import Actions

_BY_TRIAGE = "by-triage"


class _Call:
    """One call of a command: its study, the database and the time."""

    def __init__(self, context: click.Context, study: str) -> None:
        self.settings: Settings = settings_of(context)
        self.engine: Engine = open_engine(self.settings)
        self.database = database_of(self.settings, self.engine)
        self.detail = find_detail(self.database, study)
        self.study_id = self.detail.row.study_id
        task_queue = TaskQueue(self.settings.broker_url)
        self.actions = Actions(self.settings, self.database, task_queue, actor(), datetime.now(UTC))

    def print_outcome(self, outcome: str) -> None:
        """Print the study (patient, accession number and date) and the outcome."""
        console.print(f"{describe_study(self.detail)} {outcome}", markup=False, soft_wrap=True)


@click.command()
@click.argument("study", required=False)
@click.option("--again", is_flag=True, help="Also run jobs again that are done: a new revision of their results.")
@click.option("--all", "everything", is_flag=True, help="Whatever fails, of all studies, instead of one STUDY.")
@click.option("--destination", metavar="NAME", help="All deliveries to this destination that fail or wait.")
@click.pass_context
def retry(context: click.Context, study: str | None, again: bool, everything: bool, destination: str | None) -> None:
    """Try the failing jobs and deliveries of STUDY again now; with --all or --destination those of all studies."""
    if study is None and (everything or destination):
        _retry_all(context, Selection("delivery" if destination else "", destination or ""))
        return
    if study is None or everything or destination:
        raise click.UsageError("name one STUDY, or give --all or --destination", ctx=context)
    call = _Call(context, study)
    states = {JobState.FAILED, JobState.RETRYING, JobState.DONE} if again else {JobState.FAILED, JobState.RETRYING}
    job_ids = [job.id for job in call.detail.jobs if job.state in states]
    waiting = [each for each in call.detail.deliveries if each.state is DeliveryState.PENDING and each.error]
    failed = [each for each in call.detail.deliveries if each.state is DeliveryState.FAILED]
    delivery_ids = [each.id for each in (*failed, *waiting)]
    heard = [call.actions.retry_job(call.study_id, job_id) for job_id in job_ids]
    heard += [call.actions.resend(call.study_id, delivery_id) for delivery_id in delivery_ids]
    call.print_outcome(f"is retried: {len(job_ids)} jobs and {len(delivery_ids)} deliveries are queued again")
    if not all(heard):
        console.print("The broker cannot be reached; the scheduler enqueues them when it can.")


def _retry_all(context: click.Context, selection: Selection) -> None:
    settings = settings_of(context)
    if selection.destination and settings.destination(selection.destination) is None:
        names = ", ".join(each.name for each in settings.destinations) or "none"
        fail(f"there is no destination {selection.destination}; the configuration names: {names}")
    database = open_database(settings)
    actions = Actions(settings, database, TaskQueue(settings.broker_url), actor(), datetime.now(UTC))
    done = actions.retry_all(selection)
    console.print(f"{done.jobs} jobs and {done.deliveries} deliveries are tried again")
    if done.left:
        console.print(f"{done.left} stay: on hold, or a worker has just taken them")


@click.command()
@click.argument("study")
@click.option("--reason", required=True, help="Reason, shown with the study.")
@click.pass_context
def hold(context: click.Context, study: str, reason: str) -> None:
    """Put STUDY on hold: nothing of it is analysed or sent until it is released."""
    call = _Call(context, study)
    call.actions.hold(call.study_id, reason)
    call.print_outcome("is on hold")


@click.command()
@click.argument("study")
@click.pass_context
def release(context: click.Context, study: str) -> None:
    """Release a STUDY that is on hold, or, where it is not, those of its deliveries that are: they are sent."""
    call = _Call(context, study)
    held = [each.id for each in call.detail.deliveries if each.state is DeliveryState.ON_HOLD and not each.stale_code]
    try:
        waiting = call.actions.release(call.study_id)
    except StudyNotOnHoldError:
        if not held:
            fail(f"{describe_study(call.detail)} is not on hold")
        for delivery_id in held:
            call.actions.resend(call.study_id, delivery_id)
        call.print_outcome(f"has {len(held)} deliveries that were on hold; they are queued")
        return
    call.print_outcome(f"is released; {waiting} jobs are queued")


@click.command()
@click.argument("study")
@click.option("--undo", is_flag=True, help="Mark it as unreported instead.")
@click.pass_context
def reported(context: click.Context, study: str, undo: bool) -> None:
    """Mark STUDY as reported: it leaves the worklist, and no more notifications are sent for it."""
    call = _Call(context, study)
    if undo:
        back = call.actions.undo_report(call.study_id)
        call.print_outcome("is on the worklist again" if back else "was on the worklist already")
    else:
        call.print_outcome("is reported" if call.actions.report(call.study_id) else "was reported already")


@click.command()
@click.argument("study")
@click.argument("level", type=click.Choice([*(level.value for level in Priority), _BY_TRIAGE]))
@click.pass_context
def priority(context: click.Context, study: str, level: str) -> None:
    """Set the hospital's priority of STUDY, the lower limit of its triage priority; by-triage removes it."""
    call = _Call(context, study)
    wanted = None if level == _BY_TRIAGE else Priority(level)
    now = call.actions.set_priority(call.study_id, wanted)
    call.print_outcome(f"is {now}")
    if wanted is not None and now is not wanted:
        console.print("Its findings or its order require a higher priority.")


@click.command()
@click.argument("study")
@click.argument("finding", required=False)
@click.argument("verdict", required=False, type=click.Choice([verdict.value for verdict in Verdict]))
@click.option("--comment", default="", help="Comment on the finding.")
@json_option
@click.pass_context
def feedback(
    context: click.Context, study: str, finding: str | None, verdict: str | None, comment: str, as_json: bool
) -> None:
    """Accept, modify or reject a FINDING of STUDY, given by label or number. Without FINDING, print the findings."""
    call = _Call(context, study)
    known = call.database.read(verdicts.findings, call.study_id)
    if finding is None:
        latest = {given.finding_id: given for given in call.database.read(verdicts.of_study, call.study_id)}
        if as_json:
            print_json([{"finding": each, "verdict": latest.get(each.id)} for each in known])
        else:
            _list(known, latest)
            print_notice()
        return
    if verdict is None:
        raise click.UsageError(f"give accept, modify or reject after {finding}", ctx=context)
    chosen = _chosen(known, finding, study)
    call.actions.give_feedback(chosen.id, Verdict(verdict), comment, "cli")
    call.print_outcome(f"finding {chosen.id}, {chosen.record.label}: {verdict}")


def _list(known: tuple[IdentifiedFinding, ...], latest: dict[int, FeedbackRecord]) -> None:
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
