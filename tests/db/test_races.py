"""Many at once, with real threads and real processes, on both databases."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine

from db import deliveries, holds, jobs, studies, verification
from db.audit import AuditTrail
from db.database import Database
from db.engine import connect
from db.login_attempts import FAILURES_PER_USER, TooManyAttemptsError
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import Job, StudyFacts, TriageDecision
from db.states import Analysis, DeliveryState, JobState, Priority
from db.user_tables import Role
from db.users import Accounts
from tests.commands import record_instance, study_facts
from tests.db.examples import HOUR, MINUTE, NOW, PIPELINE, claim, finished, outcome, received, record, study_of
from tests.db.recorded import deliveries_of_job, queue_counts
from tests.rules import NO_RULES

WORKERS = 8


def together(work: Callable[[int], Any], count: int = WORKERS) -> list[Any]:
    """Call ``work(0)`` … at the same moment and give what they return; an error in any of them is raised."""
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait(60)
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]
    return results


def _claim(database: Database, job_id: int, number: int) -> Job | None:
    return database.write(jobs.claim, job_id, f"w{number}", NOW, MINUTE)


def test_exactly_one_of_many_workers_gets_a_job(database: Database) -> None:
    for study in range(1, 6):
        job_id = record(database, study=study)
        claims = together(partial(_claim, database, job_id))
        (winner,) = (job for job in claims if job is not None)
        assert winner.attempts == 1


def test_exactly_one_of_many_workers_takes_over_an_abandoned_job(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id, "dead")
    later = NOW + HOUR
    claims = together(lambda number: database.write(jobs.claim, job_id, f"w{number}", later, MINUTE))
    assert [job.attempts for job in claims if job is not None] == [2]


def test_exactly_one_of_many_workers_sends(database: Database) -> None:
    job_id, (seg, sr) = finished(database)
    study_id = study_of(database)
    groups = together(lambda n: database.write(deliveries.claim_group, "pacs", job_id, study_id, f"d{n}", NOW, MINUTE))
    assert sorted(one.id for group in groups for one in group) == [seg, sr]


def test_each_object_is_asked_about_once_and_verified_once(database: Database) -> None:
    sent = [number for study in range(1, 6) for number in finished(database, study=study)[1]]
    for number in sent:
        assert database.write(deliveries.claim, number, "d1", NOW, MINUTE) is not None
        assert database.write(deliveries.sent, number, "d1", NOW, MINUTE)
    later = NOW + MINUTE
    claims = together(lambda n: database.write(verification.claim, sent[n], f"2.25.{n + 1}", later, MINUTE))
    asked = [one for claimed in claims for one in claimed]
    assert sorted(one.id for one in asked) == sent
    # An answer that comes twice at once, as when an archive reports on two associations.
    ends = together(lambda _: [database.write(verification.verified, one, later) for one in asked])
    assert [sum(counts) for counts in zip(*ends, strict=True)] == [1] * len(asked)


def test_a_job_that_is_finished_by_two_is_written_once(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id, "w0")
    ends = together(lambda number: database.write(jobs.finish, job_id, f"w{number % 2}", outcome(), NOW))
    assert {end for end in ends if end is not None} == {database.read(deliveries_of_job, job_id)[:1]}
    detail = database.read(study_details.study_detail, study_of(database))
    assert (len(detail.results), len(detail.deliveries), len(detail.jobs[0].findings)) == (2, 2, 1)


def test_the_decision_about_a_study_is_that_of_whoever_knows_more(database: Database) -> None:
    """One image is analysed while triage decides about the study without it."""
    first, second = record(database, 1), record(database, 2)
    study_id = study_of(database)
    claim(database, first, "w1")
    claim(database, second, "w2")
    decides = threading.Event()

    def decide(facts: StudyFacts) -> TriageDecision:
        decides.set()
        time.sleep(0.2)
        priority = Priority.CRITICAL if facts.jobs_done == 2 else Priority.ROUTINE
        return TriageDecision(priority, NOW, Analysis.ANALYSED, f"{facts.jobs_done} images")

    def finish(number: int) -> None:
        job_id = (first, second)[number]
        if number:
            decides.wait(60)
        made = outcome(100 * (number + 1))
        database.write_all(
            [
                (jobs.finish, (job_id, f"w{number + 1}", made, NOW)),
                (studies.triage, (study_id, decide, NO_RULES, NOW)),
            ]
        )

    together(finish, 2)
    row = database.read(study_details.study_detail, study_id).row
    assert (row.priority, row.reason) == (Priority.CRITICAL, "2 images")


def test_associations_that_bring_the_same_instance_record_it_once(database: Database) -> None:
    ingests = together(lambda _: record_instance(database, received(), None, PIPELINE, NOW))
    assert len({ingest.instance_id for ingest in ingests}) == 1
    assert len({ingest.job_ids for ingest in ingests}) == 1
    assert [ingest.repeat for ingest in ingests].count(False) == 1
    detail = database.read(study_details.study_detail, study_of(database))
    assert (detail.row.images, len(detail.instances), len(detail.jobs), len(detail.events)) == (1, 1, 1, 3)


def test_associations_that_bring_one_study_count_every_image(database: Database) -> None:
    together(lambda n: [record_instance(database, received(10 * n + i), None, PIPELINE, NOW) for i in range(5)])
    detail = database.read(study_details.study_detail, study_of(database))
    assert (detail.row.images, len(detail.instances), len(detail.jobs), detail.activity) == (40, 40, 40, 40)
    assert len({one.series_instance_uid for one in detail.instances}) == 1


def test_associations_that_contradict_each_other_are_all_kept_and_on_hold(database: Database) -> None:
    def contradict(number: int) -> Any:
        other = replace(received(), digest=f"{number:064x}", patient_id=f"P{number}")
        return record_instance(database, other, None, PIPELINE, NOW)

    together(contradict)
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.row.on_hold
    assert len(detail.instances) == WORKERS
    assert {job.state for job in detail.jobs} == {JobState.ON_HOLD}


def test_associations_that_bring_one_image_in_other_bytes_leave_one_to_analyse_and_the_rest_to_compare(
    database: Database,
) -> None:
    together(lambda n: record_instance(database, replace(received(), digest=f"{n:064x}"), None, PIPELINE, NOW))
    detail = database.read(study_details.study_detail, study_of(database))
    assert not detail.row.on_hold
    assert detail.row.images == 1
    assert sorted(one.flag for one in detail.instances) == ["", *["compare"] * (WORKERS - 1)]


def test_uids_that_cross_two_studies_do_not_stop_each_other(database: Database) -> None:
    """Two transactions that each want to hold the other's study: the database breaks the deadlock, and one retries."""
    for number in range(4):
        record(database, number + 1, study=1)
        record(database, number + 1, study=2)

    def cross(number: int) -> Any:
        here = number % 2 + 1
        other = received(number // 2 + 1, study=3 - here)
        mine = received(90 + number, study=here, sop_instance_uid=other.sop_instance_uid)
        return record_instance(database, mine, None, PIPELINE, NOW)

    assert all(ingest.conflict for ingest in together(cross))
    assert [row.on_hold for row in Worklist(database.engine).page()] == [True, True]


def test_holding_and_finishing_at_once_leave_nothing_that_can_be_sent(database: Database) -> None:
    for study in range(1, 5):
        job_id = record(database, study=study)
        claim(database, job_id)
        study_id = study_of(database, study)

        def act(number: int, job_id: int = job_id, study_id: int = study_id, study: int = study) -> Any:
            if number:
                return database.write(holds.hold, study_id, "merged", "admin", NOW)
            return database.write(jobs.finish, job_id, "w1", outcome(100 * study), NOW)

        together(act, 2)
        delivery_ids = database.read(study_details.study_detail, study_id).deliveries
        assert {one.state for one in delivery_ids} == {DeliveryState.ON_HOLD}


def test_completing_and_arriving_at_once_never_lose_the_image(database: Database) -> None:
    for study in range(1, 7):
        finished(database, study=study)
        study_id = study_of(database, study)
        seen = study_facts(database, study_id).activity

        def act(number: int, study_id: int = study_id, study: int = study, seen: int = seen) -> Any:
            if number:
                return record_instance(database, received(2, study=study), None, PIPELINE, NOW)
            return database.write(studies.complete, study_id, (), {}, NOW, seen)

        together(act, 2)
        assert database.read(study_details.study_detail, study_id).row.state.value == "open"


def _work(url: str, name: str, count: int, start: Any, won: Any) -> None:
    engine = connect(url)
    database = Database(engine, NO_RULES)
    start.wait(60)
    mine = []
    for job_id in range(1, count + 1):
        if database.write(jobs.claim, job_id, name, NOW, MINUTE) is not None:
            mine.append(job_id)
            assert database.write(jobs.finish, job_id, name, outcome(1000 * job_id), NOW) is not None
    won.put(mine)
    engine.dispose()


@pytest.mark.parametrize("count", [20])
def test_processes_share_the_work_without_doing_any_twice(database: Database, url: str, count: int) -> None:
    for study in range(1, count + 1):
        record(database, study=study)
    context = multiprocessing.get_context("spawn")
    barrier, won = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_work, args=(url, f"w{number}", count, barrier, won)) for number in range(3)]
    for process in processes:
        process.start()
    done = sorted(job for _ in processes for job in won.get(timeout=120))
    for process in processes:
        process.join(60)
    assert done == list(range(1, count + 1))
    assert database.read(queue_counts) == {"jobs.done": count, "deliveries.pending": 2 * count}


