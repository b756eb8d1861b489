"""A reference of what the proxy must do, over the official protobuf classes: slow, obvious, sharing no code with it.

A trace is a list of `Seen` in order of arrival. Decisions about the meaning of data, where the specifications leave
room:

attributes  Of several with one key any may fulfil a condition, whatever its operator, and `IS_NIL` wants all of them
            nil; where one value is read (root, arithmetic) the last counts. No value, or a value with nothing in it, is
            nil, as is a missing attribute. An unscoped key is the span's if the span has that key at all (nil, too),
            else the resource's.
values      String, int, double, bool compare; bytes, kvlists and nested arrays are not nil and compare with nothing. An
            int and a double compare as two doubles, the int rounded to nearest, ties to even. NaN equals nothing, so
            `!=` holds. Strings compare as bytes. Bools have no order: `<` and its kin are false.
arrays      Elements that the constant cannot be compared with (nested arrays, bytes, nil, other types) are left out. If
            none is left, every comparison is false. `=`, the orders and MATCH hold if they hold for any element; `!=`
            and NOT_MATCH if they hold for all.
durations   A span has one if its start is not 0 and its end not before it; otherwise DURATION is missing.
fields      An absent message reads like an empty one: name, version and status message are then "", status code and
            kind 0. DURATION and TRACE_DURATION are unsigned 64-bit numbers; ints compare by their mathematical value,
            -1 < any duration.
root        A span whose parent span id has no byte other than zero (none at all, as a rule) has no parent, and
            PARENT_ID "". It is a root. In a trace without any, roots are the spans whose parent is in another process
            by bits 8 and 9 of their flags and not among the spans of the trace. Of several roots: the smallest start,
            then the smallest span id, then the first to arrive. ROOT_SERVICE is the string `service.name` of its
            resource, missing if that is no string. Without a root both are missing, and ROOT_DURATION is
            TRACE_DURATION.
whole       A trace with a span without a parent, or with a root in which every other span has its parent in the trace,
            or in another process.
times       TRACE_DURATION is the largest end less the smallest start of the spans with a start other than 0 and no end
            before it; missing if there are none.
randomness  The smallest valid `rv` of the spans, else the last 7 bytes of the trace id.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from sampler_proxy.traceql.program import AND, FALSE, NOT, OR, TRUE, Condition, Field, Kind, Op
from tests.support import tracestate

ALWAYS = 0  # the threshold that keeps everything
NEVER = 1 << 56  # above every randomness: keeps nothing


class Seen(NamedTuple):
    """A span as it arrived; `envelope`: the ResourceSpans and ScopeSpans that it lay in, encoded without any spans."""

    resource: Resource
    scope: InstrumentationScope
    span: Span
    envelope: tuple[bytes, bytes] = (b"", b"")


Trace = Sequence[Seen]


# Requests and traces


def invalid(span: Span) -> str | None:
    """Return the id for which a span is rejected alone; None: it is valid."""
    if len(span.trace_id) != 16 or not any(span.trace_id):
        return "trace_id"
    if len(span.span_id) != 8 or not any(span.span_id):
        return "span_id"
    return None


def seen(request: ExportTraceServiceRequest) -> list[Seen]:
    """List every span of a request, the invalid ones too, in order.

    Envelopes have the known fields of a ResourceSpans and ScopeSpans: the manual says that the others are dropped.
    """
    found = []
    for resource_spans in request.resource_spans:
        outer = ResourceSpans(schema_url=resource_spans.schema_url)
        if resource_spans.HasField("resource"):
            outer.resource.CopyFrom(resource_spans.resource)
        for scope_spans in resource_spans.scope_spans:
            inner = ScopeSpans(schema_url=scope_spans.schema_url)
            if scope_spans.HasField("scope"):
                inner.scope.CopyFrom(scope_spans.scope)
            envelope = (deterministic(outer), deterministic(inner))
            found += [Seen(resource_spans.resource, scope_spans.scope, span, envelope) for span in scope_spans.spans]
    return found


def traces(requests: Iterable[ExportTraceServiceRequest]) -> dict[bytes, list[Seen]]:
    """Group the valid spans of requests by trace id, both in order of arrival."""
    found: dict[bytes, list[Seen]] = {}
    for request in requests:
        for one in seen(request):
            if invalid(one.span) is None:
                found.setdefault(one.span.trace_id, []).append(one)
    return found


def deterministic(message: Any) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


# Facts about a trace


def has_parent(span: Span) -> bool:
    return any(span.parent_span_id)


def remote(span: Span) -> bool:
    return span.flags >> 8 & 1 == 1 and span.flags >> 9 & 1 == 1


def roots(trace: Trace) -> list[Seen]:
    ids = {one.span.span_id for one in trace}
    return [one for one in trace if not has_parent(one.span)] or [
        one for one in trace if remote(one.span) and one.span.parent_span_id not in ids
    ]


def whole(trace: Trace) -> bool:
    ids = {one.span.span_id for one in trace}
    return any(not has_parent(one.span) for one in trace) or (
        bool(roots(trace)) and all(remote(one.span) or one.span.parent_span_id in ids for one in trace)
    )


def root(trace: Trace) -> Seen | None:
    candidates = roots(trace)
    return min(candidates, key=lambda one: (one.span.start_time_unix_nano, one.span.span_id), default=None)


def root_service(trace: Trace) -> bytes | None:
    top = root(trace)
    found = last_value(top.resource.attributes, b"service.name") if top else None
    return found.string_value.encode() if found is not None and found.WhichOneof("value") == "string_value" else None


def duration(span: Span) -> int | None:
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    return end - start if start != 0 and end >= start else None


def trace_duration(trace: Trace) -> int | None:
    usable = [
        (one.span.start_time_unix_nano, one.span.end_time_unix_nano)
        for one in trace
        if one.span.start_time_unix_nano != 0 and one.span.end_time_unix_nano >= one.span.start_time_unix_nano
    ]
    return max(end for _, end in usable) - min(start for start, _ in usable) if usable else None


def root_duration(trace: Trace) -> int | None:
    top = root(trace)
    return duration(top.span) if top else trace_duration(trace)


def randomness(trace: Trace) -> int:
    explicit = [tracestate.parse(one.span.trace_state.encode()).randomness for one in trace]
    return min((value for value in explicit if value is not None), default=int.from_bytes(trace[0].span.trace_id[9:]))


def incoming_thresholds(trace: Trace) -> set[int]:
    """Collect the thresholds of the spans, 0 where absent. More than one: the trace's counts are biased."""
    return {tracestate.parse(one.span.trace_state.encode()).threshold or 0 for one in trace}


