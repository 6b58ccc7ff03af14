"""Killed with -9 under load, at every named point of a job and a delivery: the PACS ends up with exactly its results.

What the PACS holds is asked of Orthanc; which UIDs it must hold is derived from the images, not from our database.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.orthanc import running_orthanc
from tests.workers.conftest import Broker
from tests.workers.harness import expected_results, running_parts

pytestmark = [pytest.mark.campaign, pytest.mark.slow, pytest.mark.peer("Orthanc")]

JOB_POINTS = ["job-claimed", "predicting", "results-written", "job-finished"]
DELIVERY_POINTS = ["delivery-claimed", "object-sent", "delivery-noted"]
KNOWN = {"pleura": ("PLEURA", 1)}
KINDS = ("seg", "sr", "lungs")


@pytest.mark.parametrize("victim", ["child", "parent"])
def test_a_killed_worker_leaves_nothing_undone(broker: Broker, tmp_path: Path, victim: str) -> None:
    with (
        running_orthanc(tmp_path / "pacs", modalities=KNOWN) as pacs,
        running_parts(tmp_path, broker, pacs, attempts=30, kinds=KINDS) as parts,
    ):
        taken_in: list[str] = []
        for point in JOB_POINTS + DELIVERY_POINTS:
            parts.arm(point, victim)
            taken_in += parts.take_in_next(3)
            parts.wait_until(lambda point=point: (point, victim) in parts.hits(), f"the kill at {point}")
        done = {"jobs.done": len(taken_in), "deliveries.sent": len(KINDS) * len(taken_in)}
        parts.wait_until(lambda: parts.counts() == done, f"{done}")
        assert parts.hits() == [(point, victim) for point in JOB_POINTS + DELIVERY_POINTS]
        on_hold = sorted(dataset.SOPInstanceUID for dataset in pacs.datasets())
        assert on_hold == sorted(uid for image in taken_in for uid in expected_results(image, KINDS))


def test_a_killed_broker_loses_nothing(broker: Broker, tmp_path: Path) -> None:
    with (
        running_orthanc(tmp_path / "pacs", modalities=KNOWN) as pacs,
        running_parts(tmp_path, broker, pacs, attempts=30) as parts,
    ):
        taken_in: list[str] = []
        for when in ("idle", "jobs run", "deliveries run", "nobody can enqueue"):
            if when != "idle":
                taken_in += parts.take_in_next(6)
            if when == "jobs run":
                parts.wait_until(lambda: parts.counts().get("jobs.done", 0) > 0, "a first job")
            if when == "deliveries run":
                parts.wait_until(lambda: parts.counts().get("deliveries.sent", 0) > 12, "a first delivery")
            broker.kill()
            if when == "nobody can enqueue":
                taken_in += parts.take_in_next(3)
            broker.start()
        done = {"jobs.done": len(taken_in), "deliveries.sent": 2 * len(taken_in)}
        parts.wait_until(lambda: parts.counts() == done, f"{done}")
        assert parts.restarts == 0, "a broker that dies takes no worker with it"
        assert "EMERGENCY" not in parts.log(), "kombu dumps what it cannot put back"
        on_hold = sorted(dataset.SOPInstanceUID for dataset in pacs.datasets())
        assert on_hold == sorted(uid for image in taken_in for uid in expected_results(image))
