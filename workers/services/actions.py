"""What a person can do to a study, a job, a delivery, a finding or a model: each use case once.

The page, the JSON API and the terminal call these. A change and its line of the audit trail are one transaction. Then
triage decides anew where the change may matter to it, and what waits for a worker is enqueued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection

from config.settings import Settings
from db import deliveries, erasures, feedback, holds, jobs, studies, study_status
from db.audit import AuditEntry, write_entry
from db.database import Database
from db.errors import DatabaseError, RecordNotFoundError, StudyNotOnHoldError, StudyOnHoldError, TransitionError
from db.model_states import ModelState, Switched, set_model_state
from db.queries import problems
from db.queries.erasure import erasure_plan
from db.queries.problems import Entity, Selection
from db.states import Priority
from db.user_tables import Verdict
from workers.enqueue import TaskQueue
from workers.open_database import triage_study
from workers.services.erasure import checked_reason

T = TypeVar("T")

_BY_HAND = "requested by a person"
_CHUNK = 100  # rows that one transaction changes


@dataclass(frozen=True, slots=True)
class Retried:
    """How many jobs and deliveries are tried again, and how many could not be: on hold, or taken just now."""

    jobs: int
    deliveries: int
    left: int


@dataclass(frozen=True, slots=True)
class Actions:
    """The use cases of one person at one moment; ``actor`` and ``address`` are written to history and audit trail.

    All raise the errors of :mod:`db.errors`, and then nothing has changed.
    """

    settings: Settings
    database: Database
    task_queue: TaskQueue
    actor: str
    now: datetime
    address: str = ""

    def retry_job(self, study_id: int, job_id: int) -> bool:
        """Run a job again. False: the broker does not answer, and the scheduler enqueues it later."""
        entry = self._entry("retry job", study_id, f"job {job_id}")
        self._write(entry, lambda connection: jobs.requeue(connection, job_id, self.actor, _BY_HAND, self.now))
        self._triage(study_id)
        return self._enqueue(study_id, [job_id])

    def resend(self, study_id: int, delivery_id: int) -> bool:
        """Send a delivery again. False: the broker does not answer, and the scheduler enqueues it later."""
        entry = self._entry("re-send", study_id, f"delivery {delivery_id}")
        self._write(
            entry, lambda connection: deliveries.requeue(connection, delivery_id, self.actor, _BY_HAND, self.now)
        )
        return self.task_queue.enqueue_deliveries([delivery_id])

    def retry_all(self, selection: Selection) -> Retried:
        """Run again and send now whatever fails and is selected; what waits for a person to release it stays.

        The scheduler enqueues it, so a broker that does not answer delays it and no more.
        """
        jobs_again, jobs_left = self._retry("job", selection)
        deliveries_again, deliveries_left = self._retry("delivery", selection)
        return Retried(jobs_again, deliveries_again, jobs_left + deliveries_left)

    def many(self, study_ids: Iterable[int], act: Callable[[Actions, int], object]) -> int:
        """Do the same to many studies; to how many it was done. Where it cannot be done, the study is left as it is."""
        done = 0
        for study_id in study_ids:
            with suppress(DatabaseError):
                act(self, study_id)
                done += 1
        return done

    def _retry(self, entity: Entity, selection: Selection) -> tuple[int, int]:
        again, left, last = 0, 0, 0
        while (found := self.database.read(problems.failing, entity, selection, last, _CHUNK)) is not None:
            rows, last = found
            done = self.database.write(self._requeue, entity, tuple(rows), selection) if rows else ()
            for study_id in {rows[row_id] for row_id in done} if entity == "job" else ():
                self._triage(study_id)
            again, left = again + len(done), left + len(rows) - len(done)
        return again, left

    def _requeue(
        self, connection: Connection, entity: Entity, row_ids: Sequence[int], selection: Selection
    ) -> tuple[int, ...]:
        """Requeue these rows with a line of the audit trail; those that cannot be are left out."""
        requeue = jobs.requeue if entity == "job" else deliveries.requeue
        done = []
        for row_id in row_ids:
            # On hold, or a worker was faster: nothing was written for it.
            with suppress(StudyOnHoldError, TransitionError):
                requeue(connection, row_id, self.actor, _BY_HAND, self.now)
                done.append(row_id)
        if done:
            what = {"job": "jobs", "delivery": f"deliveries to {selection.destination or 'all destinations'}"}[entity]
            detail = f"{len(done)} {what}: {selection.cause or 'any error'}"
            subject, study_id = selection.destination or entity, selection.study_id or None
            entry = AuditEntry(self.now, self.actor, "retry all", subject, study_id, self.address, detail)
            write_entry(connection, entry)
        return tuple(done)

    def hold(self, study_id: int, reason: str) -> None:
        """Hold a study and all of it that has not left yet."""
        reason = reason.strip()[:200] or "put on hold by hand"
        entry = self._entry("hold", study_id, detail=reason)
        self._write(entry, lambda connection: holds.hold(connection, study_id, reason, self.actor, self.now))

    def release(self, study_id: int) -> int:
        """Release a study on hold; how many jobs of it wait for a worker now.

        Raises:
            StudyNotOnHoldError: it is not on hold.
        """

        def command(connection: Connection) -> tuple[int, ...]:
            if not holds.is_held(connection, study_id):
                raise StudyNotOnHoldError(study_id)
            return holds.release(connection, study_id, self.actor, self.now)

        job_ids = self._write(self._entry("release", study_id), command)
        self._triage(study_id)
        self._enqueue(study_id, job_ids)
        return len(job_ids)

    def erase(self, study_id: int, reason: str) -> None:
        """Ask to erase a study: it is on hold from now on, and the scheduler erases it once nothing of it is under way.

        The audit trail has an entry when it is gone.

        Raises:
            ErasureError: the reason is missing, or names the patient.
        """
        plan = self.database.read(erasure_plan, study_id, self.now)
        reason = checked_reason(reason, plan)
        self.database.write(erasures.request, study_id, self.actor, self.address, reason, self.now)

    def report(self, study_id: int) -> bool:
        """Take a study off the worklist; False where it was reported already."""
        cause = "marked as reported"
        return self._write(
            self._entry("reported", study_id),
            lambda connection: study_status.report(connection, study_id, self.now, actor=self.actor, cause=cause),
        )

    def undo_report(self, study_id: int) -> bool:
        """Put a reported study back on the worklist; False where it was there already."""
        cause = "marked as unreported"
        changed = self._write(
            self._entry("unreported", study_id),
            lambda connection: study_status.undo_report(connection, study_id, self.now, actor=self.actor, cause=cause),
        )
        if changed:
            self._triage(study_id)
        return changed

    def set_priority(self, study_id: int, priority: Priority | None) -> Priority:
        """Set the hospital's priority, or leave it to triage (None); the priority that triage decides with it."""
        entry = self._entry("set priority", study_id, detail=priority.value if priority else "by triage")
        self._write(
            entry,
            lambda connection: study_status.set_priority(
                connection, study_id, priority, self.now, actor=self.actor, cause="set by hand"
            ),
        )
        return self._triage(study_id)

    def give_feedback(self, finding_id: int, verdict: Verdict, comment: str, source: str) -> None:
        """Store what a reader thinks of a finding; ``source`` is how it came: web, api or cli."""
        self.database.write(
            feedback.give,
            finding_id,
            verdict,
            self.now,
            actor=self.actor,
            comment=comment,
            source=source,
            address=self.address,
        )

    def switch_model(self, name: str, state: ModelState, reason: str) -> Switched:
        """Switch a model for all jobs that begin from now on.

        Raises:
            RecordNotFoundError: no such model analyses images here, or it is the gate.
        """
        configured = self.settings.models
        if name not in (*configured.active, *configured.shadow):
            raise RecordNotFoundError("model that delivers findings", name)
        return set_model_state(
            self.database.engine,
            name,
            state,
            actor=self.actor,
            reason=reason,
            now=self.now,
            address=self.address,
        )

    def _entry(self, action: str, study_id: int, subject: str = "study", detail: str = "") -> AuditEntry:
        return AuditEntry(self.now, self.actor, action, subject, study_id, self.address, detail)

    def _write(self, entry: AuditEntry, command: Callable[[Connection], T]) -> T:
        """Run ``command`` with its line of the audit trail; none where it says that nothing has changed (False)."""

        def audited(connection: Connection) -> T:
            done = command(connection)
            if done is not False:
                write_entry(connection, entry)
            return done

        return self.database.write(audited)

    def _triage(self, study_id: int) -> Priority:
        return triage_study(study_id, self.database, self.settings.triage, self.now).priority

    def _enqueue(self, study_id: int, job_ids: Sequence[int]) -> bool:
        stat = self.database.read(studies.facts, study_id, self.database.rules.patients).stat
        waiting = self.database.read(jobs.by_queue, job_ids)
        heard = [
            self.task_queue.enqueue_jobs([(job_id, stat) for job_id in ids], queue) for queue, ids in waiting.items()
        ]
        return all(heard)