# Conditions

ORDERS: dict[Op, Callable[[Any, Any], bool]] = {
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.GE: operator.ge,
}


def last_value(attributes: Iterable[KeyValue], key: bytes) -> AnyValue | None:
    """Return the value of the last attribute with a key; None: there is no such attribute."""
    found = None
    for attribute in attributes:
        if attribute.key.encode() == key:
            found = attribute.value
    return found


def all_values(attributes: Iterable[KeyValue], key: bytes) -> list[AnyValue]:
    return [attribute.value for attribute in attributes if attribute.key.encode() == key]


def plain(value: AnyValue | None) -> Any:
    """Convert a value: nil to None, a string to bytes; int, float, bool, lists; all else to an incomparable object."""
    which = value.WhichOneof("value") if value is not None else None
    if value is None or which is None:
        return None
    if which == "string_value":
        return value.string_value.encode()
    if which in ("bool_value", "int_value", "double_value"):
        return getattr(value, which)
    if which == "array_value":
        return [plain(element) for element in value.array_value.values]
    return object()


def left_sides(condition: Condition, one: Seen, trace: Trace) -> list[Any]:
    """List the values that may fulfil a condition: of an attribute all, and nil where it is missing."""
    holders = {
        Field.SPAN_ATTRIBUTE: (one.span,),
        Field.RESOURCE_ATTRIBUTE: (one.resource,),
        Field.SCOPE_ATTRIBUTE: (one.scope,),
        Field.ANY_ATTRIBUTE: (one.span, one.resource),
    }
    if condition.field not in holders:
        return [intrinsic(condition, one, trace)]
    for holder in holders[condition.field]:
        found = all_values(holder.attributes, condition.key)
        if found:
            return [plain(value) for value in found]
    return [None]


