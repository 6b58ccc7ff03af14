"""Real worker processes against a real broker and database: what is enqueued runs, once, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from db.queries import study_details
from db.queries.worklist import Worklist
from tests.orthanc import running_orthanc
from tests.workers.conftest import Broker
from tests.workers.harness import Parts, expected_results, running_parts

pytestmark = [pytest.mark.slow]

KNOWN = {"pleura": ("PLEURA", 1)}


@pytest.mark.peer("Orthanc")
@pytest.mark.parametrize(
    "kind", ["embedded", pytest.param("redis-server", marks=[pytest.mark.peer("redis-server"), pytest.mark.campaign])]
)
def test_an_enqueued_job_brings_its_results_to_the_pacs_and_a_flushed_broker_loses_nothing(
    make_broker: Callable[[str], Broker], tmp_path: Path, kind: str
) -> None:
    broker = make_broker(kind)
    with running_orthanc(tmp_path / "pacs", modalities=KNOWN) as pacs, running_parts(tmp_path, broker, pacs) as parts:
        uid = parts.take_in("1.2.3.100")
        parts.wait_until(lambda: parts.counts() == {"jobs.done": 1, "deliveries.sent": 2}, "the results to be sent")
        # The same messages again: nothing to be claimed, nothing sent.
        parts.task_queue.enqueue_jobs([(1, False), (1, True)])
        parts.task_queue.enqueue_deliveries([1, 2, 1])
        parts.take_in("1.2.3.101")
        parts.wait_until(lambda: parts.counts() == {"jobs.done": 2, "deliveries.sent": 4}, "the second image")
        on_hold = {dataset.SOPInstanceUID for dataset in pacs.datasets()}
        assert on_hold == expected_results(uid) | expected_results("1.2.3.101")
        # The second study is of the same patient: its pneumothorax is known.
        assert [row.priority.value for row in Worklist(parts.database.engine).page()] == [
            "critical",
            "urgent",
        ]
        # Without a message, as after a flush.
        for number in (102, 103):
            parts.take_in(f"1.2.3.{number}", enqueue=False)
        parts.wait_until(lambda: parts.counts().get("jobs.done") == 4, "the scheduler to enqueue both")


def test_a_stuck_job_is_stopped_tried_again_and_failed(broker: Broker, tmp_path: Path) -> None:
    with running_parts(tmp_path, broker, job_timeout_seconds=5, attempts=2, unreachable_attempts=1) as parts:
        parts.take_in("1.2.3.100", rows=33)
        parts.take_in("1.2.3.101")
        parts.wait_until(
            lambda: parts.counts().get("jobs.failed") == 1 and parts.counts().get("jobs.done") == 1,
            "the stuck job to be failed and the other to be done",
        )
        study = parts.database.read(study_details.find_study, "1.2.3.100")
        assert study is not None
        (stuck,) = parts.database.read(study_details.study_detail, study).jobs
        assert stuck.attempts == 3
        assert "time limit" in stuck.error
        assert parts.log().count("Hard time limit") == 2
        assert parts.restarts == 0, "only the child may die"


def test_a_stat_study_overtakes_those_that_wait(broker: Broker, tmp_path: Path) -> None:
    parts = Parts(tmp_path, broker, None, unreachable_attempts=1)
    images = [parts.take_in(f"1.2.3.{number}", stat=number == 107) for number in range(100, 110)]
    parts.start()
    try:
        parts.wait_until(lambda: parts.counts().get("jobs.done") == len(images), "all jobs")
        found = [parts.database.read(study_details.find_study, uid) for uid in images]
        jobs = [
            job
            for study in found
            if study is not None
            for job in parts.database.read(study_details.study_detail, study).jobs
        ]
        assert [job.stat for job in sorted(jobs, key=lambda job: str(job.started_at))] == [True] + [False] * 9
    finally:
        parts.stop()


def test_sigterm_lets_the_running_job_finish(broker: Broker, tmp_path: Path) -> None:
    with running_parts(tmp_path, broker, unreachable_attempts=1) as parts:
        for number in range(100, 110):
            parts.take_in(f"1.2.3.{number}")
        parts.wait_until(lambda: parts.counts().get("jobs.done"), "the first job")
        worker = parts.processes.pop("jobs")
        os.kill(worker.pid, signal.SIGTERM)
        assert worker.wait(90) == 0
        assert "jobs.running" not in parts.counts()
        assert "jobs.retrying" not in parts.counts()


def test_workers_outlive_a_broker_that_becomes_a_replica_or_has_no_memory(broker: Broker, tmp_path: Path) -> None:
    with running_parts(tmp_path, broker, unreachable_attempts=1) as parts, Redis.from_url(_redis_url(broker)) as client:
        parts.take_in("1.2.3.100")
        parts.wait_until(lambda: parts.counts().get("jobs.done") == 1, "the first job")
        client.replicaof("127.0.0.1", "1")  # as a failover leaves the former primary
        parts.take_in("1.2.3.101")
        parts.wait_until(lambda: "ReadOnlyError" in parts.log(), "the workers to see")
        client.replicaof("NO", "ONE")
        parts.wait_until(lambda: parts.counts().get("jobs.done") == 2, "the second job")
        client.config_set("maxmemory", 1)
        parts.take_in("1.2.3.102")
        client.client_kill_filter(_type="normal", skipme=True)  # each worker declares its queues again
        parts.wait_until(lambda: "OutOfMemoryError" in parts.log(), "the workers to see")
        client.config_set("maxmemory", 0)
        parts.wait_until(lambda: parts.counts().get("jobs.done") == 3, "the third job")
        assert parts.restarts == 0


def _redis_url(broker: Broker) -> str:
    return f"unix://{broker.socket_path}"


def test_a_worker_that_cannot_be_set_up_ends_with_an_error(broker: Broker, tmp_path: Path) -> None:
    parts = Parts(tmp_path, broker, None)
    found = subprocess.run(
        [sys.executable, "-m", "tests.workers.real_worker", "jobs", str(parts.config)],
        env={**os.environ, "PLEURA_MODELS__ACTIVE": '["no-such-model"]'},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode != 0
    assert "no-such-model" in found.stderr
    assert "WorkerError" in found.stderr
