"""The scheduler: once a second it looks in the database for work that no process has claimed.

It enqueues again messages that were lost with a broker or a process, tells of jobs that take too long, completes the
studies that are stable and removes files that have been kept long enough. Of several schedulers on one database one
acts (:mod:`workers.leadership`); every step is harmless when it runs twice all the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.exc import OperationalError

from config.settings import Settings
from db import deliveries, jobs, priors, studies
from db.database import Database
from db.records import StudyFacts, TriageDecision
from db.states import JOBS
from workers.analysis_queues import analysis_queues, queue_of
from workers.clock import Clock, Elapsed
from workers.completion import comes_too_late, may_complete
from workers.enqueue import TaskQueue
from workers.errors import database_problem, where_in_code
from workers.job_outcome import EncodedResult, kinds_of_studies
from workers.open_database import triage_again
from workers.retention import Retention
from workers.routing import study_destinations
from workers.store_files import StoreAwayError, demand_store, kept_if_recorded, write_file

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0
_LONGEST_STUDY_PAUSE_SECONDS = 600.0
_STUDIES_AT_ONCE = 100
_COMPLETING_SECONDS = 5.0
_MANY_JOBS = 10
_CLOCK_SECONDS = 60.0
_QUEUES_SECONDS = 60.0
_JOBS_AT_ONCE = 500


Summarise = Callable[[StudyFacts, TriageDecision], Sequence[EncodedResult]]
"""Makes the summary objects of a study as it is now; nothing where the study has none."""


@dataclass(slots=True)
class Pauses:
    """What rests after it has failed, by a key: the longer, the more often in a row. In seconds of ``elapsed``."""

    elapsed: Elapsed
    first: float
    longest: float
    until: dict[object, tuple[float, float]] = field(default_factory=dict)

    def rests(self, key: object) -> bool:
        """Whether it is too early for another try."""
        return key in self.until and self.elapsed() < self.until[key][0]

    def failed(self, key: object) -> float:
        """Note a failure; the seconds until the next try."""
        pause = min(2 * self.until[key][1], self.longest) if key in self.until else self.first
        self.until[key] = (self.elapsed() + pause, pause)
        return pause

    def succeeded(self, key: object) -> None:
        """Forget earlier failures."""
        self.until.pop(key, None)


@dataclass(slots=True)
class Scheduler:
    """One scheduler; :meth:`once` does everything once. ``take_back`` makes the rejection notes that are due (see
    :class:`workers.stale_objects.RejectionNotes`), ``release_dead`` releases what dead workers have claimed
    (:class:`workers.dead_workers.DeadWorkers`). ``warned`` remembers which late jobs the log has named,
    ``failures`` how often the summary of a study could not be made. ``pull_back`` fixes what was stored before the
    clock was set back (:func:`db.clock_correction.pull_back`), and says how much. ``may_act`` is asked before each
    step (:meth:`workers.leadership.Leadership.hold`)."""

    settings: Settings
    database: Database
    task_queue: TaskQueue
    clock: Clock
    summarise: Summarise
    retention: Retention
    take_back: Callable[[datetime], None]
    release_dead: Callable[[datetime], None] = lambda _: None
    pull_back: Callable[[datetime], int] = lambda _: 0
    may_act: Callable[[], bool] = lambda: True
    elapsed: Elapsed = time.monotonic
    warned: set[int] = field(default_factory=set)
    failures: dict[int, int] = field(default_factory=dict)
    pauses: Pauses = field(init=False)
    studies: Pauses = field(init=False)
    clock_due: float = 0.0
    queues_due: float = 0.0

    def __post_init__(self) -> None:
        first = self.settings.workers.scheduler_interval_seconds
        self.pauses = Pauses(self.elapsed, 2 * first, _LONGEST_PAUSE_SECONDS)
        self.studies = Pauses(self.elapsed, 2 * first, _LONGEST_STUDY_PAUSE_SECONDS)

    def once(self) -> None:
        """Do each step: what fails in one keeps no other from its turn."""
        # Retention before what writes: a full disk has room again then.
        steps = (
            ("release the claims of dead workers", lambda: self.release_dead(self.clock())),
            ("look at the queues", self.look_at_the_queues),
            ("enqueue jobs", self.enqueue_jobs),
            ("enqueue deliveries", self.enqueue_deliveries),
            ("look for late jobs", self.tell_late_jobs),
            ("remove old files", self.remove_old_files),
            ("complete studies", self.complete_stable_studies),
            ("take back stale results", lambda: self.take_back(self.clock())),
            ("look at the clock", self.look_at_the_clock),
        )
        for name, step in steps:
            if not self.may_act():
                return
            if not self.pauses.rests(name):
                self._run(name, step)

    def _run(self, name: str, step: Callable[[], None]) -> None:
        try:
            step()
        except OperationalError as error:  # no fault of this code: a sentence instead of a traceback
            reason = database_problem(error)
            log.error("the scheduler could not %s: %s; again in %.0f s", name, reason, self.pauses.failed(name))
        except StoreAwayError as error:
            log.error("the scheduler could not %s: %s; again in %.0f s", name, error.strerror, self.pauses.failed(name))
        except Exception:
            log.exception("the scheduler could not %s; again in %.0f s", name, self.pauses.failed(name))
        else:
            self.pauses.succeeded(name)

    def remove_old_files(self) -> None:
        """Remove the files of a few studies that need them no longer."""
        self.retention.step(self.clock())

    def look_at_the_clock(self) -> None:
        """Once a minute, see to it that nothing waits for a time that a clock which was ahead has written."""
        if self.elapsed() >= self.clock_due:
            self.clock_due = self.elapsed() + _CLOCK_SECONDS
            if pulled := self.pull_back(self.clock()):
                log.warning("the clock was set back; %d times that lay too far ahead were pulled back", pulled)

    def enqueue_jobs(self) -> None:
        """Enqueue again jobs that no worker has claimed for a while."""
        for queue in analysis_queues(self.settings.models):
            enqueue_jobs(self.database, self.task_queue, self._quiet, self.clock(), queue)

    def look_at_the_queues(self) -> None:
        """Once a minute, find jobs in queues that this configuration does not have, let them wait where they are
        taken, and see whether the broker answers."""
        if self.elapsed() < self.queues_due:
            return
        models = self.settings.models
        found = self.database.read(jobs.in_other_queues, analysis_queues(models), _JOBS_AT_ONCE)
        for queue in analysis_queues(models):
            moved = [job_id for job_id, decision in found if queue_of(decision, models) == queue]
            if moved:
                self.database.write(jobs.put_into_queue, moved, queue)
                log.info("%d jobs wait in %s now: the configuration has changed", len(moved), queue)
        self.task_queue.stat_waits(
            analysis_queues(models)[0]
        )  # a broker that is away is in the log on a quiet night, too
        if len(found) < _JOBS_AT_ONCE:
            self.queues_due = self.elapsed() + _QUEUES_SECONDS

    def enqueue_deliveries(self) -> None:
        """Enqueue again deliveries that no worker has claimed for a while."""
        enqueue_deliveries(self.database, self.task_queue, self._quiet, self.clock())

    @property
    def _quiet(self) -> timedelta:
        return timedelta(seconds=self.settings.workers.reenqueue_after_seconds)

    def tell_late_jobs(self) -> None:
        """Write each job that takes too long to the log, once."""
        limit = timedelta(seconds=self.settings.workers.late_job_after_seconds)
        late = set(self.database.read(jobs.late, self.clock(), limit))
        for job_id in sorted(late - self.warned):
            log.warning("job %d is not done after %.0f s; are the workers running?", job_id, limit.total_seconds())
        self.warned = late

    def complete_stable_studies(self) -> None:
        """Write the summary of each study that is stable, and complete it."""
        quiet = timedelta(seconds=self.settings.triage.completion_seconds)
        # However many rest after a failure, those behind them have their turn.
        limit = _STUDIES_AT_ONCE + len(self.studies.until)
        stable = self.database.read(studies.stable, self.clock(), quiet, limit)
        if stable:
            demand_store(self.settings.store.folder)  # or they would be completed without a summary
        until = self.elapsed() + (self._seconds_to_complete() if stable else 0)
        for study_id in stable:
            if self.elapsed() > until:
                return  # the next round goes on here
            if not self.studies.rests(study_id):
                self._try_to_complete(study_id)

    def _seconds_to_complete(self) -> float:
        """How long studies may be completed in one round: no other step waits for longer than that.

        While images wait, they and the processes that analyse them need the processors more: it is a quarter of the
        time then.
        """
        if self.database.read(jobs.as_many_wait, _MANY_JOBS):
            return self.settings.workers.scheduler_interval_seconds / 3
        return _COMPLETING_SECONDS

    def _try_to_complete(self, study_id: int) -> None:
        """Complete a study; what fails in it keeps no other from completing."""
        try:
            self._complete(study_id)
        except OperationalError:
            raise  # the database does not answer: no other study would fare better
        except Exception as error:
            pause = self.studies.failed(study_id)
            # Its words may quote a data set: the log gets where it was, and not those.
            where = where_in_code(error)
            log.error("study %d: %s; again in %.0f s\n%s", study_id, type(error).__name__, pause, where)
        else:
            self.studies.succeeded(study_id)

    def _complete(self, study_id: int) -> None:
        facts, routes = self.database.read(studies.to_complete, study_id, self.database.rules.patients)
        now = self.clock()
        if not may_complete(facts) or self._prior_may_come(study_id, now):
            return
        decision = triage_again(facts, self.database, self.settings.triage, now)
        summaries = self._summaries(facts, decision)
        if summaries is None:
            return
        for summary in summaries:
            write_file(self.settings.store.folder, summary.record.path, summary.content)
        with kept_if_recorded(self.settings.store.folder, (summary.record.path for summary in summaries)):
            delivery_ids = self.database.write(
                studies.complete,
                study_id,
                tuple(summary.record for summary in summaries),
                kinds_of_studies(study_destinations(self.settings.destinations, routes)),
                now,
                facts.activity,
                comes_too_late(facts, self.settings.results, now),
                next((summary.compared_with for summary in summaries), ""),
            )
        if delivery_ids:
            self.task_queue.enqueue_deliveries(delivery_ids)

    def _prior_may_come(self, study_id: int, now: datetime) -> bool:
        """Whether the summary waits for a prior to compare with; never for longer than the site allows."""
        rules = self.settings.priors
        wait = timedelta(seconds=rules.wait_seconds)
        return bool(rules.archive) and self.database.read(priors.may_still_come, study_id, now, wait)

    def _summaries(self, facts: StudyFacts, decision: TriageDecision) -> Sequence[EncodedResult] | None:
        """Make the summary; None to try again in the next round. After some rounds the study completes without one.

        One study whose summary cannot be made must not keep the others from completing.
        """
        try:
            summaries = self.summarise(facts, decision)
        except Exception as error:
            failures = self.failures.get(facts.study_id, 0) + 1
            self.failures[facts.study_id] = failures
            log.error("study %d: no summary (%s, attempt %d)", facts.study_id, type(error).__name__, failures)
            if failures < self.settings.workers.attempts:
                return None
            summaries = ()
        self.failures.pop(facts.study_id, None)
        return summaries


def enqueue_jobs(database: Database, task_queue: TaskQueue, quiet: timedelta, now: datetime, queue: str = JOBS) -> int:
    """Enqueue the jobs of a queue that wait unheard and have no message in the broker; how many have waited.

    So there is one message a job at most, however long they wait for a worker, and a broker that was flushed has them
    again at once.
    """
    waiting = database.read(jobs.to_enqueue, now, quiet, queue=queue)
    there = task_queue.waiting_jobs(queue) if waiting else None
    if there is not None and task_queue.enqueue_jobs([job for job in waiting if job[0] not in there], queue):
        database.write(jobs.mark_dispatched, [job_id for job_id, _ in waiting], now)
    return len(waiting)


def enqueue_deliveries(database: Database, task_queue: TaskQueue, quiet: timedelta, now: datetime) -> int:
    """Enqueue the deliveries that wait unheard, as :func:`enqueue_jobs` does; how many have waited."""
    delivery_ids = database.read(deliveries.to_enqueue, now, quiet)
    there = task_queue.waiting_deliveries() if delivery_ids else None
    if there is not None and task_queue.enqueue_deliveries([each for each in delivery_ids if each not in there]):
        database.write(deliveries.mark_dispatched, delivery_ids, now)
    return len(delivery_ids)