def intrinsic(condition: Condition, one: Seen, trace: Trace) -> Any:
    field, span = condition.field, one.span
    if field == Field.DURATION:
        return duration(span)
    if field == Field.PARENT_ID:
        return span.parent_span_id.hex().encode() if has_parent(span) else b""
    if field == Field.TRACE_DURATION:
        return trace_duration(trace)
    if field == Field.ROOT_NAME:
        top = root(trace)
        return top.span.name.encode() if top else None
    if field == Field.ROOT_SERVICE:
        return root_service(trace)
    if field == Field.ROOT_DURATION:
        return root_duration(trace)
    return {
        Field.NAME: lambda: span.name.encode(),
        Field.STATUS: lambda: int(span.status.code),
        Field.STATUS_MESSAGE: lambda: span.status.message.encode(),
        Field.KIND: lambda: int(span.kind),
        Field.SPAN_ID: lambda: span.span_id.hex().encode(),
        Field.SCOPE_NAME: lambda: one.scope.name.encode(),
        Field.SCOPE_VERSION: lambda: one.scope.version.encode(),
        Field.TRACE_ID: lambda: span.trace_id.hex().encode(),
    }[field]()


def comparable(value: Any, kind: Kind) -> bool:
    if kind in (Kind.STRING, Kind.REGEX):
        return isinstance(value, bytes)
    if kind == Kind.BOOL:
        return isinstance(value, bool)
    return kind in (Kind.INT, Kind.FLOAT) and isinstance(value, int | float) and not isinstance(value, bool)


def compares(value: Any, condition: Condition) -> bool:
    """Compare one comparable value with the condition's constant."""
    op, constant = condition.op, condition.value
    if condition.kind == Kind.REGEX:
        assert callable(constant)
        return bool(constant(value)) == (op == Op.MATCH)
    if condition.kind == Kind.BOOL and op not in (Op.EQ, Op.NE):
        return False
    if isinstance(value, float) != isinstance(constant, float):
        value, constant = float(value), float(constant)  # type: ignore[arg-type]
    return ORDERS[op](value, constant)


def holds(condition: Condition, one: Seen, trace: Trace) -> bool:
    """Return whether a condition is true of a span. `trace` is read for the fields of the trace only."""
    values = left_sides(condition, one, trace)
    if condition.op == Op.IS_NIL:
        return all(value is None for value in values)
    return any(holds_of(condition, value) for value in values)


def holds_of(condition: Condition, value: Any) -> bool:
    if condition.op == Op.NOT_NIL:
        return value is not None
    elements = value if isinstance(value, list) else [value]
    results = [compares(element, condition) for element in elements if comparable(element, condition.kind)]
    if not results:
        return False
    return all(results) if condition.op in (Op.NE, Op.NOT_MATCH) else any(results)


def run(program: Sequence[int], operands: Callable[[int], bool]) -> bool:
    """Evaluate a postfix program; `operands(n)` is the truth of operand n."""
    stack: list[bool] = []
    for step in program:
        if step >= 0:
            stack.append(operands(step))
        elif step == NOT:
            stack.append(not stack.pop())
        elif step in (AND, OR):
            right, left = stack.pop(), stack.pop()
            stack.append((left and right) if step == AND else (left or right))
        else:
            stack.append({TRUE: True, FALSE: False}[step])
    (result,) = stack
    return result


class Filter(NamedTuple):
    """`{ ... }`: holds for a trace if the program holds for one of its spans."""

    conditions: Sequence[Condition]
    program: Sequence[int]

    def selects(self, one: Seen, trace: Trace) -> bool:
        return run(self.program, lambda n: holds(self.conditions[n], one, trace))

    def holds(self, trace: Trace) -> bool:
        return any(self.selects(one, trace) for one in trace)


class Selection(NamedTuple):
    """Filters under `&&` and `||`: the operands of the program are the filters."""

    filters: Sequence[Filter]
    program: Sequence[int]

    def holds(self, trace: Trace) -> bool:
        return run(self.program, lambda n: self.filters[n].holds(trace))


# Decisions


