"""The trace that every client sends, in a form that can be compared whichever client sent it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

START = 1_700_000_000_123_456_789
RESOURCE = {"service.name": "shop", "deployment.environment.name": "test", "place": "Köln"}
VARIABLES = {
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,place=K%C3%B6ln",
}
INTEGER = 2**53 + 1
NEXT_DOUBLE = 2**53 + 2
"""The smallest integer beyond INTEGER's predecessor that a double holds: the one of clients without integers."""

_OWN = "sampler_proxy."  # attributes of the proxy


def _after(milliseconds: int) -> int:
    return START + milliseconds * 1_000_000


def expected(
    integer: int = INTEGER, link_state: str = "vendor=value", more: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the trace by the names of its spans. `integer`: what the client can say beyond 2**53; `link_state`: ""
    for SDKs that leave out the `tracestate` of links; `more`: attributes of the root that only this client sends."""
    attributes: dict[str, Any] = {
        "text": 'héllo ✓ 😀 "quoted"\nline',
        "empty": "",
        "truth": True,
        "integer": integer,
        "negative": -42,
        "double": 0.1,
        "texts": ["a", "", "é"],
        "integers": [1, -2, 3],
        "doubles": [0.5, -2.25],
        "booleans": [True, False],
    }
    link = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", link_state, _typed({"why": "because"}))
    return {
        "GET /orders/{id}": {
            "kind": Span.SPAN_KIND_SERVER,
            "parent": None,
            "times": (START, _after(1500)),
            "attributes": {**_typed(attributes), **(more or {})},
            "events": [("a turn", _after(1), _typed({"n": 1})), ("nothing", _after(2), {})],
            "links": [link],
            "status": (Status.STATUS_CODE_OK, ""),
        },
        "SELECT orders": _plain_span(
            Span.SPAN_KIND_CLIENT, "GET /orders/{id}", 100, 200, (Status.STATUS_CODE_ERROR, "no such table")
        ),
        "publish": _plain_span(Span.SPAN_KIND_PRODUCER, "SELECT orders", 150, 160, (Status.STATUS_CODE_UNSET, "")),
    }


def _plain_span(kind: int, parent: str, start_ms: int, end_ms: int, status: tuple[int, str]) -> dict[str, Any]:
    times = (_after(start_ms), _after(end_ms))
    nothing: dict[str, Any] = {"attributes": {}, "events": [], "links": []}
    return {"kind": kind, "parent": parent, "times": times, "status": status, **nothing}


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """Name the type of every value, as True == 1 == 1.0 to Python."""
    return {key: _typed_value(value) for key, value in values.items()}


def _typed_value(value: Any) -> tuple[str, Any]:
    if isinstance(value, list):
        return "array", [_typed_value(each) for each in value]
    return type(value).__name__, value


def _read_value(value: AnyValue) -> tuple[str, Any]:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return "array", [_read_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return "map", _read(value.kvlist_value.values)
    assert kind is not None, "a value with nothing in it"
    return type(getattr(value, kind)).__name__, getattr(value, kind)


def _read(attributes: Iterable[KeyValue]) -> dict[str, tuple[str, Any]]:
    found = [(each.key, _read_value(each.value)) for each in attributes if not each.key.startswith(_OWN)]
    assert len(dict(found)) == len(found), "a key comes twice"
    return dict(found)


def arrived(requests: Iterable[ExportTraceServiceRequest]) -> list[dict[str, dict[str, Any]]]:
    """Return the traces that came, each as `expected` does, in the order of their first spans. Checks what they have in
    common: resource and scope."""
    traces: dict[bytes, dict[bytes, Span]] = {}
    for request in requests:
        for resource_spans in request.resource_spans:
            resource = _read(resource_spans.resource.attributes)
            assert RESOURCE.items() <= {key: value for key, (_, value) in resource.items()}.items(), resource
            for scope_spans in resource_spans.scope_spans:
                assert (scope_spans.scope.name, scope_spans.scope.version) == ("clients", "1.2.3")
                for span in scope_spans.spans:
                    spans = traces.setdefault(span.trace_id, {})
                    assert span.span_id not in spans, "a span came twice"
                    spans[span.span_id] = span
    return [{span.name: _shown(span, spans) for span in spans.values()} for spans in traces.values()]


def _shown(span: Span, spans: dict[bytes, Span]) -> dict[str, Any]:
    assert not span.dropped_attributes_count + span.dropped_events_count + span.dropped_links_count
    return {
        "kind": span.kind,
        "parent": spans[span.parent_span_id].name if span.parent_span_id else None,
        "times": (span.start_time_unix_nano, span.end_time_unix_nano),
        "attributes": _read(span.attributes),
        "events": [(each.name, each.time_unix_nano, _read(each.attributes)) for each in span.events],
        "links": [
            (each.trace_id.hex(), each.span_id.hex(), each.trace_state, _read(each.attributes)) for each in span.links
        ],
        "status": (span.status.code, span.status.message),
    }
