"""A short way to write traces, and the two that decide them: the reference and the product.

    trace(
        span("a", "GET /", ms=(0, 100), kind=SERVER, res={"service.name": "shop"}),
        span("b", parent="a", status=ERROR, attrs={"n": 1}, events=[event("exception", at_ms=3)]),
    )

A span's id is its letters, its parent that of another span (which need not be there) or none. Attributes are written as
Python values: a list is an array, a dict a kvlist, bytes are bytes, None is no value.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sampler_proxy.pipeline import replay
from sampler_proxy.traceql import parse as traceql_parse
from sampler_proxy.traceql.compiler import compile_rules
from tests.support import reference, traceql_reference
from tests.support.reference import Seen

MS = 10**6
START = 1_700_000_000 * 10**9  # of every trace, in nanoseconds
TRACE_ID = bytes.fromhex("00ab34cd000000000000000000000001")

UNSET, OK, ERROR = Status.STATUS_CODE_UNSET, Status.STATUS_CODE_OK, Status.STATUS_CODE_ERROR
INTERNAL, SERVER, CLIENT = Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT
PRODUCER, CONSUMER = Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER


def span_id(letters: str) -> bytes:
    return letters.encode().rjust(8, b"\0")


def any_value(plain: Any) -> AnyValue:
    value = AnyValue()
    if isinstance(plain, list):
        value.array_value.SetInParent()
        value.array_value.values.extend(any_value(element) for element in plain)
    elif isinstance(plain, dict):
        value.kvlist_value.SetInParent()
        value.kvlist_value.values.extend(attributes(plain))
    elif plain is not None:
        kinds = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value", bytes: "bytes_value"}
        setattr(value, kinds[type(plain)], plain)
    return value


def attributes(plain: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in plain.items()]


def event(name: str = "", at_ms: float = 0, **attrs: Any) -> tuple[str, float, dict[str, Any]]:
    """`at_ms`: after the start of its span."""
    return name, at_ms, attrs


def link(trace: str = "", to: str = "", **attrs: Any) -> Span.Link:
    """`trace`: a trace id in hex."""
    return Span.Link(trace_id=bytes.fromhex(trace), span_id=span_id(to), attributes=attributes(attrs))


def span(
    letters: str,
    name: str = "",
    *,
    parent: str = "",
    ms: tuple[float, float] = (0, 1),
    kind: Span.SpanKind.ValueType = INTERNAL,
    status: Status.StatusCode.ValueType = UNSET,
    message: str = "",
    attrs: Mapping[str, Any] | None = None,
    res: Mapping[str, Any] | None = None,
    scope: tuple[str, str] = ("", ""),
    scope_attrs: Mapping[str, Any] | None = None,
    events: Iterable[tuple[str, float, dict[str, Any]]] = (),
    links: Iterable[Span.Link] = (),
) -> Seen:
    """`ms`: start and end, in milliseconds after the start of the trace. `scope`: name and version."""
    start, end = (START + round(at * MS) for at in ms)
    return Seen(
        Resource(attributes=attributes(res or {})),
        InstrumentationScope(name=scope[0], version=scope[1], attributes=attributes(scope_attrs or {})),
        Span(
            trace_id=TRACE_ID,
            span_id=span_id(letters),
            parent_span_id=span_id(parent) if parent else b"",
            name=name,
            kind=kind,
            status=Status(code=status, message=message),
            start_time_unix_nano=start,
            end_time_unix_nano=end,
            attributes=attributes(attrs or {}),
            events=[
                Span.Event(name=name, time_unix_nano=start + round(at * MS), attributes=attributes(plain))
                for name, at, plain in events
            ],
            links=links,
        ),
    )


def trace(*spans: Seen) -> list[Seen]:
    return list(spans)


def request(spans: Sequence[Seen]) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    for one in spans:
        message.resource_spans.add(resource=one.resource).scope_spans.add(scope=one.scope, spans=[one.span])
    return message


def cut(spans: Sequence[Seen], random: Random) -> list[ExportTraceServiceRequest]:
    """The spans in any order, over any number of requests."""
    rest = random.sample(spans, len(spans))
    requests = []
    while rest:
        size = random.randint(1, len(rest))
        requests.append(request(rest[:size]))
        rest = rest[size:]
    return requests


parse = functools.lru_cache(maxsize=256)(traceql_parse.parse)  # every text is used more than once


def reference_selects(expression: str, requests: Sequence[ExportTraceServiceRequest]) -> bool:
    (found,) = reference.traces(requests).values()
    return traceql_reference.selects(parse(expression), found)


def product_selects(expression: str, requests: Sequence[bytes]) -> bool:
    return product_rule([(expression, None)], requests) == 0


def product_rule(pairs: Sequence[tuple[str, str | None]], requests: Sequence[bytes]) -> int:
    """Which of the rules, `match` and `unless` of each, decides the trace; after them comes one that takes the rest."""
    parsed = [(parse(match), parse(unless) if unless is not None else None) for match, unless in pairs]
    names = [str(number) for number in range(len(pairs) + 1)]
    keeps = [1.0] * len(pairs) + [0.0]
    (decided,) = replay.decide(names, keeps, compile_rules([*parsed, (None, None)]), requests)
    assert decided.keep == (decided.rule < len(pairs))
    return int(decided.rule)
