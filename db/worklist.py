"""Every query, claim and transition of a node: one class, one method a transaction.

The statements live in the modules beside this one, by subject; here each gets its transaction and is tried again where
two writers have met.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import (
    assessments,
    deliveries,
    holds,
    instances,
    jobs,
    orders,
    rejection_notes,
    repeated_instances,
    stale_objects,
    studies,
    study_status,
    verification,
)
from db.assessments import Assessment
from db.engine import read_only, writing
from db.model_states import ModelState, model_states
from db.node_rules import Rules
from db.orders import HospitalMessage, MessageResult
from db.queries import retention, study_details
from db.queries.worklist import ReadingList
from db.records import (
    Delivery,
    ExpiredStudy,
    Ingest,
    Job,
    NotEligible,
    Outcome,
    ReceivedInstance,
    RejectionNote,
    ResultRecord,
    StaleObject,
    StudyDetail,
    StudyFacts,
    TriageDecision,
    Unverified,
    WorklistRow,
)

T = TypeVar("T")

_TRIES = 10
_PAUSE_SECONDS = 0.02
_WORTH_ANOTHER_TRY = {
    "40001": "serialization failure",
    "40P01": "deadlock",
    "23505": "another process has inserted the same row",
}


class Worklist:
    """The worklist of a node, safe for many threads and many processes.

    Every method is one transaction: what it returns is committed, and on an exception nothing was written. Times are
    aware. Methods that name a ``worker`` act on its claim and return None or False where the claim is lost (its lease
    ran out and another worker took over, or a person stepped in).

    All methods may raise ``sqlalchemy.exc.DBAPIError`` where the database does not answer. Those that name a record
    raise ``db.errors.RecordNotFoundError`` where it does not exist, and ``db.errors.TransitionError`` where
    the tables of :mod:`db.records` forbid what is asked.
    """

    def __init__(self, engine: Engine, rules: Rules) -> None:
        """Use the database of ``engine`` under ``rules``; :func:`workers.open_worklist.worklist_of` makes a node's
        own.
        """
        self._engine = engine
        self._rules = rules
        self._writer = writing(engine)
        self._read_only = read_only(engine)

    def _read(self, work: Callable[..., T], *arguments: Any, **options: Any) -> T:
        with self._engine.connect() as connection:
            return work(connection, *arguments, **options)

    def _write(self, work: Callable[..., T], *arguments: Any, **options: Any) -> T:
        for attempt in range(1, _TRIES + 1):
            try:
                with self._writer.begin() as connection:
                    return work(connection, *arguments, **options)
            except DBAPIError as error:
                if attempt == _TRIES or getattr(error.orig, "sqlstate", None) not in _WORTH_ANOTHER_TRY:
                    raise
            # Those that stopped each other must not start together again; attempts have an order of milliseconds.
            time.sleep(random.uniform(0, _PAUSE_SECONDS * attempt))
        raise AssertionError("the last try returns or raises")

    # Ingest

    def record_instance(
        self, received: ReceivedInstance, not_eligible: NotEligible | None, pipeline: str, now: datetime
    ) -> Ingest:
        """Record a received instance and, where it is not refused, the job for it.

        The same UID and digest again changes nothing and gives the jobs that are still open. The same UID in other
        bytes gets a job that compares it (``settle_comparison``); where it came for another patient, study or series,
        or where another patient is in the same study, the study is on hold for a person. An eligible instance opens a
        complete study again; a refused one does not. One of our own results that comes back (refused, UID known)
        is recorded and touches nothing of the study.
        """
        return self._write(instances.record_instance, received, not_eligible, pipeline, self._rules.patients, now)

    def reject_instances(self, note: RejectionNote, now: datetime) -> tuple[int, ...]:
        """Take back the images that a rejection note names, and give the studies that triage must look at again.

        Their jobs end, their findings no longer count, what was made of them is withdrawn where it was not sent and
        marked where it was. After a wrong worklist entry or for patient safety the study is on hold as well. An image
        that comes after its note is refused. The same note again changes nothing.
        """
        return self._write(rejection_notes.reject, note, now)

    def recorded_files(self, paths: Sequence[str]) -> frozenset[str]:
        """Which of these paths, relative to the store folder, are those of recorded instances."""
        return self._read(instances.recorded_files, paths)

    def is_own_result(self, sop_instance_uid: str) -> bool:
        """Say whether this node has made the object with this UID."""
        return self._read(instances.is_own_result, sop_instance_uid)

    def receive_message(self, message: HospitalMessage, now: datetime) -> MessageResult:
        """Apply what a hospital's system says of orders, reports and patients; the same message again does nothing.

        What is about a study that is not here yet is applied when it arrives.

        Raises:
            OtherPatientError: it names a study with another patient.
        """
        return self._write(orders.receive, message, self._rules.patients, now)

    def forget_messages(self, before: datetime) -> None:
        """Forget messages, and orders whose studies never came, of which nothing was heard since ``before``."""
        self._write(orders.forget, before)

    def report_by_object(self, instance_id: int, actor: str, now: datetime) -> bool:
        """Mark the study of a received report as reported; ``actor`` is the calling AE title. False: nothing changed.

        A report of another patient, and one that has had its effect before, change nothing.
        """
        return self._write(study_status.report_by_object, instance_id, actor, now)

    # Jobs

    def claim_job(self, job_id: int, worker: str, now: datetime, lease: timedelta) -> Job | None:
        """Take a job for ``worker`` until ``now + lease``; None where it is not to be had.

        To be had is what is queued, due for another attempt, or running under a lease that is over, unless its study is
        held. Of workers that claim at once exactly one wins.
        """
        return self._write(jobs.claim, job_id, worker, now, lease)

    def finish_job(self, job_id: int, worker: str, outcome: Outcome, now: datetime) -> tuple[int, ...] | None:
        """Write everything a job has left, with its deliveries, and give the deliveries to enqueue.

        A second call for the same claim writes nothing and gives the same deliveries. None: the claim is lost, and
        nothing was written. While the study is on hold its deliveries are on hold too, and none is to enqueue.

        Raises:
            DuplicateResultError: other work has left a result with one of the UIDs.
        """
        return self._write(jobs.finish, job_id, worker, outcome, now)

    def retry_job(self, job_id: int, worker: str, error: str, now: datetime, after: timedelta) -> bool:
        """Let a claimed job be tried again from ``now + after`` on; False where the claim is lost."""
        return self._write(jobs.retry, job_id, worker, error, now, after)

    def fail_job(self, job_id: int, worker: str, error: str, now: datetime) -> bool:
        """Fail a claimed job for the admin to see; False where the claim is lost."""
        return self._write(jobs.fail, job_id, worker, error, now)

    def settle_comparison(self, job_id: int, worker: str, difference: str, now: datetime) -> bool:
        """Write what comparing a claimed job's instance with its ``compare_with`` has shown; False: the claim is lost.

        Without a ``difference`` it is a repeat, and nothing changes. With one (a few words for a person) it is kept
        apart, and the study is on hold.
        """
        return self._write(repeated_instances.settle, job_id, worker, difference, now)

    def release_jobs(self, worker_prefix: str, now: datetime) -> tuple[int, ...]:
        """Give the running jobs of all workers whose name starts so back to the queue: they have died."""
        return self._write(jobs.release, worker_prefix, now)

    def jobs_to_enqueue(self, now: datetime, quiet: timedelta, limit: int = 500) -> tuple[tuple[int, bool], ...]:
        """Jobs (and whether they are STAT) that wait for a worker and were not enqueued within ``quiet``."""
        return self._read(jobs.to_enqueue, now, quiet, limit)

    def mark_dispatched(self, job_ids: Sequence[int], now: datetime) -> None:
        """Note that a message was sent for these jobs."""
        self._write(jobs.mark_dispatched, job_ids, now)

    def late_jobs(self, now: datetime, older_than: timedelta) -> tuple[int, ...]:
        """Jobs that were queued longer ago than ``older_than`` and have not come to their end."""
        return self._read(jobs.late, now, older_than)

    def requeue_job(self, job_id: int, actor: str, cause: str, now: datetime) -> None:
        """Run a failed, held, retrying or finished job again because a person asks for it.

        A finished one becomes the next revision. The scheduler enqueues it; the study is open again.

        Raises:
            TransitionError: it is queued or running.
            StudyOnHoldError: its study must be released first.
        """
        self._write(jobs.requeue, job_id, actor, cause, now)

    # Deliveries

    def deliveries_of_job(self, job_id: int) -> tuple[int, ...]:
        """Deliveries of all results of a job, oldest first."""
        return self._read(deliveries.of_job, job_id)

    def claim_delivery(self, delivery_id: int, worker: str, now: datetime, lease: timedelta) -> Delivery | None:
        """Take one delivery for ``worker`` until ``now + lease``; None where it is not to be had.

        Nor is it to be had while an earlier object of the same work waits for its next attempt at this destination, or
        is with another worker: an SR must not overtake the SEG that it refers to.
        """
        return self._write(deliveries.claim, delivery_id, worker, now, lease)

    def claim_deliveries(
        self, destination: str, job_id: int | None, study_id: int, worker: str, now: datetime, lease: timedelta
    ) -> tuple[Delivery, ...]:
        """Take what is open of one job's results (of the summaries: ``job_id`` None) for one destination.

        In storing order, up to the first that cannot be taken yet.
        """
        return self._write(deliveries.claim_group, destination, job_id, study_id, worker, now, lease)

    def delivery_sent(
        self, delivery_id: int, worker: str, now: datetime, verify_after: timedelta | None = None
    ) -> bool:
        """The destination has answered success, and is asked for a verification later; False where the claim is
        lost.
        """
        return self._write(deliveries.sent, delivery_id, worker, now, verify_after)

    def claim_verifications(
        self, delivery_id: int, transaction_uid: str, now: datetime, lease: timedelta
    ) -> tuple[Unverified, ...]:
        """Take a delivery whose destination is to be asked for a verification, and others of that destination."""
        return self._write(verification.claim, delivery_id, transaction_uid, now, lease)

    def asked_in(self, transaction_uid: str, sop_instance_uids: Sequence[str]) -> tuple[Unverified, ...]:
        """What of these objects a transaction has asked about, and is still to be verified."""
        return self._read(verification.asked_in, transaction_uid, sop_instance_uids)

    def delivery_verified(self, asked: Unverified, now: datetime) -> bool:
        """The destination holds the object; False where another question or a person has been quicker."""
        return self._write(verification.verified, asked, now)

    def postpone_verification(
        self, asked: Unverified, note: str, due: datetime | None, *, missing: bool = False
    ) -> bool:
        """Ask the destination again at ``due``, None: never; ``missing``: it has said that it does not hold it."""
        return self._write(verification.postpone, asked, note, due, missing=missing)

    def send_again(self, asked: Unverified, cause: str, now: datetime) -> bool:
        """Let a delivery be sent again whose destination does not hold it; the scheduler enqueues it."""
        return self._write(verification.send_again, asked, cause, now)

    def give_up_verification(self, asked: Unverified, cause: str, now: datetime) -> bool:
        """Fail a delivery whose destination does not hold what it took."""
        return self._write(verification.give_up, asked, cause, now)

    def retry_delivery(self, delivery_id: int, worker: str, error: str, now: datetime, after: timedelta) -> bool:
        """Let a claimed delivery be tried again from ``now + after`` on; False where the claim is lost."""
        return self._write(deliveries.retry, delivery_id, worker, error, now, after)

    def fail_delivery(self, delivery_id: int, worker: str, error: str, now: datetime) -> bool:
        """Fail a claimed delivery for the admin to see; False where the claim is lost."""
        return self._write(deliveries.fail, delivery_id, worker, error, now)

    def hold_delivery(self, delivery_id: int, worker: str, reason: str, now: datetime) -> bool:
        """Hold a claimed delivery for a person; False where the claim is lost."""
        return self._write(deliveries.hold, delivery_id, worker, reason, now)

    def release_deliveries(self, worker_prefix: str, now: datetime) -> tuple[int, ...]:
        """Make the deliveries of all workers whose name starts so pending again: they have died."""
        return self._write(deliveries.release, worker_prefix, now)

    def deliveries_to_enqueue(self, now: datetime, quiet: timedelta, limit: int = 500) -> tuple[int, ...]:
        """Deliveries that wait for a worker, or for a verification, and were not enqueued within ``quiet``.

        A few of each destination, for whoever sends them works off the rest; none of one that may not be called yet.
        """
        waiting = self._read(deliveries.to_enqueue, now, quiet, limit)
        return waiting + self._read(verification.to_enqueue, now, quiet, limit)

    def mark_deliveries_dispatched(self, delivery_ids: Sequence[int], now: datetime) -> None:
        """Note that a message was sent for these deliveries."""
        self._write(deliveries.mark_dispatched, delivery_ids, now)

    def requeue_delivery(self, delivery_id: int, actor: str, cause: str, now: datetime) -> None:
        """Send a delivery (again) because a person asks for it; the scheduler enqueues it.

        Raises:
            TransitionError: it is pending, being sent, or withdrawn.
            StudyOnHoldError: its study must be released first.
        """
        self._write(deliveries.requeue, delivery_id, actor, cause, now)

    # Studies

    def study_facts(self, study_id: int) -> StudyFacts:
        """What triage needs to know of a study."""
        return self._read(studies.facts, study_id, self._rules.patients)

    def record_triage(self, study_id: int, decision: TriageDecision, now: datetime) -> None:
        """Write what triage decided; the same decision again leaves no trace."""
        self._write(studies.record_triage, study_id, decision, now, self._rules.notifications)

    def stable_studies(self, now: datetime, quiet: timedelta, limit: int = 100) -> tuple[int, ...]:
        """Open studies, not held, with nothing waiting, in which nothing has happened for ``quiet``."""
        return self._read(studies.quiet, now, quiet, limit)

    def complete_study(
        self,
        study_id: int,
        results: Sequence[ResultRecord],
        destinations: Mapping[str, Sequence[str]],
        now: datetime,
        activity: int | None = None,
        recorded: str = "",
    ) -> tuple[int, ...] | None:
        """Complete a study with its summary and give the deliveries to enqueue; none where it is ``recorded`` (why).

        None, and nothing written: something arrived or is waiting, the study is on hold, or it was complete before.
        Hand ``activity`` back as ``study_facts`` or ``study_detail`` gave it when the summary was made, so that a
        change since then is noticed; without it only what is dated after ``now`` is.
        """
        return self._write(studies.settle, study_id, results, destinations, now, activity, recorded)

    def hold_study(self, study_id: int, reason: str, actor: str, now: datetime) -> None:
        """Hold a study for a person, with all of it that has not left yet."""
        self._write(holds.hold, study_id, reason, actor, now)

    def release_study(self, study_id: int, actor: str, now: datetime) -> tuple[int, ...]:
        """Release a study on hold and give the jobs to enqueue."""
        return self._write(holds.release, study_id, actor, now)

    def studies_with_stale_objects(self, destinations: Sequence[str], limit: int = 20) -> tuple[int, ...]:
        """Studies of which one of these destinations holds something that is not right any more and is not noted."""
        return self._read(stale_objects.studies_with_stale, destinations, limit)

    def stale_objects(self, study_id: int, destinations: Sequence[str]) -> tuple[StaleObject, ...]:
        """What these destinations hold of a study and must give up, and no note takes back yet."""
        return self._read(stale_objects.stale_objects, study_id, destinations)

    def record_note(
        self, study_id: int, record: ResultRecord, objects: Sequence[StaleObject], now: datetime
    ) -> tuple[int, ...]:
        """Keep a rejection note of ours about ``objects`` of one destination, and give the delivery to enqueue.

        Nothing where these objects have a note by now. It may leave although the study is on hold.
        """
        return self._write(stale_objects.record_note, study_id, record, objects, now)

    def expired_studies(self, before: datetime, after_id: int = 0, limit: int = 100) -> tuple[ExpiredStudy, ...]:
        """Studies that were complete until ``before`` and have nothing to send any more, with the paths of their files.

        In pages: ``after_id`` is the last study of the page before.
        """
        return self._read(retention.expired, before, after_id, limit)

    def files_removed(self, study: ExpiredStudy, now: datetime) -> None:
        """Note that the files of a study are gone: it is expired no more, until something comes to it again."""
        self._write(retention.removed, study, now)

    # Readers and models

    def record_assessment(self, assessment: Assessment, instance_id: int, now: datetime) -> int:
        """Store what a received assessment (the instance ``instance_id``) says of our findings, as feedback.

        Returns:
            How many of its statements fit no finding of ours; they are kept. The same document again changes nothing.
        """
        return self._write(assessments.record, assessment, instance_id, now)

    def model_states(self) -> dict[str, ModelState]:
        """The states that people have given to models; one that nobody has switched is missing."""
        return {name: switch.state for name, switch in model_states(self._engine).items()}

    # Reading

    def worklist(
        self, *, limit: int = 50, offset: int = 0, include_complete: bool = True, search: str = ""
    ) -> tuple[WorklistRow, ...]:
        """Unreported studies in the order in which they are due; ``search`` as in ``ReadingList.page``."""
        return ReadingList(self._read_only).page(
            limit=limit, offset=offset, only_open=not include_complete, search=search
        )

    def find_study(self, reference: str) -> int | None:
        """Find a study by its row (``#3``), study UID, accession number, or the SOP Instance UID of one of its images.

        Raises:
            AmbiguousStudyError: it fits more than one study.
        """
        return self._read(study_details.find_study, reference)

    def study_detail(self, study_id: int) -> StudyDetail:
        """Everything about one study."""
        return self._read(study_details.study_detail, study_id)

    def queue_counts(self) -> dict[str, int]:
        """Count jobs and deliveries by state: ``jobs.queued``, ``deliveries.failed`` …"""
        return self._read(study_details.queue_counts)
