"""Compares the reference, which everything else is held to, with values worked out by hand."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sampler_proxy.traceql.program import AND, FALSE, NOT, OR, TRUE, Condition, Field, Kind, Op
from tests.support import nezha, reference, strategies, tracestate, wire

# Thresholds


@pytest.mark.parametrize(
    ("probability", "expected"),
    [
        (1.0, "0"),
        (1 / 2, "8"),
        (1 / 3, "aaab"),
        (1 / 4, "c"),
        (1 / 5, "cccd"),
        (1 / 8, "e"),
        (1 / 10, "e666"),
        (1 / 16, "f"),
        (1 / 100, "fd70a"),
        (1 / 1_000, "ffbe77"),
        (1 / 10_000, "fff9724"),
        (1 / 100_000, "ffff583a"),
        (1 / 1_000_000, "ffffef39"),
        # Near 1 the leading zeros count: 0.01 = 0x0.028f5c28..., 0.001 = 0x0.00418937..., 0.75 = 0x0.c
        (0.99, "028f6"),
        (0.999, "004189"),
        (0.25 + 2**-40, "c"),
        # The ends: 2^-56 is the smallest that can be said.
        (2**-56, "ffffffffffffff"),
        (2**-60, "ffffffffffffff"),
        (2**-52, "fffffffffffff"),
        (3 * 2**-54, "fffffffffffff4"),
        (1 - 2**-53, "00000000000008"),
    ],
)
def test_threshold(probability: float, expected: str) -> None:
    threshold = reference.threshold_of(probability)
    assert tracestate.hex_threshold(threshold) == expected
    assert tracestate.parse(f"ot=th:{expected}".encode()).threshold == threshold


def test_threshold_of_nothing_is_above_every_randomness() -> None:
    assert reference.threshold_of(0.0) == 1 << 56
    assert reference.threshold_of(1.0) == 0


@given(st.floats(2**-40, 1))  # below, the last of 14 digits weighs more
def test_threshold_keeps_the_probability(probability: float) -> None:
    threshold = reference.threshold_of(probability)
    assert 0 <= threshold < 1 << 56
    assert math.isclose(1 / reference.adjusted_count(threshold), probability, rel_tol=2**-12)


# tracestate

RV = "rv:90000000000000"
LONG = "z:" + "v" * 252  # 254 bytes
R = 0x90000000000000
T = 0x80000000000000
OTHERS = ",".join(f"m{i}=1" for i in range(32))


@pytest.mark.parametrize(
    ("before", "threshold", "after"),
    [
        # th is put in
        ("", T, "ot=th:8"),
        ("", 0x8F000000000001, "ot=th:8f000000000001"),
        ("a=1", T, "ot=th:8,a=1"),
        ("a=1,b=2", T, "ot=th:8,a=1,b=2"),
        ("ot=p:8", T, "ot=th:8;p:8"),
        ("a=1,ot=p:8;q:9,b=2", T, "ot=th:8;p:8;q:9,a=1,b=2"),
        (f"ot={RV}", T, f"ot=th:8;{RV}"),
        # th is raised
        ("ot=th:4", T, "ot=th:8"),
        ("ot=th:0", T, "ot=th:8"),
        ("ot=th:7fffffffffffff", T, "ot=th:8"),
        (f"ot=p:8;th:4;{RV}", T, f"ot=th:8;p:8;{RV}"),
        ("a=1,ot=th:4", T, "ot=th:8,a=1"),
        # th is as high already: nothing is touched, not even what is malformed
        ("ot=th:8", T, "ot=th:8"),
        ("ot=th:80", T, "ot=th:80"),
        ("ot=th:9", T, "ot=th:9"),
        (" a=1 ,,bad, ot=x;p:1;th:9", T, " a=1 ,,bad, ot=x;p:1;th:9"),
        # T = 0: nothing is touched
        ("", 0, ""),
        ("a=1", 0, "a=1"),
        ("ot=th:4", 0, "ot=th:4"),
        ("ot=th:x,bad,,", 0, "ot=th:x,bad,,"),
        # inconsistent: th is erased, whatever T
        ("ot=th:a", 0, ""),
        ("ot=th:a", T, ""),
        ("ot=th:90000000000001", 0, ""),
        ("ot=th:9", 0, "ot=th:9"),
        ("ot=p:8;th:a", 0, "ot=p:8"),
        ("a=1,ot=th:a", 0, "a=1"),
        ("a=1,ot=th:a;p:8,b=2", T, "ot=p:8,a=1,b=2"),
        (f"ot=th:a;{RV}", T, f"ot={RV}"),
        # white space and empty members
        (" a=1\t, b=2 ", T, "ot=th:8,a=1,b=2"),
        ("a=1,,b=2,", T, "ot=th:8,a=1,b=2"),
        (" ,\t", T, "ot=th:8"),
        ("a=x y", T, "ot=th:8,a=x y"),
        ("a= x", T, "ot=th:8,a= x"),
        ("\ta=x\ty", T, "ot=th:8"),
        # malformed members go, one by one
        ("hello", T, "ot=th:8"),
        ("hello,a=1,=,=x,k=", T, "ot=th:8,a=1"),
        ("A=1,b=2", T, "ot=th:8,b=2"),
        ("a=1=2,b=2", T, "ot=th:8,b=2"),
        ("é=1,a=é,b=\x7f,c=\x00", T, "ot=th:8"),
        ("_a=1,-b=1,0c=1,t@v=1,a_-*/@9=1", T, "ot=th:8,0c=1,t@v=1,a_-*/@9=1"),
        (f"{'k' * 256}=1,{'k' * 257}=2", T, f"ot=th:8,{'k' * 256}=1"),
        (f"k={'v' * 256},l={'v' * 257}", T, f"ot=th:8,k={'v' * 256}"),
        # malformed sub-members go, one by one
        ("ot=", T, "ot=th:8"),
        ("ot=x", T, "ot=th:8"),
        ("ot=;;p:8;", T, "ot=th:8;p:8"),
        ("ot=p:8;q:ü", T, "ot=th:8"),  # not even a member
        ("ot=P:8;9p:8;p8:;p:a b;q:Az0._-;r:1:2", T, "ot=th:8;p8:;q:Az0._-"),
        # invalid th and rv are as if they were not there
        ("ot=th:", T, "ot=th:8"),
        ("ot=th:A", T, "ot=th:8"),
        ("ot=th:a00000000000000", T, "ot=th:8"),
        ("ot= th:a", T, "ot=th:8"),
        ("ot=th:x;th:9", T, "ot=th:x;th:9"),
        ("ot=th:x;th:4", T, "ot=th:8"),
        ("ot=rv:1;rv:ABCDEFABCDEFAB;p:8", T, "ot=th:8;p:8"),
        # twice
        ("ot=th:4;th:9", T, "ot=th:8"),
        ("ot=th:4,ot=th:9;p:8,a=1", T, "ot=th:8,a=1"),
        ("ot=p:1;p:2", T, "ot=th:8;p:1;p:2"),
        (f"ot={RV};rv:00000000000000", T, f"ot=th:8;{RV}"),
        ("a=1,a=2", T, "ot=th:8,a=1,a=2"),
        ("OT=th:9,xot=th:9,ot@v=th:9,ot =th:9", T, "ot=th:8,xot=th:9,ot@v=th:9"),
        # 32 members
        (OTHERS, T, "ot=th:8," + OTHERS.removesuffix(",m31=1")),
        (f"{OTHERS},ot=th:4", T, "ot=th:8," + OTHERS.removesuffix(",m31=1")),
        (f"{OTHERS},ot=th:a", T, "ot=th:8," + OTHERS.removesuffix(",m31=1")),  # no more are read
        (f"{OTHERS},x=1,y=1,ot=th:9", T, "ot=th:8," + OTHERS.removesuffix(",m31=1")),
        (f"{OTHERS.removesuffix(',m31=1')}, ,,ot=th:9", T, f"{OTHERS.removesuffix(',m31=1')}, ,,ot=th:9"),
        ("?," * 31 + "ot=th:9,a=1", T, "?," * 31 + "ot=th:9,a=1"),
        ("?," * 32 + "ot=th:9,a=1", T, "ot=th:8"),
        # 512 bytes
        (f"a={'v' * 250},b={'v' * 249},ot=th:4", T, f"ot=th:8,a={'v' * 250},b={'v' * 249}"),  # 512 bytes
        (f"a={'v' * 250},b={'v' * 249},ot=th:9", T, f"a={'v' * 250},b={'v' * 249},ot=th:9"),
        (f"a={'v' * 250},b={'v' * 250},ot=th:9", T, f"ot=th:8,a={'v' * 250},b={'v' * 250}"),
        (f"a={'v' * 250},b={'v' * 249},ot=th:9,c=1", T, f"a={'v' * 250},b={'v' * 249},ot=th:9,c=1"),
        (f"a={'v' * 250},b={'v' * 250},c={'v' * 250}", T, f"ot=th:8,a={'v' * 250},b={'v' * 250}"),
        # 256 bytes of ot
        (f"ot={LONG}", T, "ot=th:8"),
        (f"ot=a:1;{LONG[:-4]}", T, "ot=th:8;a:1"),
        (f"ot={LONG[:-3]}", T, f"ot=th:8;{LONG[:-3]}"),
        (f"ot={LONG[:-10]};b:1;c:2", T, f"ot=th:8;{LONG[:-10]};b:1"),
        (f"ot={LONG[:-18]};{RV}", T, f"ot=th:8;{RV}"),
        (f"ot={'v' * 3}:{'w' * 200};{RV};b:{'x' * 30}", T, f"ot=th:8;{'v' * 3}:{'w' * 200};{RV}"),
        (f"ot={LONG}xxx;th:9", T, "ot=th:8"),  # the value is too long: no member
    ],
)
def test_tracestate(before: str, threshold: int, after: str) -> None:
    rewritten = tracestate.rewrite(before.encode(), R, threshold)
    assert rewritten == after.encode()
    # What is read from the result is what was decided, and it is stable.
    leaving = tracestate.leaving_threshold(before.encode(), R, threshold)
    assert (tracestate.parse(rewritten).threshold or 0) == (leaving or 0)
    assert tracestate.rewrite(rewritten, R, threshold if leaving is not None else 0) == rewritten


@given(strategies.tracestates, st.integers(0, 2**56 - 1), st.integers(0, 2**56 - 1))
def test_a_rewritten_tracestate_is_valid(state: str, random: int, threshold: int) -> None:
    before = state.encode()
    after = tracestate.rewrite(before, random, threshold)
    parsed = tracestate.parse(after)
    assert parsed.randomness == tracestate.parse(before).randomness
    if after == before or not after:
        return
    members = after.split(b",")
    assert len(members) <= tracestate.MAX_MEMBERS
    assert all(tracestate.MEMBER.fullmatch(member) for member in members)
    if members[0].startswith(b"ot="):
        assert all(tracestate.SUB_MEMBER.fullmatch(sub) for sub in members[0][3:].split(b";"))


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([""], 0x0203040506FF01),
        (["ot=rv:80000000000000"], 1 << 55),
        (["", "ot=rv:80000000000000", "ot=rv:70000000000000", "ot=rv:1"], 0x70000000000000),
        (["ot=rv:0000000000000", "rv=00000000000000"], 0x0203040506FF01),
    ],
)
def test_randomness(states: list[str], expected: int) -> None:
    trace_id = bytes.fromhex("ffffffffffffffffff0203040506ff01")
    assert reference.randomness([one(Span(trace_id=trace_id, trace_state=state)) for state in states]) == expected


# Conditions


def one(span: Span, resource: dict[str, Any] | None = None, scope: dict[str, Any] | None = None) -> reference.Seen:
    return reference.Seen(
        Resource(attributes=attributes(resource or {})),
        InstrumentationScope(attributes=attributes(scope or {})),
        span,
    )


def attributes(values: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def any_value(value: Any) -> AnyValue:
    found = AnyValue()
    if isinstance(value, list):
        found.array_value.SetInParent()
        found.array_value.values.extend(any_value(element) for element in value)
    elif isinstance(value, dict):
        found.kvlist_value.SetInParent()
        found.kvlist_value.values.extend(attributes(value))
    elif value is not None:
        name = {bool: "bool", int: "int", float: "double", str: "string", bytes: "bytes"}[type(value)]
        setattr(found, f"{name}_value", value)
    return found


KINDS = {str: Kind.STRING, int: Kind.INT, float: Kind.FLOAT, bool: Kind.BOOL}
MISSING = object()
NAN, INFINITY = float("nan"), float("inf")


def constant(op: Op, value: Any) -> tuple[Op, Kind, Any]:
    if op in (Op.IS_NIL, Op.NOT_NIL):
        return op, Kind.NONE, None
    if op in (Op.MATCH, Op.NOT_MATCH):
        return op, Kind.REGEX, strategies.anchored(value)
    return op, KINDS[type(value)], value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("value", "op", "right", "expected"),
    [
        ("a", Op.EQ, "a", True),
        ("a", Op.EQ, "b", False),
        ("a", Op.NE, "b", True),
        ("a", Op.LT, "ab", True),
        ("z", Op.LT, "é", True),
        ("b", Op.GE, "ab", True),
        ("a", Op.EQ, 1, False),
        ("a", Op.NE, 1, False),
        ("true", Op.EQ, True, False),
        ("xay", Op.MATCH, "a", False),
        ("a\nb", Op.MATCH, "a.b", True),
        ("xay", Op.NOT_MATCH, "a", True),
        (1, Op.MATCH, "1", False),
        (1, Op.NOT_MATCH, "2", False),
        (1, Op.EQ, 1.0, True),
        (1.0, Op.EQ, 1, True),
        (1, Op.NE, 1.0, False),
        (1, Op.LT, 1.5, True),
        (2**53 + 1, Op.EQ, 2.0**53, True),
        (2**53 + 1, Op.EQ, 2**53, False),
        (2**63 - 1, Op.EQ, 2.0**63, True),
        (-1, Op.LT, 0, True),
        (0.0, Op.EQ, -0.0, True),
        (NAN, Op.EQ, 1.0, False),
        (NAN, Op.NE, 1.0, True),
        (NAN, Op.LT, INFINITY, False),
        (True, Op.EQ, True, True),
        (True, Op.NE, False, True),
        (True, Op.EQ, 1, False),
        (1, Op.EQ, True, False),
        (True, Op.GE, True, False),
        (MISSING, Op.EQ, "", False),
        (MISSING, Op.NE, "", False),
        (MISSING, Op.NOT_MATCH, "", False),
        (MISSING, Op.IS_NIL, None, True),
        (MISSING, Op.NOT_NIL, None, False),
        (None, Op.IS_NIL, None, True),
        (None, Op.NE, "", False),
        ("", Op.IS_NIL, None, False),
        ("", Op.EQ, "", True),
        (b"a", Op.EQ, "a", False),
        (b"a", Op.NE, "b", False),
        (b"", Op.NOT_NIL, None, True),
        ({}, Op.NOT_NIL, None, True),
        ({"a": "a"}, Op.NE, "b", False),
        ([], Op.NOT_NIL, None, True),
        ([], Op.EQ, "a", False),
        ([], Op.NE, "a", False),
        (["a", "b"], Op.EQ, "b", True),
        (["a", "b"], Op.EQ, "c", False),
        (["a", "b"], Op.NE, "b", False),
        (["a", "b"], Op.NE, "c", True),
        (["a", "b"], Op.NE, 1, False),
        (["a", 1], Op.NE, 1, False),
        (["a", 1], Op.NE, 2, True),
        (["a", 1, 2.5], Op.GT, 2, True),
        (["a", "b"], Op.MATCH, "a|c", True),
        (["a", "b"], Op.NOT_MATCH, "a|c", False),
        (["a", "b"], Op.NOT_MATCH, "c", True),
        ([1], Op.NOT_MATCH, "c", False),
        ([["a"]], Op.EQ, "a", False),
        ([["a"]], Op.NE, "b", False),
        ([["a"], "b"], Op.NE, "a", True),
        ([None], Op.NE, "a", False),
        ([None], Op.NOT_NIL, None, True),
        ([b"a", "b"], Op.NE, "b", False),
        ([NAN, 1], Op.NE, 1, False),
        ([NAN], Op.NE, 1, True),
        ([True], Op.EQ, True, True),
    ],
)
@pytest.mark.parametrize(
    "field", [Field.SPAN_ATTRIBUTE, Field.RESOURCE_ATTRIBUTE, Field.SCOPE_ATTRIBUTE, Field.ANY_ATTRIBUTE]
)
def test_attribute(field: Field, value: Any, op: Op, right: Any, expected: bool) -> None:
    has = {} if value is MISSING else {"k": value}
    in_resource = has if field in (Field.RESOURCE_ATTRIBUTE, Field.ANY_ATTRIBUTE) else {}
    seen = one(
        Span(attributes=attributes(has if field == Field.SPAN_ATTRIBUTE else {"other": "a"})),
        in_resource,
        has if field == Field.SCOPE_ATTRIBUTE else {},
    )
    assert reference.holds(Condition(field, b"k", *constant(op, right)), seen, [seen]) is expected


def test_any_of_several_attributes_counts_and_the_span_goes_before_the_resource() -> None:
    span = Span(
        attributes=[*attributes({"k": "a"}), *attributes({"k": "b"}), *attributes({"n": "x"}), KeyValue(key="n")]
    )
    seen = one(span, {"k": "c", "n": "y", "r": "z"})

    def holds(key: bytes, op: Op, right: Any) -> bool:
        return reference.holds(Condition(Field.ANY_ATTRIBUTE, key, *constant(op, right)), seen, [seen])

    assert holds(b"k", Op.EQ, "a")
    assert holds(b"k", Op.EQ, "b")
    assert holds(b"k", Op.NE, "b")
    assert not holds(b"k", Op.EQ, "c")
    assert not holds(b"n", Op.EQ, "y")
    assert not holds(b"n", Op.IS_NIL, None)
    assert holds(b"n", Op.NOT_NIL, None)
    assert holds(b"r", Op.EQ, "z")


SPAN = Span(
    trace_id=b"\xab" * 16,
    span_id=b"\x00\x01\x02\x03\x04\x05\x06\xff",
    parent_span_id=b"\xff" * 8,
    name="GET",
    kind=Span.SPAN_KIND_CLIENT,
    start_time_unix_nano=5,
    end_time_unix_nano=2**64 - 1,
    status=Status(code=Status.STATUS_CODE_ERROR, message="boom"),
)


@pytest.mark.parametrize(
    ("field", "span", "right"),
    [
        (Field.NAME, SPAN, "GET"),
        (Field.STATUS, SPAN, 2),
        (Field.STATUS_MESSAGE, SPAN, "boom"),
        (Field.KIND, SPAN, 3),
        (Field.DURATION, SPAN, 2**64 - 6),
        (Field.SPAN_ID, SPAN, "00010203040506ff"),
        (Field.PARENT_ID, SPAN, "ffffffffffffffff"),
        (Field.TRACE_ID, SPAN, "ab" * 16),
        (Field.NAME, Span(), ""),
        (Field.STATUS, Span(), 0),
        (Field.STATUS_MESSAGE, Span(), ""),
        (Field.KIND, Span(), 0),
        (Field.DURATION, Span(start_time_unix_nano=2, end_time_unix_nano=2), 0),
        (Field.PARENT_ID, Span(), ""),
        (Field.PARENT_ID, Span(parent_span_id=bytes(8)), ""),
        (Field.PARENT_ID, Span(parent_span_id=b"\x00\x01"), "0001"),
        (Field.SCOPE_NAME, Span(), ""),
        (Field.SCOPE_VERSION, Span(), ""),
    ],
)
def test_field(field: Field, span: Span, right: Any) -> None:
    seen = one(span)
    assert reference.holds(Condition(field, b"", *constant(Op.EQ, right)), seen, [seen])
    assert not reference.holds(Condition(field, b"", *constant(Op.NE, right)), seen, [seen])


def test_fields_of_the_trace() -> None:
    def holds(field: Field, op: Op, right: Any) -> bool:
        return reference.holds(Condition(field, b"", *constant(op, right)), trace[0], trace)

    child = one(Span(span_id=b"\x01" * 8, parent_span_id=b"\x02" * 8, name="c", end_time_unix_nano=2**63))
    trace = [child]
    for field, right in ((Field.ROOT_NAME, "x"), (Field.ROOT_SERVICE, "x"), (Field.TRACE_DURATION, 1)):
        assert not holds(field, Op.EQ, right)
        assert not holds(field, Op.NE, right)

    def top(span_id: int, start: int, end: int, name: str, service: Any) -> reference.Seen:
        span = Span(span_id=span_id.to_bytes(8), name=name, start_time_unix_nano=start, end_time_unix_nano=end)
        return one(span, {"service.name": service})

    trace += [top(3, 10, 9, "later", "s"), top(2, 7, 20, "second id", "s"), top(1, 7, 30, "root", "checkout")]
    trace += [top(1, 7, 7, "twice", "other")]
    assert holds(Field.ROOT_NAME, Op.EQ, "root")
    assert holds(Field.ROOT_SERVICE, Op.EQ, "checkout")
    assert holds(Field.TRACE_DURATION, Op.EQ, 23)
    trace.append(top(9, 1, 2**64 - 1, "earliest", 5))
    assert holds(Field.TRACE_DURATION, Op.EQ, 2**64 - 2)
    assert holds(Field.ROOT_NAME, Op.EQ, "earliest")
    assert not holds(Field.ROOT_SERVICE, Op.NE, "x")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ((0,), True),
        ((1,), False),
        ((0, 1, AND), False),
        ((0, 1, OR), True),
        ((1, NOT), True),
        ((0, 1, OR, NOT, TRUE, AND), False),
        ((FALSE, 0, OR, 1, NOT, AND), True),
    ],
)
def test_program(program: tuple[int, ...], expected: bool) -> None:
    assert reference.run(program, lambda n: n == 0) is expected


# Decisions and what leaves


def test_conditions_of_one_filter_hold_for_the_same_span_and_the_first_rule_decides() -> None:
    error = Condition(Field.STATUS, b"", Op.EQ, Kind.INT, 2)
    get = Condition(Field.NAME, b"", Op.EQ, Kind.STRING, b"GET")
    same = reference.Selection([reference.Filter([error, get], (0, 1, AND))], (0,))
    apart = reference.Selection([reference.Filter([error], (0,)), reference.Filter([get], (0,))], (0, 1, AND))
    rules = [
        reference.Rule("same", 0.0, same),
        reference.Rule("apart", 1.0, apart),
        reference.Rule("no errors", 0.5, None, apart),
    ]
    trace_id = bytes(9) + b"\x7f" + bytes(6)
    names = [one(Span(trace_id=trace_id, name="GET")), one(Span(trace_id=trace_id, status=Status(code=2)))]
    random = 0x7F << 48
    assert reference.decide(rules, names) == (1, 0, True, random)
    names[0].span.status.code = Status.STATUS_CODE_ERROR
    assert reference.decide(rules, names) == (0, 1 << 56, False, random)
    assert reference.decide(rules, names[1:]) == (2, T, False, random)


def test_stamped() -> None:
    span = Span(name="n", trace_state="ot=th:4", attributes=attributes({"a": 1}))
    out = reference.stamped(span, reference.Stamp("errors", "root", T, R, adjusted_count=True))
    assert out.trace_state == "ot=th:8"
    assert [a.key for a in out.attributes] == [
        "a",
        "sampler_proxy.rule",
        "sampler_proxy.reason",
        "sampler_proxy.adjusted_count",
    ]
    assert [reference.plain(a.value) for a in out.attributes] == [1, b"errors", b"root", 2.0]
    assert span.trace_state == "ot=th:4"
    span.trace_state = "ot=th:a"
    out = reference.stamped(span, reference.Stamp("errors", "root", 0, R, decision=False, adjusted_count=True))
    assert out.trace_state == ""
    assert [a.key for a in out.attributes] == ["a"]


def test_spans_are_compared_irrespective_of_grouping() -> None:
    def request(grouping: list[list[str]]) -> ExportTraceServiceRequest:
        found = ExportTraceServiceRequest()
        for names in grouping:
            resource_spans = found.resource_spans.add(schema_url="u")
            spans = [Span(trace_id=b"\x01" * 16, span_id=b"\x01" * 8, name=name) for name in names]
            resource_spans.scope_spans.add().spans.extend(spans)
        return found

    assert reference.spans_of(request([["a", "b"], ["a"]])) == reference.spans_of(request([["b"], ["a"], ["a"]]))
    assert reference.spans_of(request([["a", "b"]])) != reference.spans_of(request([["a", "b", "a"]]))
    other = request([["a"]])
    other.resource_spans[0].schema_url = "v"
    assert reference.spans_of(request([["a"]])) != reference.spans_of(other)


@given(strategies.requests())
def test_kept_spans_are_the_spans_that_came(request: ExportTraceServiceRequest) -> None:
    good = [seen for seen in reference.seen(request) if reference.invalid(seen.span) is None]
    stamp = reference.Stamp("r", "root", 0, (1 << 56) - 1, decision=False)  # changes nothing
    kept = reference.expected_kept([request, request], lambda _: stamp)
    assert kept.total() == 2 * len(good)
    assert all(count == 2 * reference.spans_of(request)[key] for key, count in kept.items())
    first = strategies.TRACE_IDS[0]
    some = reference.expected_kept([request], lambda trace: stamp if trace[0].span.trace_id == first else None)
    assert some.total() == sum(seen.span.trace_id == first for seen in good)


def test_spans_without_valid_ids_are_left_out() -> None:
    good = {"trace_id": b"\x01" * 16, "span_id": b"\x01" * 8}
    assert reference.invalid(Span(**good)) is None
    for bad in strategies.BAD_TRACE_IDS:
        assert reference.invalid(Span(**{**good, "trace_id": bad, "span_id": b""})) == "trace_id"
    for bad in strategies.BAD_SPAN_IDS:
        assert reference.invalid(Span(**{**good, "span_id": bad})) == "span_id"


# The writer


@given(strategies.wire_requests())
def test_what_the_writer_writes_reads_as_the_message(pair: tuple[ExportTraceServiceRequest, bytes]) -> None:
    message, raw = pair
    parsed = ExportTraceServiceRequest.FromString(raw)
    parsed.DiscardUnknownFields()
    assert reference.deterministic(parsed) == reference.deterministic(message)


def test_without_noise_the_writer_writes_what_the_official_encoder_writes() -> None:
    for request in nezha.load(nezha.TRAIN_TICKET)[:3]:
        assert wire.encode(request, Random(1), wire.CALM) == request.SerializeToString()


def test_every_noise_makes_a_difference() -> None:
    span = Span(
        trace_id=b"\x01" * 16,
        span_id=b"\x01" * 8,
        kind=2,
        status=Status(code=2, message="m"),
        attributes=attributes({"a": 1}),
    )
    span.attributes.extend(attributes({"b": True, "c": ["x"]}))
    calm = span.SerializeToString()
    for name in wire.Noise.__dataclass_fields__.keys() - {"keys"}:  # which is part of another
        noisy = {wire.encode(span, Random(seed), wire.Noise(**{name: True})) for seed in range(50)}
        assert noisy - {calm}, name
        assert all(Span.FromString(raw) == span for raw in noisy) or name == "unknown"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (wire.varint(0), "00"),
        (wire.varint(300), "ac02"),
        (wire.varint(-1), "ff" * 9 + "01"),
        (wire.varint(1, 5), "8180808000"),
        (wire.varint(2**32 + 3), "8380808010"),
        (wire.tag(16, wire.FIXED32), "8501"),
        (wire.tag(1, wire.LEN, 3), "8a8000"),
        (wire.field(5, wire.LEN, b"GET"), "2a03474554"),
        (wire.field(7, wire.FIXED64, bytes(8)), "39" + "00" * 8),
    ],
)
def test_wire(raw: bytes, expected: str) -> None:
    assert raw.hex() == expected


# The recordings


@pytest.mark.parametrize(
    ("recording", "traces", "spans", "slow", "services"),
    [(nezha.ONLINE_BOUTIQUE, 495, 23_444, 20, 10), (nezha.TRAIN_TICKET, 53, 4_445, 0, 27)],
)
def test_recording(recording: str, traces: int, spans: int, slow: int, services: int) -> None:
    requests = nezha.load(recording, 100)
    found = reference.traces(requests)
    assert len(found) == traces
    assert sum(map(len, found.values())) == spans
    assert sum((reference.trace_duration(trace) or 0) > 10**9 for trace in found.values()) == slow
    assert len({one.resource.attributes[0].value.string_value for trace in found.values() for one in trace}) == services
    assert all(sum(not reference.has_parent(one.span) for one in trace) == 1 for trace in found.values())
    assert all(0 < len(list(nezha.spans([request]))) <= 100 for request in requests)
    ends = [max(span.end_time_unix_nano for span in nezha.spans([request])) for request in requests]
    assert ends == sorted(ends)
    chosen = nezha.add_errors(requests, every=50)
    assert len(chosen) == math.ceil(traces / 50)
    assert {span.trace_id for span in nezha.spans(requests) if span.status.code == 2} == chosen


def test_roots() -> None:
    def seen(span_id: int, parent: int = 0, flags: int = 0, start: int = 5) -> reference.Seen:
        ids = {"span_id": bytes([span_id] * 8), "parent_span_id": bytes([parent] * 8) if parent else b""}
        return reference.Seen(Resource(), InstrumentationScope(), Span(**ids, flags=flags, start_time_unix_nano=start))

    top, child, local, inner = seen(1), seen(2, 1, 0x300), seen(3, 9, 0x301), seen(4, 3, 0x100)
    assert reference.roots([local, top, child]) == [top]
    assert reference.roots([inner, local]) == [local]
    assert reference.roots([inner, seen(3, 4, 0x300)]) == []  # a cycle
    assert reference.roots([seen(3, 9, flags) for flags in (0, 0x100, 0x200, 0x400)]) == []
    assert reference.root([local, seen(5, 9, 0x300, start=4)]) == seen(5, 9, 0x300, start=4)
    assert reference.root([seen(5, 9, 0x300), local]) == local  # the smallest id
    cases = [([top, seen(6, 9)], True), ([local, inner], True), ([local, seen(6, 8)], False), ([inner], False)]
    assert [reference.whole(trace) for trace, _ in cases] == [whole for _, whole in cases]
