"""The spans of an image's way, made of its transitions: pure functions. One trace an image.

``instance`` (received until its first job has ended) is the parent of all others: ``queue``, ``analyse`` with
``read``, ``predict``, ``encode`` and ``write``, and a ``deliver`` for each object and destination with its attempts.
Numbers of spans follow from the rows, so parts of a trace that are made by different processes, or twice, fit together.
Attributes hold row numbers, codes and configured names, never anything of a patient.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from db.queries.traces import (
    DELIVERY_ENDS,
    JOB_ENDS,
    Ended,
    TracedDelivery,
    TracedImage,
    TracedJob,
    Transition,
)
from db.states import DeliveryState, InstanceState, JobState

Value = str | int | float
_STAGES = ("read", "predict", "encode", "write")
_NAMES: Mapping[tuple[str, str], str] = {
    ("job", JobState.QUEUED): "queue",
    ("job", JobState.RETRYING): "queue",
    ("job", JobState.RUNNING): "analyse",
    ("job", JobState.ON_HOLD): "on hold",
    ("delivery", DeliveryState.PENDING): "queue",
    ("delivery", DeliveryState.SENDING): "send",
    ("delivery", DeliveryState.SENT): "verify",
    ("delivery", DeliveryState.ON_HOLD): "on hold",
}
"""What a record does in a state that it leaves."""
_GOOD: Mapping[str, frozenset[str]] = {
    "analyse": frozenset({JobState.DONE}),
    "send": frozenset({DeliveryState.SENT}),
    "verify": frozenset({DeliveryState.VERIFIED}),
}
"""Where an attempt leads that has not failed."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time with a name, in the trace of an image. ``parent`` is 0 for the trace's own span."""

    trace: int
    id: int
    parent: int
    name: str
    start: datetime
    end: datetime
    failed: bool = False
    attributes: Mapping[str, Value] = field(default_factory=dict)


def trace_of(image: TracedImage) -> int:
    """Number of an image's trace (16 bytes)."""
    return _number(16, "image", image.id, image.received_at.isoformat())


def spans_of(ended: Ended) -> Iterator[Span]:
    """The spans that an end completes."""
    match ended.record:
        case TracedImage() as image:
            if ended.event.before != InstanceState.ELIGIBLE:  # else its job tells, or it was taken back
                yield _whole(image, ended.event, {"pleura.outcome": "not eligible", "pleura.code": image.code})
        case TracedJob() as job:
            yield from _of_job(ended, job)
        case TracedDelivery() as delivery:
            yield from _of_delivery(ended, delivery)


def _of_job(ended: Ended, job: TracedJob) -> Iterator[Span]:
    trace, root = trace_of(job.image), _root(job.image)
    failed = ended.event.after == JobState.FAILED
    outcome = "failed" if failed else "not analysed" if job.code else "analysed"
    about: dict[str, Value] = {
        "pleura.job.id": ended.event.entity_id,
        "pleura.job.revision": job.revision,
        "pleura.outcome": outcome,
        "pleura.code": "" if failed else job.code,
    }
    if job.is_first and not _ends_before(ended, set(JOB_ENDS)):
        yield _whole(job.image, ended.event, about, failed=failed)
    ran = {"pleura.worker": job.worker, "pleura.device": job.device}
    for span in _periods(ended, trace, root, about, set(JOB_ENDS)):
        yield span
        if span.name == "analyse" and not span.failed:
            yield from _stages(span, job.timings, ran)


def _of_delivery(ended: Ended, delivery: TracedDelivery) -> Iterator[Span]:
    trace, key = trace_of(delivery.image), ended.event.entity_id
    about: dict[str, Value] = {
        "pleura.delivery.id": key,
        "pleura.destination": delivery.destination,
        "pleura.result.kind": delivery.kind,
    }
    whole = _number(8, trace, "delivery", key)
    if ended.event.after != DeliveryState.VERIFIED and not _ends_before(ended, set(DELIVERY_ENDS)):
        begun, failed = ended.transitions[0].at, ended.event.after == DeliveryState.FAILED
        yield Span(trace, whole, _root(delivery.image), "deliver", begun, ended.event.at, failed, about)
    yield from _periods(ended, trace, whole, about, set(DELIVERY_ENDS))


def _whole(image: TracedImage, end: Transition, about: Mapping[str, Value], *, failed: bool = False) -> Span:
    """The span of the image itself."""
    attributes = {
        **about,
        "pleura.study.id": image.study_id,
        "pleura.instance.id": image.id,
        "pleura.instance.bytes": image.byte_count,
        "dicom.transfer_syntax_uid": image.transfer_syntax_uid,
    }
    return Span(trace_of(image), _root(image), 0, "instance", image.received_at, end.at, failed, attributes)


def _periods(ended: Ended, trace: int, parent: int, about: Mapping[str, Value], ends: set[str]) -> Iterator[Span]:
    """Each state that the record has left since its last end, by what it did there."""
    earlier = [number for number, one in enumerate(ended.transitions[:-1]) if one.after in ends]
    since: Sequence[Transition] = ended.transitions[earlier[-1] if earlier else 0 :]
    attempt = 0
    for begin, end in pairwise(since):
        name = _NAMES.get((begin.entity, begin.after))
        if name is None:
            continue
        attempt += name in _GOOD
        attributes = {**about, "pleura.attempt": attempt} if name in _GOOD else about
        failed = name in _GOOD and end.after not in _GOOD[name]
        yield Span(trace, _number(8, trace, "event", begin.id), parent, name, begin.at, end.at, failed, attributes)


def _stages(analysis: Span, timings: Mapping[str, float], about: Mapping[str, Value]) -> Iterator[Span]:
    """The stages of an analysis, which follow each other from its start on."""
    start = analysis.start
    for stage in _STAGES:
        if stage in timings:
            end = min(start + timedelta(seconds=timings[stage]), analysis.end)
            number = _number(8, analysis.trace, analysis.id, stage)
            yield Span(analysis.trace, number, analysis.id, stage, start, end, attributes=about)
            start = end


def _ends_before(ended: Ended, states: set[str]) -> bool:
    """Whether the record had ended before."""
    return any(one.after in states for one in ended.transitions[:-1])


def _root(image: TracedImage) -> int:
    return _number(8, trace_of(image), "root")


def _number(size: int, *words: object) -> int:
    """A number of ``size`` bytes that follows from words; never 0, which OpenTelemetry takes for none."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:size], "big") or 1
