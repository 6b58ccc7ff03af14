"""A clock that was an hour ahead and is set back stops nothing."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from db.clock_correction import LongestWaits, pull_back
from db.destinations import Associations
from db.worklist import Worklist
from tests.db.examples import HOUR, MINUTE, NOW, PIPELINE, SECOND, claim, finished, outcome, received, study_of

WAITS = LongestWaits(attempt=5 * MINUTE, verification=2 * HOUR, job_lease=3 * MINUTE, delivery_lease=6 * MINUTE)
AHEAD = NOW + HOUR
QUIET = timedelta(seconds=30)


def test_jobs_go_on(worklist: Worklist, engine: Engine) -> None:
    """Queued, retrying and left behind, all by a clock that was an hour ahead, with a broker that was flushed since."""
    ids = [worklist.record_instance(received(number, number), None, PIPELINE, AHEAD).job_ids[0] for number in (1, 2, 3)]
    claim(worklist, ids[1], now=AHEAD)
    worklist.retry_job(ids[1], "w1", "busy", AHEAD, MINUTE)
    claim(worklist, ids[2], now=AHEAD)
    assert worklist.jobs_to_enqueue(NOW + QUIET, QUIET) == ()

    assert pull_back(engine, NOW, WAITS) > 0
    later = NOW + WAITS.job_lease
    assert {job_id for job_id, _ in worklist.jobs_to_enqueue(later, QUIET)} == set(ids)
    assert all(worklist.claim_job(job_id, "w2", later, MINUTE) for job_id in ids)


def test_deliveries_go_on(worklist: Worklist, engine: Engine) -> None:
    _, (seg, _sr) = finished(worklist)
    associations = Associations(engine)
    assert associations.take(seg, {"pacs": 1}, "w1", AHEAD, MINUTE) is not None
    assert worklist.claim_delivery(seg, "w1", AHEAD, MINUTE) is not None
    worklist.retry_delivery(seg, "w1", "busy", AHEAD, MINUTE)
    associations.silent("pacs", AHEAD + MINUTE)

    pull_back(engine, NOW, WAITS)
    later = NOW + WAITS.delivery_lease
    assert seg in worklist.deliveries_to_enqueue(later, QUIET)
    assert associations.take(seg, {"pacs": 1}, "w2", later, MINUTE) is not None
    assert worklist.claim_delivery(seg, "w2", later, MINUTE) is not None


def test_studies_settle(worklist: Worklist, engine: Engine) -> None:
    (job_id,) = worklist.record_instance(received(), None, PIPELINE, AHEAD).job_ids
    claim(worklist, job_id, now=AHEAD)
    worklist.finish_job(job_id, "w1", outcome(), AHEAD)
    pull_back(engine, NOW, WAITS)
    assert worklist.stable_studies(NOW + QUIET, QUIET) == (study_of(worklist),)


def test_what_waits_as_it_should_is_left_alone(worklist: Worklist, engine: Engine) -> None:
    (job_id,) = worklist.record_instance(received(), None, PIPELINE, NOW).job_ids
    claim(worklist, job_id)
    worklist.retry_job(job_id, "w1", "busy", NOW, 4 * MINUTE)
    finished(worklist, study=2)
    assert pull_back(engine, NOW + SECOND, WAITS) == 0