class Rule(NamedTuple):
    """Applies where `match` holds (None: always) and `unless` does not (None: never)."""

    name: str
    probability: float
    match: Selection | None = None
    unless: Selection | None = None

    def applies(self, trace: Trace) -> bool:
        return (self.match is None or self.match.holds(trace)) and not (
            self.unless is not None and self.unless.holds(trace)
        )


class Decision(NamedTuple):
    rule: int  # its index
    threshold: int
    keep: bool
    randomness: int


def threshold_of(probability: float) -> int:
    """Return (1 - p) * 2^56, rounded half up to 4 hex digits, one more for every leading f or leading 0, at most 14.

    `NEVER` for 0. A probability between 0 and 2^-56, the smallest that `th` can express, counts as 2^-56.
    """
    if probability <= 0:
        return NEVER
    kept = max(Fraction(probability), Fraction(1, NEVER))
    if kept >= 1:
        return ALWAYS
    digits = 4
    smaller = min(kept, 1 - kept)
    while smaller * 16 < 1:
        smaller *= 16
        digits += 1
    threshold = NEVER - math.floor(kept * NEVER + Fraction(1, 2))
    unit = 16 ** max(0, 14 - digits)
    return (threshold + unit // 2) // unit * unit


def decide(rules: Sequence[Rule], trace: Trace) -> Decision:
    """Decide by the first rule that applies; the last must."""
    index, rule = next((index, rule) for index, rule in enumerate(rules) if rule.applies(trace))
    threshold, random = threshold_of(rule.probability), randomness(trace)
    return Decision(index, threshold, random >= threshold, random)


# What leaves


class Stamp(NamedTuple):
    """The decision that is written on the spans of a kept trace. `randomness` is the trace's."""

    rule: str
    reason: str
    threshold: int
    randomness: int
    decision: bool = True  # write sampler_proxy.rule and sampler_proxy.reason
    adjusted_count: bool = False  # write sampler_proxy.adjusted_count
    incomplete: bool = False  # write sampler_proxy.incomplete, with the decision


class SpanKey(NamedTuple):
    """A span and where it lies, each in deterministic encoding: the known fields of ResourceSpans without scope_spans,
    of ScopeSpans without spans, and the Span with its unknown fields."""

    resource: bytes
    scope: bytes
    span: bytes


def adjusted_count(threshold: int) -> float:
    return NEVER / (NEVER - threshold)


def stamped(span: Span, stamp: Stamp) -> Span:
    """Copy a span as it leaves. Attributes are appended, also where the span has such keys already (the last one wins).

    A span whose own threshold was erased has no known count: it gets no sampler_proxy.adjusted_count.
    """
    out = Span()
    out.CopyFrom(span)
    state = span.trace_state.encode()
    out.trace_state = tracestate.rewrite(state, stamp.randomness, stamp.threshold).decode()
    if stamp.decision:
        out.attributes.add(key="sampler_proxy.rule").value.string_value = stamp.rule
        out.attributes.add(key="sampler_proxy.reason").value.string_value = stamp.reason
        if stamp.incomplete:
            out.attributes.add(key="sampler_proxy.incomplete").value.bool_value = True
    leaving = tracestate.leaving_threshold(state, stamp.randomness, stamp.threshold)
    if stamp.adjusted_count and leaving is not None:
        out.attributes.add(key="sampler_proxy.adjusted_count").value.double_value = adjusted_count(leaving)
    return out


def spans_of(request: ExportTraceServiceRequest) -> Counter[SpanKey]:
    """Count the spans of a request irrespective of grouping and order; add up the counters of several requests."""
    return Counter(SpanKey(*one.envelope, deterministic(one.span)) for one in seen(request))


def expected_kept(
    requests: Iterable[ExportTraceServiceRequest], stamp_of: Callable[[Trace], Stamp | None]
) -> Counter[SpanKey]:
    """Count the spans that must leave, stamped. `stamp_of` is called once for every trace; None: drop it."""
    kept: Counter[SpanKey] = Counter()
    for trace in traces(requests).values():
        stamp = stamp_of(trace)
        if stamp is not None:
            kept.update(SpanKey(*one.envelope, deterministic(stamped(one.span, stamp))) for one in trace)
    return kept
