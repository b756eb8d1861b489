"""Traces in files, as the tests of trace files and of `explain` need them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SECRET = "s3cret-value"
LOW, HIGH = bytes(15) + b"\x01", b"\xaa" * 9 + b"\xff" * 7  # trace ids: of the smallest randomness, and of the largest


def span(trace_id: bytes, number: int, **fields: Any) -> Span:
    made = Span(trace_id=trace_id, span_id=bytes([0, 0, 0, 0, 0, 0, 0, number]), name=f"step {number}", **fields)
    made.start_time_unix_nano, made.end_time_unix_nano = 1_000, 2_000
    return made


def request(*spans: Span, service: str = "shop") -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    resource_spans = made.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = service
    resource_spans.scope_spans.add().spans.extend(spans)
    return made


def tagged(made: Span, **attributes: str | int) -> Span:
    for key, value in attributes.items():
        field = "string_value" if isinstance(value, str) else "int_value"
        setattr(made.attributes.add(key=key).value, field, value)
    return made


def otlp_json(message: ExportTraceServiceRequest) -> dict[str, Any]:
    """As OTLP has it, with ids in hexadecimal digits."""
    data = MessageToDict(message, use_integers_for_enums=True)
    for resource_spans, of_resource in zip(data["resourceSpans"], message.resource_spans, strict=True):
        for scope_spans, of_scope in zip(resource_spans["scopeSpans"], of_resource.scope_spans, strict=True):
            for one, original in zip(scope_spans["spans"], of_scope.spans, strict=True):
                for holder, ids in ((one, original), *zip(one.get("links", ()), original.links, strict=True)):
                    holder["traceId"], holder["spanId"] = ids.trace_id.hex(), ids.span_id.hex()
                if "parentSpanId" in one:
                    one["parentSpanId"] = original.parent_span_id.hex()
    return data


def one_of_each() -> ExportTraceServiceRequest:
    first = tagged(span(LOW, 1, kind=Span.SPAN_KIND_SERVER), route="é\n{", size=2**60)
    first.links.add(trace_id=HIGH, span_id=b"\x07" * 8)
    second = span(HIGH, 2, parent_span_id=b"\x09" * 8)
    second.events.add(name="retry", time_unix_nano=7)
    second.attributes.add(key="raw").value.bytes_value = b"\x00\xff"
    return request(first, second)


def store(folder: Path, data: str | bytes) -> str:
    file = folder / "traces"
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(file)


def line(**fields: Any) -> str:
    whole = {"traceId": "ab" * 16, "spanId": "cd" * 8, **fields}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [whole]}]}]})


GOOD = line(name=SECRET)
