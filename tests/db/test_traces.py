"""What has ended is given once, with its transitions, on both databases (spans: tests/workers/test_traces.py)."""

from __future__ import annotations

import pytest

from db import deliveries, jobs
from db.database import Database
from db.queries.traces import Ends, TracedDelivery, TracedImage, TracedJob
from tests.commands import record_instance
from tests.db.examples import LATERAL, MINUTE, NOW, PIPELINE, finished, received


def test_each_end_comes_once_with_what_led_to_it(database: Database) -> None:
    finished(database, study=9)
    ends = Ends()
    assert database.read(ends.new) == [], "what was before the first look is no news"
    job_id, delivery_ids = finished(database)
    record_instance(database, received(2), LATERAL, PIPELINE, NOW)
    job, lateral = database.read(ends.new)
    assert isinstance(job.record, TracedJob)
    assert isinstance(lateral.record, TracedImage)
    assert (job.event.entity_id, job.event.after, job.record.is_first) == (job_id, "done", True)
    assert [one.after for one in job.transitions] == ["queued", "running", "done"]
    assert lateral.record.code == "lateral"
    assert database.read(ends.new) == []
    assert database.write(deliveries.claim, delivery_ids[0], "d1", NOW, MINUTE)
    assert database.read(ends.new) == []
    assert database.write(deliveries.sent, delivery_ids[0], "d1", NOW)
    (delivery,) = database.read(ends.new)
    assert isinstance(delivery.record, TracedDelivery)
    assert (delivery.record.destination, delivery.record.kind) == ("pacs", "seg")
    assert delivery.record.image == job.record.image
    assert [one.after for one in delivery.transitions] == ["pending", "sending", "sent"]
    database.write(jobs.requeue, job_id, "ada", "again", NOW)
    assert database.read(ends.new) == []


def test_what_has_piled_up_comes_in_parts_and_each_end_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.queries.traces._AT_ONCE", 2)
    ends = Ends()
    database.read(ends.new)
    made = [finished(database, number)[0] for number in range(1, 6)]
    rounds = [[one.event.entity_id for one in database.read(ends.new)] for _ in range(4)]
    assert rounds == [made[:2], made[2:4], made[4:], []]
