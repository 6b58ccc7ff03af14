"""The sweep: once a second it looks in the database for what nobody is working on.

It rings again for doorbells that were lost with a broker or a process, tells of jobs that take too long, settles the
studies that have come to rest and removes files that have been kept long enough. Every step is harmless when it runs
twice, so two sweeps on one database do no more than ring twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from config.settings import Settings
from db.records import ResultRecord, StudyFacts, TriageDecision
from workers.clock import Clock
from workers.files import write_durably
from workers.outcome import EncodedResult, kinds_of_studies
from workers.retention import Retention
from workers.settling import comes_too_late, may_settle
from workers.worklist import triage_study

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0


class WaitingJobs(Protocol):
    """What ringing for jobs needs of :class:`db.worklist.Worklist`."""

    def jobs_to_ring(self, now: datetime, quiet: timedelta, limit: int = 500) -> tuple[tuple[int, bool], ...]:
        """Jobs (id, STAT) that may be taken and were not rung for within ``quiet``."""
        ...

    def mark_rung(self, job_ids: Sequence[int], now: datetime) -> None:
        """Note that the doorbell was rung."""
        ...


class WaitingDeliveries(Protocol):
    """What ringing for deliveries needs of :class:`db.worklist.Worklist`."""

    def deliveries_to_ring(self, now: datetime, quiet: timedelta, limit: int = 500) -> tuple[int, ...]:
        """Deliveries that may be taken and were not rung for within ``quiet``."""
        ...

    def mark_deliveries_rung(self, delivery_ids: Sequence[int], now: datetime) -> None:
        """Note that the doorbell was rung."""
        ...


class SweptWorklist(WaitingJobs, WaitingDeliveries, Protocol):
    """What the sweep needs of :class:`db.worklist.Worklist`."""

    def late_jobs(self, now: datetime, older_than: timedelta) -> tuple[int, ...]:
        """Jobs that are still open and older than that."""
        ...

    def quiet_studies(self, now: datetime, quiet: timedelta, limit: int = 100) -> tuple[int, ...]:
        """Open studies of which nothing has been heard for ``quiet``."""
        ...

    def study_facts(self, study_id: int) -> StudyFacts:
        """What triage needs to know."""
        ...

    def record_triage(self, study_id: int, decision: TriageDecision, now: datetime) -> None:
        """Record a decision."""
        ...

    def settle_study(
        self,
        study_id: int,
        results: Sequence[ResultRecord],
        destinations: Mapping[str, Sequence[str]],
        now: datetime,
        activity: int | None = None,
        recorded: str = "",
    ) -> tuple[int, ...] | None:
        """Settle the study; delivery ids, or None where something arrived meanwhile."""
        ...


class Bell(Protocol):
    """The doorbell; see :class:`workers.queue.Doorbell`."""

    def ring_jobs(self, jobs: Iterable[tuple[int, bool]]) -> bool:
        """Ring for jobs; False where nobody heard."""
        ...

    def ring_deliveries(self, delivery_ids: Iterable[int]) -> bool:
        """Ring for deliveries; False where nobody heard."""
        ...


Summarise = Callable[[StudyFacts, TriageDecision], Sequence[EncodedResult]]
"""Makes the summary objects of a study as it is now; nothing where the study has none."""


@dataclass(slots=True)
class Sweep:
    """One sweep; :meth:`once` does everything once. ``told`` remembers which late jobs the log has named,
    ``failures`` how often the summary of a study could not be made."""

    settings: Settings
    worklist: SweptWorklist
    doorbell: Bell
    clock: Clock
    summarise: Summarise
    retention: Retention
    told: set[int] = field(default_factory=set)
    failures: dict[int, int] = field(default_factory=dict)

    def once(self) -> None:
        """Ring, tell, settle and tidy."""
        self.ring()
        self.tell_late_jobs()
        self.settle_quiet_studies()
        self.retention.step(self.clock())

    def ring(self) -> None:
        """Ring for jobs and deliveries that nobody has heard of for a while."""
        quiet = timedelta(seconds=self.settings.workers.lost_doorbell_seconds)
        ring_jobs(self.worklist, self.doorbell, quiet, self.clock())
        ring_deliveries(self.worklist, self.doorbell, quiet, self.clock())

    def tell_late_jobs(self) -> None:
        """Write each job that takes too long to the log, once."""
        limit = timedelta(seconds=self.settings.workers.late_job_seconds)
        late = set(self.worklist.late_jobs(self.clock(), limit))
        for job_id in sorted(late - self.told):
            log.warning("job %d is not done after %.0f s; are the workers running?", job_id, limit.total_seconds())
        self.told = late

    def settle_quiet_studies(self) -> None:
        """Write the summary of each study that has come to rest, and settle it."""
        quiet = timedelta(seconds=self.settings.triage.settle_seconds)
        for study_id in self.worklist.quiet_studies(self.clock(), quiet):
            self._settle(study_id)

    def _settle(self, study_id: int) -> None:
        facts = self.worklist.study_facts(study_id)
        if not may_settle(facts):
            return
        now = self.clock()
        decision = triage_study(study_id, self.worklist, self.settings.triage, now)
        summaries = self._summaries(facts, decision)
        if summaries is None:
            return
        for summary in summaries:
            write_durably(self.settings.store.folder / summary.record.path, [summary.content])
        deliveries = self.worklist.settle_study(
            study_id,
            tuple(summary.record for summary in summaries),
            kinds_of_studies(self.settings.destinations),
            now,
            facts.activity,
            comes_too_late(facts, self.settings.results, now),
        )
        if deliveries:
            self.doorbell.ring_deliveries(deliveries)

    def _summaries(self, facts: StudyFacts, decision: TriageDecision) -> Sequence[EncodedResult] | None:
        """Make the summary; None to try again in the next round. After some rounds the study settles without one.

        One study whose summary cannot be made must not keep the others from settling.
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


def ring_jobs(worklist: WaitingJobs, doorbell: Bell, quiet: timedelta, now: datetime) -> int:
    """Ring for the jobs that wait unheard, and note it where the broker has heard; how many they were."""
    jobs = worklist.jobs_to_ring(now, quiet)
    if jobs and doorbell.ring_jobs(jobs):
        worklist.mark_rung([job_id for job_id, _ in jobs], now)
    return len(jobs)


def ring_deliveries(worklist: WaitingDeliveries, doorbell: Bell, quiet: timedelta, now: datetime) -> int:
    """Ring for the deliveries that wait unheard; how many they were."""
    deliveries = worklist.deliveries_to_ring(now, quiet)
    if deliveries and doorbell.ring_deliveries(deliveries):
        worklist.mark_deliveries_rung(deliveries, now)
    return len(deliveries)


def sweep_until(stop: threading.Event, once: Callable[[], None], seconds: float) -> None:
    """Call ``once`` every ``seconds`` until ``stop`` is set.

    A sweep must outlive whatever it looks after: an error is written to the log, and the next round comes later.
    """
    pause = seconds
    while not stop.wait(pause):
        try:
            once()
        except Exception:
            pause = min(max(pause, seconds) * 2, _LONGEST_PAUSE_SECONDS)
            log.exception("the sweep failed; again in %.0f s", pause)
        else:
            pause = seconds


def run_sweep(settings: Settings, stop: threading.Event) -> None:
    """Sweep, and send notifications, until ``stop`` is set."""
    from workers.compose import sweep_of
    from workers.notifications.sending import notifying

    with notifying(settings, stop):
        sweep_until(stop, sweep_of(settings).once, settings.workers.sweep_seconds)