def test_a_crowd_of_guesses_at_the_same_moment_gets_no_more_looks_than_the_limit(engine: Engine) -> None:
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    Accounts(engine, hasher).add_user("ada", "correct horse battery", Role.ADMIN, NOW, actor="cli")
    processes = [Accounts(engine, hasher) for _ in range(2)]

    def guess(number: int) -> bool:
        """Whether the password was looked at."""
        try:
            return processes[number % 2].log_in("ada", f"guess {number}", f"10.0.0.{number}", NOW) is None
        except TooManyAttemptsError:
            return False

    assert sum(together(guess, 60)) == FAILURES_PER_USER
    trail = AuditTrail(engine).entries()
    assert sum(entry.action == "log in failed" for entry in trail) == FAILURES_PER_USER
    with pytest.raises(TooManyAttemptsError):
        processes[0].log_in("ada", "correct horse battery", "", NOW + MINUTE)


def test_a_crowd_of_right_passwords_leaves_nobody_locked_out(engine: Engine) -> None:
    accounts = Accounts(engine, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    for number in range(40):
        accounts.add_user(f"user{number}", "correct horse battery", Role.VIEWER, NOW, actor="cli")

    def log_in(number: int) -> None:
        with suppress(TooManyAttemptsError):
            accounts.log_in(f"user{number}", "correct horse battery", "10.0.0.1", NOW)

    together(log_in, 40)
    for number in range(40):
        assert accounts.log_in(f"user{number}", "correct horse battery", "10.0.0.1", NOW) is not None
