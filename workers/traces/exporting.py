"""Sending of traces to an OpenTelemetry collector, by OTLP over HTTP, from a thread of the scheduler's process.

Spans are made of rows that others have written, so nothing waits for a collector, and a process that is killed loses no
span. When the collector does not answer, spans are dropped after a while: a trace is no record.

The libraries are those of the extra ``traces``: this module is imported only where ``traces`` is enabled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from config.settings import Settings
from config.traces import Traces
from db.database import Database
from db.queries.traces import Ends
from workers.open_database import database_of
from workers.repeat import repeating
from workers.traces.spans import Span, spans_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_KINDS = {"instance": SpanKind.SERVER, "analyse": SpanKind.CONSUMER, "send": SpanKind.CLIENT, "verify": SpanKind.CLIENT}


@dataclass(slots=True)
class _Numbers(IdGenerator):
    """Gives a span the numbers that follow from its rows."""

    trace: int = 0
    span: int = 0

    def generate_trace_id(self) -> int:
        """The trace of the span that is made now."""
        return self.trace

    def generate_span_id(self) -> int:
        """The number of the span that is made now."""
        return self.span


class SpanSender:
    """Gives spans to OpenTelemetry, whose own thread sends them in batches. For one thread."""

    def __init__(self, traces: Traces, node: str) -> None:
        """Connect to nothing yet. ``node`` names this node among those that one collector hears."""
        secret = traces.authorization
        exporter = OTLPSpanExporter(
            endpoint=traces.endpoint,
            certificate_file=str(traces.ca_file) if traces.ca_file else None,
            headers={"authorization": secret.get_secret_value()} if secret else {},
            timeout=traces.timeout_seconds,
        )
        about = {"service.name": "pleura", "service.version": version("pleura"), "service.instance.id": node}
        self._numbers = _Numbers()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource(about), id_generator=self._numbers, shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=1000 * traces.interval_seconds)
        )
        self._tracer: Tracer = self._provider.get_tracer("pleura")

    def send(self, span: Span) -> None:
        """Send a span that has ended; it waits in memory for the next batch."""
        self._numbers.trace, self._numbers.span = span.trace, span.id
        parent = SpanContext(span.trace, span.parent, is_remote=True, trace_flags=_SAMPLED)
        start = _nanoseconds(span.start)
        made = self._tracer.start_span(
            span.name,
            context=set_span_in_context(NonRecordingSpan(parent)) if span.parent else Context(),
            kind=_KINDS.get(span.name, SpanKind.INTERNAL),
            attributes={name: value for name, value in span.attributes.items() if value != ""},
            start_time=start,
        )
        if span.failed:
            made.set_status(Status(StatusCode.ERROR))
        made.end(max(start, _nanoseconds(span.end)))  # machines have clocks of their own

    def close(self) -> None:
        """Send what waits, and end the thread."""
        self._provider.shutdown()


@dataclass(slots=True)
class Tracing:
    """Sends the spans of what has ended since the last round, while this scheduler ``acts``."""

    database: Database
    sender: SpanSender
    acts: Callable[[], bool] = lambda: True
    ends: Ends = field(default_factory=Ends)

    def once(self) -> None:
        """One round."""
        news, acts = self.database.read(self.ends.new), self.acts()
        for ended in news if acts else ():
            for span in spans_of(ended):
                self.sender.send(span)


@contextmanager
def sending_traces(
    settings: Settings, stop: threading.Event, acts: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Send traces in the background until the block ends, which sets ``stop``."""
    database = database_of(settings)
    tracing = Tracing(database, SpanSender(settings.traces, settings.listener.ae_title), acts)
    tracing.once()  # from now on
    try:
        with repeating(stop, {"traces": tracing.once}, settings.traces.interval_seconds):
            yield
    finally:
        tracing.sender.close()
        database.engine.dispose()


def _nanoseconds(at: datetime) -> int:
    """Since 1970, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
