"""Whatever workers, schedulers and admins do in whatever order, the records stay true.

Hypothesis calls the worklist at random against a plain model of what must hold: transitions follow the tables, no
job's results are written twice for one revision, nothing leaves a study on hold, and no lost task queue stays lost.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from db import deliveries, holds, jobs, repeated_instances, studies
from db.database import Database
from db.engine import connect, migrate
from db.errors import StudyOnHoldError, TransitionError
from db.queries import study_details
from db.records import Outcome
from db.shown_records import JobDetail, StudyDetail
from db.states import (
    DELIVERY_TRANSITIONS,
    INSTANCE_TRANSITIONS,
    JOB_TRANSITIONS,
    DeliveryState,
    InstanceState,
    JobState,
)
from tests.commands import record_instance, study_facts
from tests.db.examples import LATERAL, NOW, PIPELINE, SECOND, TO_PACS, finding, received, result
from tests.rules import NO_RULES

LEASE = timedelta(seconds=10)
WORKERS = st.sampled_from(["w1", "w2"])
NUMBERS = st.integers(1, 3)
PICK = st.integers(0, 10)
MEMORY = Path("/dev/shm")


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "node.sqlite"
        engine = connect(f"sqlite:///{path}")
        migrate(engine)
        engine.dispose()
        return path.read_bytes()


class Node(RuleBasedStateMachine):
    """One study with up to three images, two workers, a scheduler and an admin."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        (self.folder / "node.sqlite").write_bytes(_migrated())
        self.engine = connect(f"sqlite:///{self.folder}/node.sqlite")
        self.database = Database(self.engine, NO_RULES)
        self.now: datetime = NOW
        self.claimed: dict[tuple[int, str], int] = {}
        record_instance(self.database, received(1), None, PIPELINE, self.now)

    def teardown(self) -> None:
        self.engine.dispose()
        shutil.rmtree(self.folder)

    def detail(self) -> StudyDetail:
        return self.database.read(study_details.study_detail, 1)

    @rule(seconds=st.integers(1, 15))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(number=NUMBERS, not_eligible=st.booleans(), other=st.booleans())
    def arrive(self, number: int, not_eligible: bool, other: bool) -> None:
        instance = received(number, digest="e" * 64) if other and number == 3 else received(number)
        record_instance(self.database, instance, LATERAL if not_eligible else None, PIPELINE, self.now)

    @rule(pick=PICK, worker=WORKERS)
    def claim(self, pick: int, worker: str) -> None:
        job_ids = self.detail().jobs
        if not job_ids:
            return
        before = job_ids[pick % len(job_ids)]
        on_hold = self.detail().row.on_hold
        if self._compares(before):
            return
        job = self.database.write(jobs.claim, before.id, worker, self.now, LEASE)
        if job is not None:
            assert not on_hold
            assert before.state in (JobState.QUEUED, JobState.RETRYING, JobState.RUNNING)
            self.claimed[before.id, worker] = job.revision

    @rule(worker=WORKERS, difference=st.sampled_from(["", "other pixels"]))
    def compare(self, worker: str, difference: str) -> None:
        """Claim what has come again, and say what it is."""
        for before in self.detail().jobs:
            if not self._compares(before):
                continue
            job = self.database.write(jobs.claim, before.id, worker, self.now, LEASE)
            if job is not None:
                assert job.compare_with
                assert self.database.write(repeated_instances.record_comparison, job.id, worker, difference, self.now)
                assert not self.database.write(
                    repeated_instances.record_comparison, job.id, worker, difference, self.now
                )
                assert self.detail().row.on_hold == bool(difference)

    def _compares(self, job: JobDetail) -> bool:
        instance = next(one for one in self.detail().instances if one.id == job.instance_id)
        return instance.flag == "compare"

    @precondition(lambda self: self.claimed)
    @rule(pick=PICK, end=st.sampled_from(["finish", "not_analysed", "retry", "fail"]))
    def end(self, pick: int, end: str) -> None:
        (job_id, worker), revision = sorted(self.claimed.items())[pick % len(self.claimed)]
        before = next(job for job in self.detail().jobs if job.id == job_id)
        mine = before.state is JobState.RUNNING and before.worker == worker
        if end in ("finish", "not_analysed"):
            first = 1000 * job_id + 10 * revision
            results = (result("seg", first), result("sr", first + 1))
            outcome = Outcome((finding(),), results, LATERAL if end == "not_analysed" else None, {}, TO_PACS)
            kept = self.database.write(jobs.finish, job_id, worker, outcome, self.now)
            assert (kept is not None) == (mine or (before.state is JobState.DONE and before.worker == worker))
        elif end == "retry":
            assert self.database.write(jobs.retry, job_id, worker, "busy", self.now, 5 * SECOND) == mine
        else:
            assert self.database.write(jobs.fail, job_id, worker, "crash", self.now) == mine

    @rule(pick=PICK, worker=WORKERS, end=st.sampled_from(["sent", "retry", "fail", "hold", "die"]))
    def deliver(self, pick: int, worker: str, end: str) -> None:
        delivery_ids = self.detail().deliveries
        if not delivery_ids:
            return
        one = delivery_ids[pick % len(delivery_ids)].id
        claimed = self.database.write(deliveries.claim, one, worker, self.now, LEASE)
        if claimed is None:
            return
        assert not self.detail().row.on_hold
        if end == "sent":
            assert self.database.write(deliveries.sent, one, worker, self.now)
        elif end == "retry":
            assert self.database.write(deliveries.retry, one, worker, "busy", self.now, 5 * SECOND)
        elif end == "fail":
            assert self.database.write(deliveries.fail, one, worker, "no", self.now)
        elif end == "hold":
            assert self.database.write(deliveries.hold, one, worker, "another patient", self.now)

    @rule(worker=WORKERS)
    def workers_die(self, worker: str) -> None:
        self.database.write(jobs.release, worker, self.now)
        self.database.write(deliveries.release, worker, self.now)

    @rule(pick=PICK)
    def ask_again(self, pick: int) -> None:
        detail = self.detail()
        try:
            if detail.deliveries and pick % 2:
                self.database.write(
                    deliveries.requeue, detail.deliveries[pick % len(detail.deliveries)].id, "admin", "again", self.now
                )
            elif detail.jobs:
                self.database.write(jobs.requeue, detail.jobs[pick % len(detail.jobs)].id, "admin", "again", self.now)
        except (TransitionError, StudyOnHoldError):
            assert self.detail() == detail

    @rule(hold=st.booleans())
    def hold_or_release(self, hold: bool) -> None:
        if hold:
            self.database.write(holds.hold, 1, "merged", "admin", self.now)
        else:
            self.database.write(holds.release, 1, "admin", self.now)

    @rule()
    def complete(self) -> None:
        facts = study_facts(self.database, 1)
        number = 900_000 + facts.revision
        self.database.write(studies.complete, 1, (result("summary", number),), TO_PACS, self.now, facts.activity)

    @invariant()
    def the_records_are_true(self) -> None:
        detail = self.detail()
        self.events_follow_the_tables_and_lead_to_where_the_records_are(detail)
        self.counts_are_true(detail)
        self.each_revision_has_its_results_once(detail)
        self.nothing_waits_unheard_or_in_a_held_study(detail)

    def events_follow_the_tables_and_lead_to_where_the_records_are(self, detail: StudyDetail) -> None:
        where: dict[tuple[str, int], str] = {}
        for event in detail.events:
            before = where.get((event.entity, event.entity_id))
            where[event.entity, event.entity_id] = event.to_state
            if before is None or event.entity == "study":
                continue
            assert event.from_state == before
            if event.entity == "job":
                assert JobState(event.to_state) in JOB_TRANSITIONS[JobState(before)]
            elif event.entity == "delivery":
                assert DeliveryState(event.to_state) in DELIVERY_TRANSITIONS[DeliveryState(before)]
            else:
                assert InstanceState(event.to_state) in INSTANCE_TRANSITIONS[InstanceState(before)]
        for name, records in (("job", detail.jobs), ("delivery", detail.deliveries), ("instance", detail.instances)):
            for record in records:
                assert where[name, record.id] == record.state.value

    def counts_are_true(self, detail: StudyDetail) -> None:
        counted = [one for one in detail.instances if one.flag not in ("compare", "repeat")]
        assert detail.row.images == len(counted)
        assert detail.row.not_eligible == sum(one.state is InstanceState.NOT_ELIGIBLE for one in counted)
        facts = study_facts(self.database, 1)
        assert facts.images_not_eligible + facts.images_not_analysed == detail.row.not_eligible
        ended = sum(job.state is JobState.WITHDRAWN for job in detail.jobs)
        assert facts.jobs_waiting + facts.jobs_done + facts.jobs_failed + ended == len(detail.jobs)

    def each_revision_has_its_results_once(self, detail: StudyDetail) -> None:
        keys = [(one.job_id, one.revision, one.record.kind) for one in detail.results]
        assert len(set(keys)) == len(keys)
        for job in detail.jobs:
            if job.state is JobState.DONE:
                assert {(job.id, job.revision, kind) for kind in ("seg", "sr")} <= set(keys)

    def nothing_waits_unheard_or_in_a_held_study(self, detail: StudyDetail) -> None:
        later = self.now + timedelta(hours=1)
        job_ids = {job_id for job_id, _ in self.database.read(jobs.to_enqueue, later, SECOND)}
        delivery_ids = set(self.database.read(deliveries.to_enqueue, later, SECOND))
        if detail.row.on_hold:
            assert not job_ids
            assert not delivery_ids
            return
        open_jobs = (JobState.QUEUED, JobState.RUNNING, JobState.RETRYING)
        assert job_ids == {job.id for job in detail.jobs if job.state in open_jobs}
        open_deliveries = (DeliveryState.PENDING, DeliveryState.SENDING)
        assert delivery_ids == {one.id for one in detail.deliveries if one.state in open_deliveries}
        assert not any(job.state is JobState.ON_HOLD for job in detail.jobs)


TestNode = Node.TestCase
TestNode.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
