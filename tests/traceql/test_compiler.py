"""What rules compile to as far as single spans and the trace decide, and that the programs say what the text says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql.ast import Filter, Regex
from sampler_proxy.traceql.compiler import MAX_STACK, Compiled, compile_rules, compile_selection
from sampler_proxy.traceql.parse import parse
from sampler_proxy.traceql.program import (
    AND,
    FALSE,
    FIRST_TRACE_FIELD,
    NOT,
    OR,
    TRUE,
    Arith,
    Comparison,
    Condition,
    Constant,
    Field,
    Kind,
    Op,
    Query,
    Select,
    Slot,
)

A, R, S, ANY = Field.SPAN_ATTRIBUTE, Field.RESOURCE_ATTRIBUTE, Field.SCOPE_ATTRIBUTE, Field.ANY_ATTRIBUTE


def rules(*texts: str | tuple[str, str]) -> Compiled:
    pairs = [text if isinstance(text, tuple) else (text, None) for text in texts]
    return compile_rules([(parse(match), None if unless is None else parse(unless)) for match, unless in pairs])


def only(**parts: Any) -> Compiled:
    empty: dict[str, Any] = dict.fromkeys(Compiled.__slots__, ())
    return Compiled(
        **(empty | {"deferred": frozenset(), "monotone": (True,), "late": (True,), "exclusions": ((FALSE,),)} | parts)
    )


def slot(key: str) -> Slot:
    return Slot(ANY, key.encode())


def integer(value: int) -> Constant:
    return Constant(Kind.INT, value)


def real(value: float) -> Constant:
    return Constant(Kind.FLOAT, value)


def condition(field: Field, op: Op, kind: Kind, value: object, key: bytes = b"") -> Condition:
    return Condition(field, key, op, kind, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status = error", condition(Field.STATUS, Op.EQ, Kind.INT, 2)),
        ("status != ok", condition(Field.STATUS, Op.NE, Kind.INT, 1)),
        ("unset = status", condition(Field.STATUS, Op.EQ, Kind.INT, 0)),
        ("kind = unspecified", condition(Field.KIND, Op.EQ, Kind.INT, 0)),
        ("kind = internal", condition(Field.KIND, Op.EQ, Kind.INT, 1)),
        ("kind = server", condition(Field.KIND, Op.EQ, Kind.INT, 2)),
        ("kind = client", condition(Field.KIND, Op.EQ, Kind.INT, 3)),
        ("kind = producer", condition(Field.KIND, Op.EQ, Kind.INT, 4)),
        ("kind = consumer", condition(Field.KIND, Op.EQ, Kind.INT, 5)),
        ("name = `é`", condition(Field.NAME, Op.EQ, Kind.STRING, "é".encode())),
        ('name > "m"', condition(Field.NAME, Op.GT, Kind.STRING, b"m")),
        ('statusMessage != ""', condition(Field.STATUS_MESSAGE, Op.NE, Kind.STRING, b"")),
        ("duration >= 1.5s", condition(Field.DURATION, Op.GE, Kind.INT, 1_500_000_000)),
        ("duration > 2.5", condition(Field.DURATION, Op.GT, Kind.FLOAT, 2.5)),
        ("duration > -1s", condition(Field.DURATION, Op.GT, Kind.INT, -1_000_000_000)),
        ("1s > duration", condition(Field.DURATION, Op.LT, Kind.INT, 1_000_000_000)),
        ('span:id = "ABCDEF0123456789"', condition(Field.SPAN_ID, Op.EQ, Kind.STRING, b"abcdef0123456789")),
        ('span:parentID = ""', condition(Field.PARENT_ID, Op.EQ, Kind.STRING, b"")),
        ('instrumentation:name = "x"', condition(Field.SCOPE_NAME, Op.EQ, Kind.STRING, b"x")),
        ('instrumentation:version = "1"', condition(Field.SCOPE_VERSION, Op.EQ, Kind.STRING, b"1")),
        ("span.x = 1", condition(A, Op.EQ, Kind.INT, 1, b"x")),
        ("resource.x = 1.0", condition(R, Op.EQ, Kind.FLOAT, 1.0, b"x")),
        ("instrumentation.x < 1", condition(S, Op.LT, Kind.INT, 1, b"x")),
        (".x = true", condition(ANY, Op.EQ, Kind.BOOL, True, b"x")),
        (".x != false", condition(ANY, Op.NE, Kind.BOOL, False, b"x")),
        (".x", condition(ANY, Op.EQ, Kind.BOOL, True, b"x")),
        ("!.x", condition(ANY, Op.EQ, Kind.BOOL, False, b"x")),
        ("!!.x", condition(ANY, Op.EQ, Kind.BOOL, True, b"x")),
        (".x > 1m", condition(ANY, Op.GT, Kind.INT, 60_000_000_000, b"x")),
        (".x = minInt", condition(ANY, Op.EQ, Kind.INT, -(2**63), b"x")),
        ('span."x y" = nil', condition(A, Op.IS_NIL, Kind.NONE, None, b"x y")),
        ("span.x != nil", condition(A, Op.NOT_NIL, Kind.NONE, None, b"x")),
        ('.é =~ "a.*"', condition(ANY, Op.MATCH, Kind.REGEX, Regex.compile(b"a.*"), "é".encode())),
        ('name !~ "a"', condition(Field.NAME, Op.NOT_MATCH, Kind.REGEX, Regex.compile(b"a"))),
        ("true && (.x = 1 || false)", condition(ANY, Op.EQ, Kind.INT, 1, b"x")),
        ("(.x = 1) != false", condition(ANY, Op.EQ, Kind.INT, 1, b"x")),
        ("name != nil && .x = 1", condition(ANY, Op.EQ, Kind.INT, 1, b"x")),
        ("event.x = nil", condition(Field.EVENT_ATTRIBUTE, Op.IS_NIL, Kind.NONE, None, b"x")),
        ("event.x", condition(Field.EVENT_ATTRIBUTE, Op.EQ, Kind.BOOL, True, b"x")),
        ('event:name != "x"', condition(Field.EVENT_NAME, Op.NE, Kind.STRING, b"x")),
        ("event:name != nil", condition(Field.EVENT_NAME, Op.NOT_NIL, Kind.NONE, None)),
        ("event:timeSinceStart > -1ms", condition(Field.EVENT_TIME, Op.GT, Kind.INT, -1_000_000)),
        ('link.x =~ "a"', condition(Field.LINK_ATTRIBUTE, Op.MATCH, Kind.REGEX, Regex.compile(b"a"), b"x")),
        ('link:spanID = "AB"', condition(Field.LINK_SPAN_ID, Op.EQ, Kind.STRING, b"ab")),
        ('link:traceID != "AB"', condition(Field.LINK_TRACE_ID, Op.NE, Kind.STRING, b"0" * 30 + b"ab")),
    ],
)
def test_condition_on_spans(text: str, expected: Condition) -> None:
    assert rules("{ " + text + " }") == only(conditions=(expected,), filters=((0,),), programs=((0,),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("traceDuration > 1s", condition(Field.TRACE_DURATION, Op.GT, Kind.INT, 1_000_000_000)),
        ("rootDuration > 1s", condition(Field.ROOT_DURATION, Op.GT, Kind.INT, 1_000_000_000)),
        ("trace:rootDuration != nil", condition(Field.ROOT_DURATION, Op.NOT_NIL, Kind.NONE, None)),
        ("trace:duration < 0.5", condition(Field.TRACE_DURATION, Op.LT, Kind.FLOAT, 0.5)),
        ('rootName =~ ".*/healthz"', condition(Field.ROOT_NAME, Op.MATCH, Kind.REGEX, Regex.compile(b".*/healthz"))),
        ('rootServiceName = "x"', condition(Field.ROOT_SERVICE, Op.EQ, Kind.STRING, b"x")),
        ('trace:rootService > "x"', condition(Field.ROOT_SERVICE, Op.GT, Kind.STRING, b"x")),
        ("rootName != nil", condition(Field.ROOT_NAME, Op.NOT_NIL, Kind.NONE, None)),
        ('trace:id = "AB"', condition(Field.TRACE_ID, Op.EQ, Kind.STRING, b"0" * 30 + b"ab")),
        ('trace:id =~ "AB"', condition(Field.TRACE_ID, Op.MATCH, Kind.REGEX, Regex.compile(b"AB"))),
        ("traceDuration > 1s && true", condition(Field.TRACE_DURATION, Op.GT, Kind.INT, 1_000_000_000)),
    ],
)
def test_condition_on_traces(text: str, expected: Condition) -> None:
    compiled = rules("{ " + text + " }")
    assert compiled == only(
        trace_conditions=(expected,), programs=((1,),), monotone=compiled.monotone, late=compiled.late
    )


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("{}", (TRUE,)),
        ("{ true }", (TRUE,)),
        ("{ false }", (FALSE,)),
        ("{ !(1 = 2) }", (TRUE,)),
        ("{ .a && false }", (FALSE,)),
        ("{ .a || true }", (TRUE,)),
        ("{ .a && traceDuration > 1s && false }", (FALSE,)),
        ("{ status != nil }", (TRUE,)),
        ("{ !(name != nil) }", (FALSE,)),
        ("{ .a } || {}", (TRUE,)),
        ("{ .a } && { false }", (FALSE,)),
        ("{ nil = nil } || { nil != nil }", (FALSE,)),
    ],
)
def test_constants_leave_nothing_to_read(text: str, program: tuple[int, ...]) -> None:
    assert rules(text) == only(programs=(program,))


@pytest.mark.parametrize(
    ("text", "filters", "program"),
    [
        ("{ .a && .b }", [(0, 1, AND)], (0,)),
        ("{ .a && !(.b = 1) }", [(0, 1, NOT, AND)], (0,)),
        ("{ !(.a && .b) }", [(0, NOT, 1, NOT, OR)], (0,)),
        ("{ .a && .a }", [(0,)], (0,)),
        ("{ .a || .b && .c }", [(0, 1, OR, 2, AND)], (0,)),
        ("{ .a } && { .b }", [(0,), (1,)], (0, 2, AND)),
        ("{ .a } && { .a }", [(0,)], (0,)),
        ("{ .a && .b } || { .b && .a }", [(0, 1, AND)], (0,)),
        ("{ .a } || { .b } && { .c }", [(0,), (1,), (2,)], (0, 2, OR, 4, AND)),
        ("{ .a && traceDuration > 1s }", [(0,)], (0, 1, AND)),
        ("{ .a || traceDuration > 1s }", [(0,)], (0, 1, OR)),
        ("{ !(.a = 1 || traceDuration > 1s) }", [(0, NOT)], (0, 1, NOT, AND)),
        # One span must do both where the trace is short, so this is not {a || t} && {b}.
        ("{ (.a || traceDuration > 1s) && .b }", [(0, 1, AND), (1,)], (1, 2, AND, 0, OR)),
        ("{ .a } && { traceDuration > 1s }", [(0,)], (0, 1, AND)),
    ],
)
def test_programs(text: str, filters: list[tuple[int, ...]], program: tuple[int, ...]) -> None:
    compiled = rules(text)
    assert (list(compiled.filters), compiled.programs) == (filters, (program,))


def test_several_rules_share_what_is_equal() -> None:
    compiled = compile_rules(
        [
            (parse("{ status = error }"), None),
            (parse("{ traceDuration > 1s }"), parse('{ rootName = "x" } || { status = error }')),
            (None, parse("{ error = status }")),
            (None, parse("{ false }")),
            (None, None),
        ]
    )
    assert compiled.conditions == (condition(Field.STATUS, Op.EQ, Kind.INT, 2),)
    assert compiled.filters == ((0,),)
    assert [item.field for item in compiled.trace_conditions] == [Field.TRACE_DURATION, Field.ROOT_NAME]
    assert compiled.programs == ((0,), (0, 3, OR, NOT, 1, AND), (0, NOT), (TRUE,), (TRUE,))


def test_kinds_keep_equal_numbers_apart() -> None:
    compiled = rules("{ .a = 1 }", "{ .a = 1.0 }", "{ .a = true }", '{ .a = "1" }')
    assert [item.kind for item in compiled.conditions] == [Kind.INT, Kind.FLOAT, Kind.BOOL, Kind.STRING]


def run(program: tuple[int, ...], operand: Callable[[int], bool]) -> tuple[bool, int]:
    """The value, and the largest stack on the way."""
    stack: list[bool] = []
    most = 0
    for token in program:
        if token == NOT:
            stack.append(not stack.pop())
        elif token in (AND, OR):
            right, left = stack.pop(), stack.pop()
            stack.append((left and right) if token == AND else (left or right))
        else:
            stack.append(token == TRUE if token < 0 else operand(token))
        most = max(most, len(stack))
    assert len(stack) == 1
    return stack[0], most


@dataclass(frozen=True)
class Trace:
    """Of each span, and of the trace, what is true: `.s0` ... `.s3`; `traceDuration > 0ns` ... `3ns`."""

    spans: tuple[frozenset[int], ...]
    trace: frozenset[int]


def decide(compiled: Compiled, trace: Trace) -> list[bool]:
    def of_span(span: frozenset[int]) -> Callable[[int], bool]:
        return lambda operand: int(compiled.conditions[operand].key[1:]) in span

    bits = [any(run(item, of_span(span))[0] for span in trace.spans) for item in compiled.filters]
    held = [item.value in trace.trace for item in compiled.trace_conditions]
    return [
        run(program, lambda operand: held[operand >> 1] if operand & 1 else bits[operand >> 1])[0]
        for program in compiled.programs
    ]


@dataclass(frozen=True)
class Formula:
    text: str
    holds: Callable[[frozenset[int], frozenset[int]], bool]


def _leaf(number: int, of_trace: bool) -> Formula:
    if of_trace:
        return Formula(f"traceDuration > {number}ns", lambda _, trace: number in trace)
    return Formula(f".s{number} = 1", lambda span, _: number in span)


def _both(left: Formula, right: Formula) -> Formula:
    return Formula(
        f"({left.text} && {right.text})", lambda span, trace: left.holds(span, trace) and right.holds(span, trace)
    )


def _either(left: Formula, right: Formula) -> Formula:
    return Formula(
        f"({left.text} || {right.text})", lambda span, trace: left.holds(span, trace) or right.holds(span, trace)
    )


def _not(inner: Formula) -> Formula:
    return Formula(f"!({inner.text})", lambda span, trace: not inner.holds(span, trace))


FORMULAS = st.recursive(
    st.builds(_leaf, st.integers(0, 3), st.booleans())
    | st.sampled_from([Formula("true", lambda *_: True), Formula("false", lambda *_: False)]),
    lambda inner: st.builds(_both, inner, inner) | st.builds(_either, inner, inner) | st.builds(_not, inner),
    max_leaves=12,
)
SETS = st.frozensets(st.integers(0, 3))
TRACES = st.builds(Trace, st.lists(SETS, min_size=1, max_size=4).map(tuple), SETS)


@settings(max_examples=200, deadline=None)
@given(st.lists(FORMULAS, min_size=1, max_size=3), st.none() | FORMULAS, st.lists(TRACES, min_size=1, max_size=20))
def test_compiled_means_what_the_text_means(match: list[Formula], unless: Formula | None, traces: list[Trace]) -> None:
    text = " && ".join("{ " + formula.text + " }" for formula in match)
    excluded = None if unless is None else parse("{ " + unless.text + " }")
    compiled = compile_rules([(parse(text), excluded), (parse(text.replace(" } && { ", " } || { ")), None)])
    for trace in traces:
        found = [any(formula.holds(span, trace.trace) for span in trace.spans) for formula in match]
        barred = unless is not None and any(unless.holds(span, trace.trace) for span in trace.spans)
        assert decide(compiled, trace) == [all(found) and not barred, any(found)]


def test_mixed_braces_on_every_trace_of_two_spans() -> None:
    long, longer = "traceDuration > 0ns", "traceDuration > 1ns"
    text = f"{{ (.s0 = 1 || {long}) && (.s1 = 1 || !({longer})) && (!(.s0 = 1) || {longer}) }}"
    compiled = rules(text)
    subsets = [frozenset(items) for size in range(3) for items in itertools.combinations((0, 1), size)]
    for first, second, trace in itertools.product(subsets, repeat=3):
        expected = any(
            (0 in span or 0 in trace) and (1 in span or 1 not in trace) and (0 not in span or 1 in trace)
            for span in (first, second)
        )
        assert decide(compiled, Trace((first, second), trace)) == [expected]


def _balanced(depth: int, of_or: bool = False, leaf: itertools.count[int] | None = None) -> str:
    leaf = leaf if leaf is not None else itertools.count()
    if depth == 0:
        return f".k{next(leaf)}"
    return "(" + (" || " if of_or else " && ").join(_balanced(depth - 1, not of_or, leaf) for _ in range(2)) + ")"


@pytest.mark.parametrize(
    "text",
    [
        "{ " + _balanced(12) + " }",
        "{ " + "(.a || (.b && " * 50 + ".c" + "))" * 50 + " }",
        "{ " + " || ".join(f".a{i} = {i}" for i in range(3500)) + " }",
        " && ".join(f"{{ .a{i} }}" for i in range(4000)),
        "{ " + "!(.a && .b || " * 50 + ".c" + ")" * 50 + " }",
    ],
    ids=["balanced", "to the right", "wide", "spansets", "inverted"],
)
def test_programs_fit_the_stack(text: str) -> None:
    compiled = rules(text)
    for program in (*compiled.filters, *compiled.programs):
        assert run(program, lambda _: True)[1] <= MAX_STACK


def test_mixing_is_bounded() -> None:
    """A few filters ask whether there is such a span; beyond that it is asked at decision time, span by span."""
    parts = [f"(traceDuration > {i}ns || .a{i})" for i in range(20)]
    assert len(rules("{ " + " && ".join(parts[:4]) + " }").filters) == 15
    compiled = rules("{ .x && " + " && ".join(parts) + " }")
    (deferred,) = compiled.deferred
    assert compiled.filters[1 - deferred] == (0,)
    assert compiled.conditions[0].key == b"x"
    assert compiled.queries == (Query((2 * (1 - deferred),), Select(deferred)),)
    assert len(rules("{ " + " || ".join(part.replace("||", "&&") for part in parts) + " }").filters) == 20
    assert len(rules("{ .b && (" + " || ".join(part.replace("||", "&&") for part in parts) + ") }").filters) == 20


COMPARISONS: dict[str, tuple[Op, list[Slot | Constant | Arith], list[Slot | Constant | Arith]] | None] = {
    "1s < .a": None,
    ".a = .b": (Op.EQ, [slot("a")], [slot("b")]),
    "name != event.a": (Op.NE, [Slot(Field.NAME, b"")], [Slot(Field.EVENT_ATTRIBUTE, b"a")]),
    "duration > .a": (Op.GT, [Slot(Field.DURATION, b"")], [slot("a")]),
    "status = status": (Op.EQ, [Slot(Field.STATUS, b"")], [Slot(Field.STATUS, b"")]),
    "2 = -.a": (Op.EQ, [slot("a"), Arith.NEG], [integer(2)]),
    ".a + 1 >= 2.5": (Op.GE, [slot("a"), integer(1), Arith.ADD], [real(2.5)]),
    ".a * 1ms > 1s": (Op.GT, [slot("a"), real(1e6), Arith.MUL], [integer(1_000_000_000)]),
    "10 - .a / 2 % 3 < .b ^ 2": (
        Op.LT,
        [integer(10), slot("a"), integer(2), Arith.DIV, integer(3), Arith.MOD, Arith.SUB],
        [slot("b"), integer(2), Arith.POW],
    ),
}


@pytest.mark.parametrize("text", COMPARISONS)
def test_comparison(text: str) -> None:
    compiled = rules("{ " + text + " }")
    expected = COMPARISONS[text]
    if expected is None:  # a constant on either side: the fast form
        assert len(compiled.conditions) == 1
        assert not compiled.comparisons
    else:
        op, left, right = expected
        comparison = Comparison(op, tuple(left), tuple(right))
        assert compiled == only(comparisons=(comparison,), filters=((0,),), programs=((0,),))


def test_operands_of_filters() -> None:
    compiled = rules("{ .x = .y && .a && !(.b + 1 = 2) && .c }")
    assert [item.key for item in compiled.conditions] == [b"a", b"c"]
    assert [item.op for item in compiled.comparisons] == [Op.EQ, Op.EQ]
    assert sorted(token for token in compiled.filters[0] if token >= 0) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(.a = 1) = (.b = 2)", lambda a, b: a == b),
        ("(.a = 1) != (.b = 2)", lambda a, b: a != b),
        ("!((.a = 1) != !(.b = 2))", lambda a, b: a == (not b)),
        ("!(.a = 1) = !(.b = 2)", lambda a, b: a == b),
        ("((.a = 1) = (.b = 2)) = (.a = 1)", lambda _, b: b),
        ("(.a = 1 || .b = 2) = (.a = 1 && .b = 2)", lambda a, b: a == b),
    ],
)
def test_conditions_compared(text: str, expected: Callable[[bool, bool], bool]) -> None:
    compiled = rules("{ " + text + " }")
    truth = [item.key for item in compiled.conditions]
    for a, b in itertools.product((False, True), repeat=2):
        holds = {b"a": a, b"b": b}
        values = [holds[key] for key in truth]
        assert run(compiled.filters[0], values.__getitem__)[0] == expected(a, b)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".b = (.a = 1)", {"a&b": Op.EQ, "!a&!b": Op.EQ}),
        ("(.a = 1) != .b", {"a&b": Op.NE, "!a&!b": Op.NE}),
    ],
)
def test_condition_compared_with_an_attribute(text: str, expected: dict[str, Op]) -> None:
    """By what the attribute is, and false where it is missing: so not by `!`."""
    compiled = rules("{ " + text + " }")
    of_b = [item for item in compiled.conditions if item.key == b"b"]
    assert [(item.op, item.value) for item in of_b] == [(expected["a&b"], True), (expected["!a&!b"], False)]
    assert sum(token == NOT for token in compiled.filters[0]) == 1


def test_comparing_conditions_is_bounded() -> None:
    text = "{ .x && (" + "(" * 20 + ".a = 1" + "".join(f") = (.a{i} = {i})" for i in range(20)) + ") }"
    with pytest.raises(TraceQLError, match="too much is compared with true or false") as caught:
        rules(text)
    assert caught.value.offset > 8
    assert rules("{ " + "(" * 6 + ".a = 1" + "".join(f") = (.a{i} = {i})" for i in range(6)) + " }").programs == ((0,),)


def test_selection_keeps_order_and_repetitions() -> None:
    texts = [".a", "traceDuration > 1s", "true", ".a", "name = rootName", "event.x = 1 && duration > traceDuration / 2"]
    expressions = [parse("{ " + text + " }").root for text in texts]
    conditions = [root.condition for root in expressions if isinstance(root, Filter)]
    compiled = compile_selection(conditions)
    assert len(compiled.filters) == 6
    assert compiled.filters[0] == compiled.filters[3]
    assert compiled.filters[2] == (TRUE,)
    assert compiled.deferred == {1, 4, 5}
    assert (compiled.queries, compiled.programs, compiled.monotone) == ((), (), ())
    assert compile_selection([]) == only(monotone=(), late=(), exclusions=())


def test_ten_thousand_rules_share_their_filters() -> None:
    expressions = [parse(f"{{ .service = {number % 100} && duration > {number}ms }}") for number in range(2000)]
    compiled = compile_rules([(expressions[number % 2000], None) for number in range(10_000)])
    assert len(compiled.programs) == 10_000
    assert (len(compiled.filters), len(compiled.conditions)) == (2000, 2100)


def test_trace_fields_are_in_trace_conditions_only() -> None:
    compiled = rules("{ name = `x` && rootName = `x` && span.a && traceDuration > 1 && .b = nil }")
    assert all(item.field < FIRST_TRACE_FIELD for item in compiled.conditions)
    assert all(item.field >= FIRST_TRACE_FIELD for item in compiled.trace_conditions)
