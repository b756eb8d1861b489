"""Draws traces as trees for people: durations, kind, status, service, and why a trace was kept.

Pure functions. What a sender chose is made printable, lines are bounded in width and traces in lines. A span whose
parent is not there stands at the left edge, as does one of each circle of parents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sampler_proxy.errors import printable
from sampler_proxy.otlp.sampling import adjusted_count

MAX_SPANS = 100
"""Spans of one trace that are drawn; how many more there are is said."""

MAX_DEPTH = 40
"""Levels that are indented: what is deeper stands below one another."""

MAX_NAME = 200
"""Characters of a name that are looked at."""

DIM, BOLD, RED, PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[0m"

_KINDS = {
    Span.SPAN_KIND_INTERNAL: "internal",
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}
_THRESHOLD = re.compile(r"(?:^|,)\s*ot=(?:[^,]*;)?th:([0-9a-f]{1,14})(?:[;,]|$)")


class _Seen(NamedTuple):
    span: Span
    service: str


class _Text(NamedTuple):
    """A piece of a line, and how it is shown on a terminal."""

    text: str
    style: str = ""


def draw(request: ExportTraceServiceRequest, width: int, colour: bool) -> str:
    """Draw every trace of a request, in the order in which they come, in lines of at most `width` characters."""
    traces: dict[bytes, list[_Seen]] = {}
    for resource_spans in request.resource_spans:
        service = next(
            (a.value.string_value for a in resource_spans.resource.attributes if a.key == "service.name"), ""
        )
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                traces.setdefault(span.trace_id, []).append(_Seen(span, service))
    lines = (line for trace_id, spans in traces.items() for line in _trace(trace_id, spans))
    return "".join(_shown(line, width, colour) + "\n" for line in lines)


def _trace(trace_id: bytes, spans: Sequence[_Seen]) -> Iterator[list[_Text]]:
    ordered = list(_ordered(spans))
    begin = min(one.span.start_time_unix_nano for one in spans)
    end = max(one.span.end_time_unix_nano for one in spans)
    title = f"trace {trace_id.hex()}"
    count = f"{len(spans)} span{'' if len(spans) == 1 else 's'}"
    yield [_Text(title, BOLD), _Text(f"  {count}  {duration(end - begin)}  "), _Text(_why(ordered[0][0].span), DIM)]
    for one, indent in ordered[:MAX_SPANS]:
        yield [_Text(indent, DIM), *_span(one)]
    if len(ordered) > MAX_SPANS:
        yield [_Text(f"… and {len(ordered) - MAX_SPANS} spans more", DIM)]


def _span(one: _Seen) -> Iterator[_Text]:
    span = one.span
    yield _Text(_name(span.name) or "(no name)")
    yield _Text(f"  {duration(span.end_time_unix_nano - span.start_time_unix_nano)}")
    if span.status.code == Status.STATUS_CODE_ERROR:
        yield _Text(f"  ERROR {_name(span.status.message)}".rstrip(), RED)
    elif span.status.code == Status.STATUS_CODE_OK:
        yield _Text("  OK")
    described = ", ".join(filter(None, (_KINDS.get(span.kind), _name(one.service))))
    yield _Text(f"  {described}" if described else "", DIM)


def _why(span: Span) -> str:
    """Say why a trace was kept, by the attributes of its decision."""
    stamps = {
        attribute.key.removeprefix("sampler_proxy."): attribute.value
        for attribute in span.attributes
        if attribute.key.startswith("sampler_proxy.")
    }
    rule = f" by {_name(stamps['rule'].string_value)}" if "rule" in stamps else ""
    reason = f" ({_name(stamps['reason'].string_value)})" if "reason" in stamps else ""
    if "sampled_out" in stamps:
        return f"sampled out{rule}{reason}"
    found = _THRESHOLD.search(span.trace_state)
    count = adjusted_count(int(found[1].ljust(14, "0"), 16)) if found else 1
    return (
        f"kept{rule}{reason}"
        f"{'' if count == 1 else f', stands for {count:.4g}'}{', incomplete' if 'incomplete' in stamps else ''}"
    )


def _ordered(spans: Sequence[_Seen]) -> Iterator[tuple[_Seen, str]]:
    """Yield each span once, parents before children and these by their start, with the lines in front of it."""
    by_id = {one.span.span_id: one for one in spans}
    children: dict[bytes, list[_Seen]] = {}
    for one in spans:
        parent = one.span.parent_span_id if one.span.parent_span_id in by_id else b""
        children.setdefault(parent, []).append(one)
    for each in children.values():
        each.sort(key=lambda one: one.span.start_time_unix_nano)
    drawn: set[int] = set()
    # The spans to the left, then whatever only circles lead to.
    for top in (*children.pop(b"", ()), *spans):
        stack = [(top, "", "")]
        while stack:
            one, indent, branch = stack.pop()
            if id(one) in drawn:
                continue
            drawn.add(id(one))
            yield one, indent + branch
            # Once, for what has the same id: these are below the first.
            below = [child for child in children.pop(one.span.span_id, ()) if id(child) not in drawn]
            inner = indent + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
            if len(inner) >= 3 * MAX_DEPTH:
                inner = indent
            for number, child in enumerate(reversed(below)):
                stack.append((child, inner, "├─ " if number else "└─ "))


def duration(ns: int) -> str:
    """Write a duration in the unit that suits it, in three digits: 1.23 s, 45.6 ms, 789 µs."""
    if ns < 0:
        return "ends before it begins"
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if ns >= size * 0.9995:  # what would be rounded to a thousand of the smaller unit
            value = ns / size
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
    return f"{ns} ns"


def _name(text: str) -> str:
    return printable(text[:MAX_NAME]) + ("…" if len(text) > MAX_NAME else "")


def _shown(line: Sequence[_Text], width: int, colour: bool) -> str:
    """Join the pieces of a line, cut to `width` characters."""
    left = width
    parts = []
    for text, style in line:
        if len(text) > left:
            text = text[: max(left - 1, 0)] + "…"
        left -= len(text)
        parts.append(f"{style}{text}{PLAIN}" if colour and style and text else text)
        if left <= 0:
            break
    return "".join(parts)
