"""Traces of an image's way, from rows to a collector by OTLP."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

from config.settings import Settings
from config.traces import Traces
from db import deliveries, jobs
from db.database import Database
from db.queries.traces import Ended, Ends, TracedDelivery, TracedImage, Transition
from tests.commands import record_instance
from tests.db.examples import LATERAL, MINUTE, NOW, PIPELINE, claim, deliveries_of, outcome, received, record
from tests.otlp import attributes_of, collecting
from workers.traces.exporting import SpanSender, sending_traces
from workers.traces.spans import Span, spans_of, trace_of

SECOND = timedelta(seconds=1)
TIMINGS = {"read": 0.5, "predict": 2.0, "encode": 1.0, "write": 0.25, "predict.gate": 0.1}


def analysed(database: Database, number: int = 1) -> tuple[int, tuple[int, ...]]:
    """An image whose first attempt fails, whose second takes 4 of 5 seconds, and its deliveries."""
    job_id = record(database, number)
    claim(database, job_id, now=NOW + 3 * SECOND)
    database.write(jobs.retry, job_id, "w1", "Doe^Jane broke it", NOW + 5 * SECOND, SECOND)
    claim(database, job_id, worker="w2", now=NOW + 10 * SECOND)
    done = outcome(10 * number, timings=TIMINGS)
    assert database.write(jobs.finish, job_id, "w2", done, NOW + 15 * SECOND) is not None
    return job_id, deliveries_of(database, job_id)


def spans(database: Database, ends: Ends) -> list[Span]:
    return [span for ended in database.read(ends.new) for span in spans_of(ended)]


def seconds(span: Span) -> tuple[str, float, float, bool]:
    return span.name, (span.start - NOW) / SECOND, (span.end - NOW) / SECOND, span.failed


def test_one_trace_tells_where_the_time_of_an_image_went(database: Database) -> None:
    ends = Ends()
    database.read(ends.new)
    _, (seg, _) = analysed(database)
    whole, *parts = spans(database, ends)
    assert seconds(whole) == ("instance", 0, 15, False)
    assert [seconds(one) for one in parts] == [
        ("queue", 0, 3, False),
        ("analyse", 3, 5, True),
        ("queue", 5, 10, False),
        ("analyse", 10, 15, False),
        ("read", 10, 10.5, False),
        ("predict", 10.5, 12.5, False),
        ("encode", 12.5, 13.5, False),
        ("write", 13.5, 13.75, False),
    ]
    assert whole.parent == 0
    assert {one.parent for one in parts[:4]} == {whole.id}
    assert {one.parent for one in parts[4:]} == {parts[3].id}
    assert [one.attributes.get("pleura.attempt") for one in parts[:4]] == [None, 1, None, 2]
    assert parts[4].attributes == {"pleura.worker": "w2", "pleura.device": ""}

    database.write(deliveries.claim, seg, "d1", NOW + 16 * SECOND, MINUTE)
    database.write(deliveries.retry, seg, "d1", "refused", NOW + 17 * SECOND, SECOND)
    database.write(deliveries.claim, seg, "d1", NOW + 20 * SECOND, MINUTE)
    database.write(deliveries.sent, seg, "d1", NOW + 21 * SECOND)
    deliver, *attempts = spans(database, ends)
    assert seconds(deliver) == ("deliver", 15, 21, False)
    assert [seconds(one) for one in attempts] == [
        ("queue", 15, 16, False),
        ("send", 16, 17, True),
        ("queue", 17, 20, False),
        ("send", 20, 21, False),
    ]
    assert deliver.parent == whole.id
    assert {one.parent for one in attempts} == {deliver.id}
    every = [whole, *parts, deliver, *attempts]
    assert {one.trace for one in every} == {whole.trace}
    assert len({one.id for one in every}) == len(every)
    assert (deliver.attributes["pleura.destination"], deliver.attributes["pleura.result.kind"]) == ("pacs", "seg")


def test_a_job_that_is_run_again_adds_to_its_trace_and_another_image_has_another(database: Database) -> None:
    ends = Ends()
    database.read(ends.new)
    job_id, _ = analysed(database)
    first = spans(database, ends)
    database.write(jobs.requeue, job_id, "ada", "again", NOW + 60 * SECOND)
    claim(database, job_id, now=NOW + 61 * SECOND)
    database.write(jobs.fail, job_id, "w1", "broken", NOW + 62 * SECOND)
    again = spans(database, ends)
    assert [seconds(one) for one in again] == [("queue", 60, 61, False), ("analyse", 61, 62, True)]
    assert {one.trace for one in again} == {first[0].trace}
    assert again[0].attributes["pleura.outcome"] == "failed"
    analysed(database, number=2)
    assert {one.trace for one in spans(database, ends)} & {first[0].trace} == set()


def test_an_image_that_is_not_eligible_has_a_trace_with_its_code(database: Database) -> None:
    ends = Ends()
    database.read(ends.new)
    record_instance(database, received(), LATERAL, PIPELINE, NOW)
    (whole,) = spans(database, ends)
    assert (whole.attributes["pleura.outcome"], whole.attributes["pleura.code"]) == ("not eligible", "lateral")


def test_what_the_peer_has_lost_is_a_failed_verification(database: Database) -> None:
    image = TracedImage(1, 1, NOW, "", 1000, "1.2.840.10008.1.2.1")
    assert trace_of(image) != trace_of(replace(image, received_at=NOW + SECOND)), "a new database begins at 1 again"
    states = ["pending", "sending", "sent", "pending", "sending", "sent", "verified"]
    way = tuple(
        Transition(number, 1, "delivery", 5, before, after, NOW + number * SECOND)
        for number, (before, after) in enumerate(zip(["", *states], states, strict=False))
    )

    record_of = TracedDelivery(image, "pacs", "sr")
    found = [
        [seconds(span)[0::3] for span in spans_of(Ended(way[end], record_of, way[: end + 1]))] for end in (2, 5, 6)
    ]
    assert found == [
        [("deliver", False), ("queue", False), ("send", False)],
        [("verify", True), ("queue", False), ("send", False)],
        [("verify", False)],
    ]


def test_a_collector_gets_spans_by_otlp_without_anything_of_the_patient(database: Database, settings: Settings) -> None:
    with collecting() as collector:
        rules = Traces.model_validate(
            {"enabled": True, "endpoint": collector.endpoint, "authorization": "Bearer x", "interval_seconds": 0.05}
        )
        stop = threading.Event()
        with sending_traces(settings.model_copy(update={"traces": rules}), stop):
            _, (seg, _) = analysed(database)
            database.write(deliveries.claim, seg, "d1", NOW + 16 * SECOND, MINUTE)
            database.write(deliveries.sent, seg, "d1", NOW + 21 * SECOND)
            while len(collector.spans) < 12:
                assert not stop.wait(0.02)
    assert collector.headers[0]["authorization"] == "Bearer x"
    found = collector.spans
    names = ["instance", "queue", "analyse", "queue", "analyse", "read", "predict", "encode", "write"]
    assert [span.name for span in found] == [*names, "deliver", "queue", "send"]
    whole, failed = found[0], found[2]
    assert whole.parent_span_id == b""
    assert {span.trace_id for span in found} == {whole.trace_id}
    assert {span.parent_span_id for span in found[1:5]} == {whole.span_id}
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert whole.end_time_unix_nano - whole.start_time_unix_nano == 15_000_000_000
    assert attributes_of(whole)["pleura.outcome"] == "analysed"
    (resource,) = {str(one.resource) for request in collector.requests for one in request.resource_spans}
    assert 'string_value: "pleura"' in resource
    sent = b"".join(collector.bodies)
    for value in (b"Doe", b"Jane", b"P1", b"A-1", b"1.2.826.0"):
        assert value not in sent


def test_without_a_collector_nothing_waits_and_nothing_fails(database: Database, settings: Settings) -> None:
    rules = Traces(enabled=True, endpoint="http://127.0.0.1:9/v1/traces", timeout_seconds=0.1)
    sender = SpanSender(rules, "PLEURA")
    for number in range(5000):
        sender.send(Span(1, number + 1, 0, "instance", NOW, NOW))
    sender.close()
