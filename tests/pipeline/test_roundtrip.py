"""Scan, decide, stamp, assemble: the spans that leave equal the reference's, span for span, envelopes and unknown
fields included."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from sampler_proxy import metrics
from sampler_proxy.errors import MalformedRequest
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.traceql.compiler import Compiled
from sampler_proxy.traceql.program import AND, FALSE, NOT, OR, TRUE, Condition, Field, Kind, Op
from tests.pipeline.driver import KEEP_ALL, MIB, SECOND, WAIT, WAIT_AFTER_ROOT, Driver, request, rules_of, trace_id
from tests.support import nezha, reference, strategies, wire
from tests.support.reference import Filter, Rule, Selection


class Rules(NamedTuple):
    """One rule set, for the reference and for the native code."""

    reference: list[Rule]
    native: tuple[Any, ...]


def rules_over(
    filters: Sequence[Filter],
    of_trace: Sequence[Condition],
    programs: Sequence[tuple[int, ...]],
    keeps: Sequence[float],
) -> Rules:
    """Operand n of the programs is filters[n], then of_trace[n - len(filters)]; the last rule has no program."""
    selectable = [*filters, *(Filter((condition,), (0,)) for condition in of_trace)]
    rules = [
        Rule(f"rule {n}", keep, Selection(selectable, programs[n]) if n < len(programs) else None)
        for n, keep in enumerate(keeps)
    ]
    conditions: list[Condition] = []
    native_filters = []
    for one in filters:
        native_filters.append(tuple(token + len(conditions) if token >= 0 else token for token in one.program))
        conditions += one.conditions
    native_programs = [
        tuple(
            token if token < 0 else 2 * token if token < len(filters) else 2 * (token - len(filters)) + 1
            for token in program
        )
        for program in programs
    ]
    names = [rule.name for rule in rules]
    compiled = Compiled(
        conditions=tuple(conditions),
        comparisons=(),
        trace_conditions=tuple(of_trace),
        filters=tuple(native_filters),
        deferred=frozenset(),
        queries=(),
        programs=(*native_programs, (TRUE,)),
        monotone=(False,) * len(names),
        late=(False,) * len(names),
        exclusions=((FALSE,),) * len(names),
    )
    native = (names, list(keeps), compiled)
    return Rules(rules, native)


@st.composite
def rule_sets(draw: st.DrawFn) -> Rules:
    filters = draw(st.lists(strategies.filters(), max_size=3))
    of_trace = draw(st.lists(strategies.trace_conditions, max_size=2))
    programs = draw(st.lists(strategies.programs(len(filters) + len(of_trace)), max_size=3))
    keeps = [draw(strategies.probabilities) for _ in range(len(programs) + 1)]
    return rules_over(filters, of_trace, programs, keeps)


def reason_of(trace: reference.Trace) -> str:
    """All spans come at once, and ticks follow when the waits are over."""
    return "root" if reference.whole(trace) else "wait"


def check(
    rules: Rules,
    pairs: Sequence[tuple[ExportTraceServiceRequest, bytes]],
    *,
    decision: bool = True,
    adjusted_count: bool = False,
) -> None:
    driver = Driver(native=rules.native, stamp_decision=decision, stamp_adjusted_count=adjusted_count)
    messages = [ExportTraceServiceRequest.FromString(raw) for _, raw in pairs]  # with their unknown fields
    for (_, raw), message in zip(pairs, messages, strict=True):
        check_response(driver.send(raw), message)
    driver.tick(WAIT_AFTER_ROOT)
    driver.tick(WAIT)
    driver.check_ledger()
    traces = reference.traces(messages)
    decisions = {key: reference.decide(rules.reference, trace) for key, trace in traces.items()}

    def stamp_of(trace: reference.Trace) -> reference.Stamp | None:
        found = decisions[trace[0].span.trace_id]
        if not found.keep:
            return None
        name = rules.reference[found.rule].name
        incomplete = reference.root(trace) is None
        return reference.Stamp(
            name, reason_of(trace), found.threshold, found.randomness, decision, adjusted_count, incomplete
        )

    kept = driver.destinations[0].traces
    assert {trace.trace_id for trace in kept} == {key for key, found in decisions.items() if found.keep}
    assert all(trace.spans == len(traces[trace.trace_id]) for trace in kept)
    leaving = driver.kept()
    assert reference.spans_of(leaving) == reference.expected_kept(messages, stamp_of)
    assert all(
        outer.scope_spans and all(inner.spans for inner in outer.scope_spans) for outer in leaving.resource_spans
    )

    values = driver.values()
    assert driver.total(metrics.SPANS_RECEIVED) == sum(map(len, traces.values()))
    assert values[metrics.TRACES_DECIDED] == Counter(
        (rules.reference[found.rule].name, "keep" if found.keep else "drop", reason_of(traces[key]))
        for key, found in decisions.items()
    )
    unequal = [trace for trace in traces.values() if len(reference.incoming_thresholds(trace)) > 1]
    assert driver.total(metrics.TRACES_UNEQUAL_THRESHOLD) == len(unequal)


def check_response(response: bytes, message: ExportTraceServiceRequest) -> None:
    reasons = Counter(reference.invalid(one.span) for one in reference.seen(message))
    del reasons[None]
    answer = ExportTraceServiceResponse.FromString(response)
    assert answer.partial_success.rejected_spans == reasons.total()
    assert answer.HasField("partial_success") == bool(reasons)
    if reasons:
        assert f"{reasons['trace_id']} spans with an invalid trace id" in answer.partial_success.error_message
        assert f"{reasons['span_id']} with an invalid span id" in answer.partial_success.error_message


requests = st.lists(strategies.wire_requests(), min_size=1, max_size=3)


@given(rule_sets(), requests, st.booleans(), st.booleans())
@settings(max_examples=150)
def test_kept_spans_equal_the_reference(
    rules: Rules, pairs: list[tuple[ExportTraceServiceRequest, bytes]], decision: bool, adjusted_count: bool
) -> None:
    check(rules, pairs, decision=decision, adjusted_count=adjusted_count)


def one_request_of_one_trace(parts: list[reference.Seen]) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    for part in parts:
        outer = message.resource_spans.add(resource=part.resource)
        inner = outer.scope_spans.add(scope=part.scope)
        inner.spans.append(part.span)
    return message


@given(strategies.span_conditions | strategies.trace_conditions, st.data())
@settings(max_examples=150)
def test_rules_of_a_single_condition_equal_the_reference(condition: Condition, data: st.DataObject) -> None:
    """One condition decides alone, on traces with attributes of all kinds in all places."""
    source = strategies.seen_traces().map(one_request_of_one_trace)
    pairs = data.draw(st.lists(strategies.wire_requests(source), min_size=1, max_size=2))
    filters = [] if condition.field >= Field.TRACE_DURATION else [Filter((condition,), (0,))]
    check(rules_over(filters, [] if filters else [condition], [(0,)], [1.0, 0.0]), pairs)


TRACEQL: list[tuple[str, Selection]] = [
    ("{ status = error }", Selection([Filter([Condition(Field.STATUS, b"", Op.EQ, Kind.INT, 2)], (0,))], (0,))),
    (
        "{ traceDuration > 1s && status != unset }",
        Selection(
            [
                Filter(
                    [
                        Condition(Field.TRACE_DURATION, b"", Op.GT, Kind.INT, SECOND),
                        Condition(Field.STATUS, b"", Op.NE, Kind.INT, 0),
                    ],
                    (0, 1, AND),
                )
            ],
            (0,),
        ),
    ),
    (
        '{ resource.service.name = "a" && .http.status_code >= 500 } || { !(span.a =~ "a.*") } && { rootName != "a" }',
        Selection(
            [
                Filter(
                    [
                        Condition(Field.RESOURCE_ATTRIBUTE, b"service.name", Op.EQ, Kind.STRING, b"a"),
                        Condition(Field.ANY_ATTRIBUTE, b"http.status_code", Op.GE, Kind.INT, 500),
                    ],
                    (0, 1, AND),
                ),
                Filter(
                    [Condition(Field.SPAN_ATTRIBUTE, b"a", Op.MATCH, Kind.REGEX, strategies.anchored("a.*"))], (0, NOT)
                ),
                Filter([Condition(Field.ROOT_NAME, b"", Op.NE, Kind.STRING, b"a")], (0,)),
            ],
            (0, 1, OR, 2, AND),
        ),
    ),
    (
        '{ kind = server && duration < 1.5s } || { instrumentation:name != "" && span.n-1 = nil }',
        Selection(
            [
                Filter(
                    [
                        Condition(Field.KIND, b"", Op.EQ, Kind.INT, 2),
                        Condition(Field.DURATION, b"", Op.LT, Kind.INT, 3 * SECOND // 2),
                    ],
                    (0, 1, AND),
                ),
                Filter(
                    [
                        Condition(Field.SCOPE_NAME, b"", Op.NE, Kind.STRING, b""),
                        Condition(Field.SPAN_ATTRIBUTE, b"n-1", Op.IS_NIL, Kind.NONE, None),
                    ],
                    (0, 1, AND),
                ),
            ],
            (0, 1, OR),
        ),
    ),
]


@given(st.permutations(TRACEQL), requests)
@settings(max_examples=60)
def test_traceql_rules_equal_the_reference(
    rules: list[tuple[str, Selection]], pairs: list[tuple[ExportTraceServiceRequest, bytes]]
) -> None:
    keeps = [1.0, 0.0, 0.5, 0.25]
    last = ("rest", None, 0.125)
    native = rules_of([*((text, text, keep) for (text, _), keep in zip(rules, keeps, strict=True)), last])
    said = [Rule(text, keep, selection) for (text, selection), keep in zip(rules, keeps, strict=True)]
    check(Rules([*said, Rule(*last[::2])], native), pairs)


# More conditions and filters than one word has bits


def test_many_conditions_and_filters() -> None:
    """200 values of one attribute, each with a filter and a rule of its own."""
    count = 200
    filters = [Filter([Condition(Field.SPAN_ATTRIBUTE, b"n", Op.EQ, Kind.INT, n)], (0,)) for n in range(count)]
    rules = rules_over(filters, [], [(n,) for n in range(count)], [n % 2 for n in range(count)] + [0.0])
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for n in range(count + 3):
        for _ in range(2):  # the second without the attribute
            one = spans.add(trace_id=trace_id(n + 1), span_id=(n + 1).to_bytes(8))
        one.attributes.add(key="n").value.int_value = n
    check(rules, [(message, message.SerializeToString())])


# Merging


def test_spans_of_many_requests_share_their_envelopes() -> None:
    driver = Driver(KEEP_ALL)
    for n in range(1, 101):
        driver.send(request((n, 1), (n, 2), service="a" if n % 2 else "b"))
    driver.tick(WAIT)
    leaving = driver.kept()
    assert [len(outer.scope_spans) for outer in leaving.resource_spans] == [1, 1]
    assert [len(outer.scope_spans[0].spans) for outer in leaving.resource_spans] == [100, 100]


def test_envelopes_that_differ_stay_apart() -> None:
    """In any byte: a schema_url, an entity, an unknown field of a resource or scope, the order of attributes."""
    message = ExportTraceServiceRequest()
    changes: list[Callable[[Any, Any], object]] = [
        lambda *_: None,
        lambda outer, _: setattr(outer, "schema_url", "x"),
        lambda outer, _: outer.resource.entity_refs.add(type="service"),
        lambda _, inner: setattr(inner, "schema_url", "x"),
        lambda _, inner: setattr(inner.scope, "version", "x"),
        lambda outer, _: outer.resource.MergeFromString(wire.field(99, wire.LEN, b"x")),
        lambda _, inner: inner.scope.MergeFromString(wire.field(99, wire.LEN, b"x")),
    ]
    for n, change in enumerate(changes):
        outer = message.resource_spans.add()
        outer.resource.attributes.add(key="a").value.int_value = 1
        inner = outer.scope_spans.add()
        inner.spans.add(trace_id=trace_id(1), span_id=(n + 1).to_bytes(8))
        change(outer, inner)
    driver = Driver(KEEP_ALL, stamp_decision=False)
    driver.send(message)
    driver.tick(WAIT)
    assert reference.spans_of(driver.kept()) == reference.spans_of(message)
    leaving = driver.kept().resource_spans
    assert sorted(len(outer.scope_spans) for outer in leaving) == [1, 1, 1, 4]


def test_assembling_in_parts_gives_the_same_spans() -> None:
    driver = Driver(KEEP_ALL)
    for n in range(1, 21):
        driver.send(request((n, 1), (n, 2), service=f"s{n % 3}"))
    driver.tick(WAIT)
    traces = driver.destinations[0].traces
    parts = Counter[reference.SpanKey]()
    for trace in traces:
        parts += reference.spans_of(ExportTraceServiceRequest.FromString(assemble([trace])))
    assert parts == reference.spans_of(driver.kept())
    assert reference.spans_of(driver.kept()) == reference.spans_of(
        ExportTraceServiceRequest.FromString(assemble(traces[::-1]))
    )
    assert assemble([]) == b""


# What is not to pass the sampler unseen


UNKNOWN = wire.field(99, wire.LEN, b"a span of another trace") + wire.field(20, wire.VARINT, wire.varint(7))


def test_unknown_fields_around_spans_are_dropped_and_counted() -> None:
    """They left with every kept trace that shared the header; inside of a resource, scope or span they stay."""
    inside = ExportTraceServiceRequest()
    outer = inside.resource_spans.add(schema_url="s")
    outer.resource.MergeFromString(UNKNOWN)
    inner = outer.scope_spans.add(schema_url="t")
    inner.scope.MergeFromString(UNKNOWN)
    inner.spans.add(trace_id=trace_id(1), span_id=b"\x01" * 8).MergeFromString(UNKNOWN)
    around = ExportTraceServiceRequest()
    around.CopyFrom(inside)
    around.MergeFromString(UNKNOWN * 2)
    around.resource_spans[0].MergeFromString(UNKNOWN)
    around.resource_spans[0].MergeFromString(wire.field(1, wire.VARINT, wire.varint(1)))  # a known number, another type
    around.resource_spans[0].scope_spans[0].MergeFromString(UNKNOWN * 3)
    driver = Driver(KEEP_ALL, stamp_decision=False)
    driver.send(around)
    driver.tick(WAIT)
    assert driver.kept().SerializeToString(deterministic=True) == inside.SerializeToString(deterministic=True)
    assert driver.values()[metrics.UNKNOWN_FIELDS_DROPPED] == {
        ("request",): 4,
        ("resource_spans",): 3,
        ("scope_spans",): 6,
    }


def test_unknown_fields_of_a_refused_request_are_not_counted() -> None:
    driver = Driver(KEEP_ALL)
    with pytest.raises(MalformedRequest):
        driver.send(UNKNOWN + b"\xff")
    assert set(driver.values()[metrics.UNKNOWN_FIELDS_DROPPED].values()) == {0}


def legacy(n: int, *, spans: int = 1, field: int = 1000, scope: str = "library") -> bytes:
    """Spans of trace `n` as ResourceSpans.instrumentation_library_spans; the layout has stayed the same."""
    inner = ScopeSpans(schema_url="t")
    inner.scope.name = scope
    for number in range(1, spans + 1):
        inner.spans.add(trace_id=trace_id(n), span_id=number.to_bytes(8), name=f"of {n}")
    return wire.field(field, wire.LEN, inner.SerializeToString())


RESOURCE = wire.field(1, wire.LEN, wire.field(1, wire.LEN, wire.field(1, wire.LEN, b"service.name")))
EMPTY = wire.field(2, wire.LEN, b"")
INVALID = wire.field(2, wire.LEN, wire.field(2, wire.LEN, b""))  # a span without ids


@pytest.mark.parametrize(
    ("fields", "expected", "unknown", "left_out"),
    [
        (legacy(1, spans=3) + RESOURCE, {1: 3}, 0, 0),
        (RESOURCE + legacy(1) + legacy(2) + legacy(1, scope="other"), {1: 2, 2: 1}, 0, 0),
        (RESOURCE + legacy(1, spans=2) + legacy(1, spans=2, field=2), {1: 2}, 0, 2),  # the same twice
        (RESOURCE + legacy(1, field=2) + legacy(1) + legacy(2, spans=3), {1: 1}, 0, 4),  # others
        (RESOURCE + legacy(1, field=2) + wire.field(1000, wire.LEN, b""), {1: 1}, 0, 0),
        (RESOURCE + legacy(1, field=2) + wire.field(1000, wire.LEN, b"\x12\x00\x12\x05"), {1: 1}, 0, 1),  # damaged
        (RESOURCE + EMPTY + legacy(1), {1: 1}, 0, 0),
        (RESOURCE + INVALID + legacy(1), {}, 0, 1),
        (RESOURCE + wire.field(1000, wire.VARINT, wire.varint(1)), {}, 1, 0),
        (RESOURCE + wire.field(1000, wire.LEN, b""), {}, 0, 0),
    ],
)
def test_spans_in_the_deprecated_field(fields: bytes, expected: dict[int, int], unknown: int, left_out: int) -> None:
    """OTLP before 0.15 had them in ResourceSpans's field 1000; they were answered with OK and lost, or left unsampled
    with the traces of other ResourceSpans."""
    neighbour = wire.field(1, wire.LEN, RESOURCE + legacy(9, field=2))
    driver = Driver(KEEP_ALL, stamp_decision=False)
    driver.send(wire.field(1, wire.LEN, fields) + neighbour)
    driver.tick(WAIT)
    driver.check_ledger()
    found = {trace.trace_id: trace.spans for trace in driver.destinations[0].traces}
    assert found == {trace_id(n): spans for n, spans in (expected | {9: 1}).items()}
    assert driver.values()[metrics.UNKNOWN_FIELDS_DROPPED]["resource_spans",] == unknown
    assert driver.values()[metrics.SPANS_REJECTED_INPUT]["deprecated_field",] == left_out
    for outer in driver.kept().resource_spans:
        assert [attribute.key for attribute in outer.resource.attributes] == ["service.name"]
        assert {(inner.schema_url, inner.scope.name) for inner in outer.scope_spans} <= {
            ("t", "library"),
            ("t", "other"),
        }
        assert b"\xc2\x3e" not in outer.SerializeToString()  # the tag of field 1000


def test_a_deprecated_field_in_every_truncation() -> None:
    (content,) = (
        ExportTraceServiceRequest.FromString(wire.field(1, wire.LEN, legacy(1, spans=2, field=2)))
        .resource_spans[0]
        .scope_spans
    )
    whole = content.SerializeToString()
    driver = Driver(KEEP_ALL, stamp_decision=False)
    for size in range(len(whole) + 1):
        raw = wire.field(1, wire.LEN, wire.field(1000, wire.LEN, whole[:size]))
        current = wire.field(1, wire.LEN, wire.field(2, wire.LEN, whole[:size]))
        assert _verdict(driver, raw) == _verdict(driver, current)


def _verdict(driver: Driver, raw: bytes) -> bool:
    try:
        driver.send(raw)
    except MalformedRequest:
        return False
    return True


# Details that generators seldom meet


def root_with_service(value: bytes, more: bytes = b"") -> bytes:
    """A root span whose resource has service.name with this encoded KeyValue.value field, or fields."""
    attribute = wire.field(1, wire.LEN, b"service.name") + value
    resource = wire.field(1, wire.LEN, wire.field(1, wire.LEN, attribute) + more)
    one = wire.field(1, wire.LEN, trace_id(1)) + wire.field(2, wire.LEN, b"\x01" * 8)
    return wire.field(1, wire.LEN, resource + wire.field(2, wire.LEN, wire.field(2, wire.LEN, one)))


def value_parts(*parts: bytes) -> bytes:
    return b"".join(wire.field(2, wire.LEN, part) for part in parts)


SHOP, OTHER = wire.field(1, wire.LEN, b"shop"), wire.field(1, wire.LEN, b"other")
NUMBER = wire.tag(3, wire.VARINT) + b"\x05"
NAME_AGAIN = wire.field(1, wire.LEN, wire.field(1, wire.LEN, b"service.name"))


@pytest.mark.parametrize(
    "raw",
    [
        root_with_service(value_parts(SHOP)),
        root_with_service(value_parts(OTHER, SHOP)),
        root_with_service(value_parts(SHOP, b"")),
        root_with_service(value_parts(b"", SHOP)),
        root_with_service(value_parts(SHOP + NUMBER)),
        root_with_service(value_parts(SHOP, NUMBER)),
        root_with_service(value_parts(NUMBER, SHOP)),
        root_with_service(value_parts(wire.field(5, wire.LEN, wire.field(1, wire.LEN, SHOP)))),
        root_with_service(value_parts(SHOP, wire.field(99, wire.LEN, b"x"))),
        root_with_service(b""),
        root_with_service(value_parts(SHOP), NAME_AGAIN),
        root_with_service(value_parts(SHOP), NAME_AGAIN[:-12] + b"service.nam3"),
    ],
)
@pytest.mark.parametrize(
    "condition",
    [
        Condition(Field.ROOT_SERVICE, b"", Op.EQ, Kind.STRING, b"shop"),
        Condition(Field.RESOURCE_ATTRIBUTE, b"service.name", Op.EQ, Kind.STRING, b"shop"),
    ],
    ids=["root", "resource"],
)
def test_service_names_in_strange_encodings(condition: Condition, raw: bytes) -> None:
    of_trace = condition.field == Field.ROOT_SERVICE
    filters = [] if of_trace else [Filter((condition,), (0,))]
    rules = rules_over(filters, [condition] if of_trace else [], [(0,)], [1.0, 0.0])
    check(rules, [(ExportTraceServiceRequest.FromString(raw), raw)])


def number(value: float) -> bytes:
    return wire.tag(4, wire.FIXED64) + struct.pack("<d", value)


def array(*elements: bytes) -> bytes:
    return wire.field(5, wire.LEN, b"".join(wire.field(1, wire.LEN, element) for element in elements))


NAN, A, B, ONE = (
    number(float("nan")),
    wire.field(1, wire.LEN, b"a"),
    wire.field(1, wire.LEN, b"b"),
    wire.tag(3, 0) + b"\x01",
)
VALUES = {
    "NaN": value_parts(NAN),
    "infinities": value_parts(array(number(float("inf")), number(float("-inf")))),
    "array with NaN": value_parts(array(NAN, ONE)),
    "array in two parts": value_parts(array(A) + array(B)),
    "array in two parts of the value": value_parts(array(A), array(B)),
    "array, something unknown, array": value_parts(array(B) + wire.field(99, wire.LEN, b"x") + array(A)),
    "array, set aside, array": value_parts(array(A) + ONE + array(B)),
    "array, then a number": value_parts(array(A) + ONE),
    "kvlist, then an array": value_parts(wire.field(6, wire.LEN, b"") + array(A)),
    "array, then a kvlist": value_parts(array(A) + wire.field(6, wire.LEN, b"")),
    "empty array": value_parts(array()),
    "array of nothing and arrays": value_parts(array(b"", array(A))),
    "array of several types": value_parts(array(ONE, A, NAN, wire.tag(2, 0) + b"\x01")),
    "string, then an array field of another wire type": value_parts(A + wire.tag(5, 0) + b"\x01"),
    "prefixes": value_parts(array(wire.field(1, wire.LEN, b""), wire.field(1, wire.LEN, b"aa"))),
    "zeros": value_parts(array(number(-0.0), wire.tag(3, 0) + b"\x00")),
    "true as 2^63": value_parts(wire.tag(2, 0) + wire.varint(1 << 63)),
}
ASKED = [
    *((op, Kind.STRING, b"a") for op in strategies.ORDERS),
    *((op, Kind.FLOAT, constant) for op in strategies.ORDERS for constant in (0.0, 1.0, float("nan"))),
    *((op, Kind.INT, 1) for op in strategies.ORDERS),
    *((op, Kind.BOOL, True) for op in strategies.ORDERS),
    *((op, Kind.REGEX, strategies.anchored("a|b")) for op in (Op.MATCH, Op.NOT_MATCH)),
    *((op, Kind.NONE, None) for op in (Op.IS_NIL, Op.NOT_NIL)),
]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("field", strategies.ATTRIBUTE_FIELDS)
def test_values_in_strange_encodings(field: Field, value: bytes) -> None:
    """Evaluate each condition on its own, on the attribute with this value wherever it can stand."""
    attribute = wire.field(1, wire.LEN, b"k") + value
    one = wire.field(1, wire.LEN, trace_id(1)) + wire.field(2, wire.LEN, b"\x01" * 8)
    span = wire.field(2, wire.LEN, one + (wire.field(9, wire.LEN, attribute) if field == Field.SPAN_ATTRIBUTE else b""))
    scope = wire.field(1, wire.LEN, wire.field(3, wire.LEN, attribute))
    resource = wire.field(1, wire.LEN, wire.field(1, wire.LEN, attribute))
    raw = wire.field(1, wire.LEN, resource + wire.field(2, wire.LEN, scope + span))
    message = ExportTraceServiceRequest.FromString(raw)
    for asked in ASKED:
        check(rules_over([Filter([Condition(field, b"k", *asked)], (0,))], [], [(0,)], [1.0, 0.0]), [(message, raw)])


@pytest.mark.parametrize("apart", [False, True], ids=["one request", "several"])
@pytest.mark.parametrize(
    "roots",
    [
        [(5, 2, "a"), (4, 3, "b"), (6, 1, "c")],  # the smallest start
        [(5, 3, "a"), (5, 1, "b"), (5, 2, "c")],  # of equal starts the smallest id
        [(5, 256, "a"), (5, 1, "b")],  # as a big-endian number
        [(5, 1 << 63, "a"), (5, 1, "b")],
        [(1 << 63, 1, "a"), (5, 2, "b")],
        [(5, 1, "a"), (5, 1, "b"), (5, 1, "c")],  # of equal ids the first to come
        [(0, 2, "a"), (5, 1, "b")],
    ],
)
@pytest.mark.parametrize("field", [Field.ROOT_NAME, Field.ROOT_SERVICE])
def test_of_several_roots_the_first_counts(field: Field, roots: list[tuple[int, int, str]], apart: bool) -> None:
    for order in (roots, roots[::-1]):
        pairs = []
        whole = ExportTraceServiceRequest()
        for start, number, name in order:
            message = request((1, number), root=True, service=name)
            (one,) = message.resource_spans[0].scope_spans[0].spans
            one.name, one.start_time_unix_nano = name, start
            pairs.append((message, message.SerializeToString()))
            whole.MergeFrom(message)
        for name in "abc":
            rules = rules_over([], [Condition(field, b"", Op.EQ, Kind.STRING, name.encode())], [(0,)], [1.0, 0.0])
            check(rules, pairs if apart else [(whole, whole.SerializeToString())])


@pytest.mark.parametrize("apart", [False, True], ids=["one request", "several"])
@pytest.mark.parametrize(
    "numbers", [[0x70, 0x90], [0x90, 0x70], [0xA0, 0x90], [0x90, 0x95, 0x85], [None, 0x70], [0x90, None]]
)
def test_of_several_randomnesses_the_smallest_counts(numbers: list[int | None], apart: bool) -> None:
    whole, pairs = ExportTraceServiceRequest(), []
    for span, number in enumerate(numbers):
        message = request((1, span + 1), trace_state="" if number is None else f"ot=rv:{number:02x}{'0' * 12}")
        pairs.append((message, message.SerializeToString()))
        whole.MergeFrom(message)
    for keep in (0.5, 0.4, 0.45):
        check(rules_over([], [], [], [keep]), pairs if apart else [(whole, whole.SerializeToString())])


@pytest.mark.parametrize("op", strategies.ORDERS)
@pytest.mark.parametrize("kind", [Kind.INT, Kind.FLOAT])
@pytest.mark.parametrize("constant", [-1, 0, 2**63 - 1])
@pytest.mark.parametrize("field", [Field.DURATION, Field.TRACE_DURATION])
def test_durations_beyond_63_bits(field: Field, constant: int, kind: Kind, op: Op) -> None:
    condition = Condition(field, b"", op, kind, float(constant) if kind == Kind.FLOAT else constant)
    of_trace = field == Field.TRACE_DURATION
    rules = rules_over(
        [] if of_trace else [Filter((condition,), (0,))], [condition] if of_trace else [], [(0,)], [1.0, 0.0]
    )
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for n, duration in enumerate((0, 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2)):
        spans.add(
            trace_id=trace_id(n + 1), span_id=b"\x01" * 8, start_time_unix_nano=1, end_time_unix_nano=1 + duration
        )
    check(rules, [(message, message.SerializeToString())])


def test_regex_answers_beyond_the_cache() -> None:
    """Send far more distinct values than the cache holds: every answer is right, and cached ones are not looked for
    again."""
    asked: list[bytes] = []

    def odd(value: bytes) -> bool:
        asked.append(value)
        return int(value) % 2 == 1

    rules = rules_over([Filter([Condition(Field.NAME, b"", Op.MATCH, Kind.REGEX, odd)], (0,))], [], [(0,)], [1.0, 0.0])
    driver = Driver(native=rules.native, max_trace_bytes=1)
    number = 60_000
    for begin in range(0, number, 1000):
        message = ExportTraceServiceRequest()
        spans = message.resource_spans.add().scope_spans.add().spans
        for n in range(begin, begin + 1000):
            for again in range(2):
                spans.add(trace_id=trace_id(2 * n + again + 1), span_id=b"\x01" * 8, name=str(n))
        driver.send(message)
    assert len(asked) == number
    assert {int.from_bytes(trace.trace_id[:9]) for trace in driver.destinations[0].traces} == {
        2 * n + again + 1 for n in range(1, number, 2) for again in range(2)
    }


def test_long_values_are_not_cached_but_answered() -> None:
    asked: list[int] = []

    def matches(value: bytes) -> bool:
        asked.append(len(value))
        return len(value) % 2 == 1

    rules = rules_over(
        [Filter([Condition(Field.NAME, b"", Op.MATCH, Kind.REGEX, matches)], (0,))], [], [(0,)], [1.0, 0.0]
    )
    driver = Driver(native=rules.native, max_trace_bytes=1)
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for n in range(30):  # 30 MiB, of which 8 fit the cache
        spans.add(trace_id=trace_id(n + 1), span_id=b"\x01" * 8, name="x" * (MIB - 100 + n % 20))
    for n in range(4):
        spans.add(trace_id=trace_id(n + 100), span_id=b"\x01" * 8, name="x" * (2 * MIB + n % 2))
    driver.send(message)
    lengths = [MIB - 100 + n % 20 for n in range(30)] + [2 * MIB + n % 2 for n in range(4)]
    assert len(driver.destinations[0].traces) == sum(length % 2 for length in lengths)
    assert len(asked) <= 34


# Recorded traffic


@pytest.mark.parametrize("recording", [nezha.TRAIN_TICKET])
def test_a_recording_leaves_as_the_reference_says(recording: str) -> None:
    messages = nezha.load(recording)
    errors = nezha.add_errors(messages, every=7)
    rules = rules_of([("errors", "{ status = error }", 1.0), ("rest", None, 0.25)])
    said = [Rule("errors", 1.0, TRACEQL[0][1]), Rule("rest", 0.25)]
    pairs = [(message, message.SerializeToString()) for message in messages]
    check(Rules(said, rules), pairs)
    driver = Driver(native=rules)
    for _, raw in pairs:
        driver.send(raw)
    driver.tick(WAIT)
    assert errors <= {trace.trace_id for trace in driver.destinations[0].traces}
