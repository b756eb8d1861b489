"""Sends the known trace for each line of standard input, as OTEL_EXPORTER_OTLP_* say, and tells "sent" or "failed"."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[assignment]
        OTLPSpanExporter,
    )

START = 1_700_000_000_123_456_789


class Watched(SpanExporter):
    """Passes spans on to the exporter, and keeps what became of them."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.outcome = "nothing was exported"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        self.outcome = "sent" if result is SpanExportResult.SUCCESS else "failed"
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def after(milliseconds: int) -> int:
    return START + milliseconds * 1_000_000


def send(tracer: trace.Tracer) -> None:
    linked = SpanContext(
        0x0AF7651916CD43DD8448EB211C80319C,
        0xB7AD6B7169203331,
        is_remote=True,
        trace_flags=TraceFlags(1),
        trace_state=TraceState([("vendor", "value")]),
    )
    root = tracer.start_span(
        "GET /orders/{id}",
        kind=SpanKind.SERVER,
        start_time=START,
        attributes={
            "text": 'héllo ✓ 😀 "quoted"\nline',
            "empty": "",
            "truth": True,
            "integer": 9007199254740993,
            "negative": -42,
            "double": 0.1,
            "texts": ["a", "", "é"],
            "integers": [1, -2, 3],
            "doubles": [0.5, -2.25],
            "booleans": [True, False],
        },
        links=[Link(linked, {"why": "because"})],
    )
    root.add_event("a turn", {"n": 1}, after(1))
    root.add_event("nothing", timestamp=after(2))
    root.set_status(Status(StatusCode.OK))
    parent = trace.set_span_in_context(root)
    query = tracer.start_span("SELECT orders", parent, kind=SpanKind.CLIENT, start_time=after(100))
    query.set_status(Status(StatusCode.ERROR, "no such table"))
    parent = trace.set_span_in_context(query)
    publish = tracer.start_span("publish", parent, kind=SpanKind.PRODUCER, start_time=after(150))
    publish.end(after(160))
    query.end(after(200))
    root.end(after(1500))


def main() -> None:
    exporter = Watched(OTLPSpanExporter())
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("clients", "1.2.3")
    for _ in sys.stdin:
        send(tracer)
        provider.force_flush()
        print(exporter.outcome, flush=True)
    provider.shutdown()


if __name__ == "__main__":
    main()
