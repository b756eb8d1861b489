"""What relates or counts spans: queries, their guards, which rules only ever become true, how large it may get."""

from __future__ import annotations

import time

import pytest

from sampler_proxy.traceql.compiler import MAX_STACK, Compiled, compile_rules
from sampler_proxy.traceql.fields import MAX_TERM_STACK
from sampler_proxy.traceql.parse import MAX_BYTES, parse
from sampler_proxy.traceql.program import (
    AND,
    NOT,
    OR,
    TRUE,
    Aggregate,
    Arith,
    Constant,
    Field,
    Kind,
    Node,
    Op,
    Pipeline,
    Query,
    Select,
    Slot,
    Spansets,
    Structural,
)

A, B, C = Select(0), Select(1), Select(2)


def rule(match: str, unless: str | None = None) -> Compiled:
    return compile_rules([(parse(match), None if unless is None else parse(unless))])


def over(count: int, op: Op = Op.GT) -> Aggregate:
    return Aggregate("count", None, op, Constant(Kind.INT, count))


OPERATORS = [">", ">>", "<", "<<", "~", "!>", "!>>", "!<", "!<<", "!~"]


@pytest.mark.parametrize("operator", OPERATORS)
def test_structural(operator: str) -> None:
    compiled = rule(f"{{ .a }} {operator} {{ .b }}")
    guard = (2,) if operator[0] == "!" else (0, 2, AND)
    assert compiled.queries == (Query(guard, Structural(operator, A, B)),)
    assert (compiled.filters, compiled.programs) == (((0,), (1,)), ((1,),))


@pytest.mark.parametrize(
    ("text", "guard", "root"),
    [
        ("{ .a } | count() > 2", (0,), Pipeline((A, over(2)))),
        ("count() > 2", (TRUE,), over(2)),
        ("count() > 1s", (TRUE,), over(10**9)),
        ("{ .a } | { .b }", (0, 2, AND), Pipeline((A, B))),
        ("{ .a } | { .b } > { .c } | count() > 2", (0, 2, AND, 4, AND), Pipeline((A, Structural(">", B, C), over(2)))),
        ("count() >= 2", (TRUE,), over(2, Op.GE)),
        ("count() > 2 | { .a }", (0,), Pipeline((over(2), A))),
        ("{ .a } || { .b } | count() > 2", (0, 2, OR), Pipeline((Spansets(OR, (A, B)), over(2)))),
        ("({ .a } && { .b }) >> { .c }", (0, 2, AND, 4, AND), Structural(">>", Spansets(AND, (A, B)), C)),
        ("{ .a } > { .b } !~ { .c }", (4,), Structural("!~", Structural(">", A, B), C)),
        ("{} > { .a }", (2,), Structural(">", A, B)),
        ("{ name = rootName }", (TRUE,), A),
    ],
)  # fmt: skip
def test_query(text: str, guard: tuple[int, ...], root: Node) -> None:
    compiled = rule(text)
    assert compiled.queries == (Query(guard, root),)
    assert compiled.programs == ((2 * len(compiled.trace_conditions) + 1,),)


@pytest.mark.parametrize(
    ("text", "argument", "constant"),
    [
        ("avg(duration) > 20ms", (Slot(Field.DURATION, b""),), Constant(Kind.INT, 20_000_000)),
        ("max(span.x) > 0.5", (Slot(Field.SPAN_ATTRIBUTE, b"x"),), Constant(Kind.FLOAT, 0.5)),
        ("sum(.x) > 2 + 3", (Slot(Field.ANY_ATTRIBUTE, b"x"),), Constant(Kind.INT, 5)),
        (
            "min(duration / 1ms + event.x) > -1",
            (
                *(Slot(Field.DURATION, b""), Constant(Kind.FLOAT, 1e6), Arith.DIV),
                *(Slot(Field.EVENT_ATTRIBUTE, b"x"), Arith.ADD),
            ),
            Constant(Kind.INT, -1),
        ),
    ],
)
def test_aggregate(text: str, argument: tuple[object, ...], constant: Constant) -> None:
    (query,) = rule("{ .a } | " + text).queries
    assert query.root == Pipeline((A, Aggregate(text[:3], argument, Op.GT, constant)))  # type: ignore[arg-type]
    assert query.guard == (0,)


def test_what_bits_can_say_stays_outside_of_queries() -> None:
    compiled = rule("{ .a } && ({ .b } | count() > 2) && { traceDuration > 1s } || { .c }", "{ .d } > { .e }")
    assert len(compiled.queries) == 2
    operands = sorted(token for token in compiled.programs[0] if token >= 0)
    assert operands == [0, 1, 3, 4, 5]


def test_queries_are_shared() -> None:
    text = "{ .a } > { .b }"
    compiled = compile_rules(
        [(parse(text), None), (parse("{ .b }"), parse(text)), (parse(f"({text}) && {{ .c }}"), None)]
    )
    assert len(compiled.queries) == 1
    assert compiled.programs == ((1,), (1, NOT, 2, AND), (1, 4, AND))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("{ false } > { .a }", "{ false }"),
        ("{ .a } > { 1 = 2 }", "{ false }"),
        ("{ .a } !> { false }", "{ false }"),
        ("{ .a } | { false } | count() > 1", "{ false }"),
        ("({ .a } && { false }) << { .b }", "{ false }"),
        ("({ .a } || { false }) << { .b }", "{ .a } << { .b }"),
        ("({ false } !> { .a }) >> { .b }", "{ .a } >> { .b }"),
        ("{ .a } | count() = 0", "{ false }"),
        ("{ .a } | count() < 1", "{ false }"),
        ("{ .a } | count() <= 0.5", "{ false }"),
    ],
)
def test_what_can_select_nothing_is_left_out(text: str, same: str) -> None:
    assert rule(text) == rule(same)


def test_deferred_filters() -> None:
    """What compares spans with their trace has no bit; its guard is what follows from the rest."""
    compiled = rule('{ .a && duration > traceDuration * 0.5 && rootName = "x" && .b = .c }')
    (query,) = compiled.queries
    assert query.root == Select(0)
    assert compiled.deferred == {0}
    conditions, comparisons = len(compiled.conditions), len(compiled.comparisons)
    assert (conditions, comparisons, len(compiled.trace_conditions)) == (1, 2, 1)
    assert sorted(token for token in compiled.filters[0] if token >= 0) == [0, 1, 2, 3]
    assert compiled.filters[1] == (0, 1 if compiled.comparisons[0].op is Op.EQ else 2, AND)
    assert sorted(query.guard) == [AND, 1, 2]


@pytest.mark.parametrize(
    ("text", "filters", "guard"),
    [
        ("{ .a || name = rootName }", 1, (TRUE,)),
        ("{ .a && !(name = rootName) }", 2, (2,)),
        ("{ .a && traceDuration > 1s } > { .b }", 3, (2, 4, AND, 1, AND)),
        ("{ traceDuration > 1s } > { .b }", 2, (1, 2, AND)),
    ],
)
def test_guards_of_deferred_filters(text: str, filters: int, guard: tuple[int, ...]) -> None:
    compiled = rule(text)
    assert len(compiled.filters) == filters
    assert sorted(compiled.queries[0].guard) == sorted(guard)


def test_guards_never_fail() -> None:
    """Where braces mix too much to be split, the guard makes do with what follows for the spans."""
    parts = " && ".join(f"(traceDuration > {i}ns || .a{i})" for i in range(20))
    compiled = rule(f"{{ .x && {parts} && name = rootName }}")
    (query,) = compiled.queries
    assert query.root == Select(0)
    (operand,) = query.guard
    assert len(compiled.filters[operand // 2]) == 1


@pytest.mark.parametrize(
    ("monotone", "match", "unless"),
    [
        (True, "{}", None),
        (True, "{ false }", None),
        (True, "{ .a }", None),
        (True, "{ !(.a = 1) && .b != nil }", None),
        (True, "{ .a } && { .b } || { .c }", None),
        (True, "{ traceDuration > 1s }", None),
        (True, "{ traceDuration >= 1s && .a }", None),
        (True, '{ trace:id = "ab" }', None),
        (True, '{ trace:id != "ab" && .a }', None),
        (True, '{ .a }', '{ trace:id = "ab" }'),
        (True, "{ .a }", "{ false }"),
        (True, "{ .a } > { .b }", None),
        (True, "{ .a } << ({ .b } ~ { .c })", None),
        (True, "({ .a } >> { .b }) && ({ .c } | count() > 2)", None),
        (True, "count() >= 100", None),
        (True, "{ .a } | { .b } | count() > 1", None),
        (False, "{ .a } | max(duration) > 1s", None),  # the last copy of a span may be shorter
        (False, "{ .a } | min(duration) <= 1s", None),
        (True, "{ traceDuration > 1s } > { .b }", None),
        (True, "{ .a = .b + 1 }", None),
        (False, "{ traceDuration < 1s }", None),
        (False, "{ !(traceDuration < 1s) }", None),  # missing first, and short then
        (False, "{ !(traceDuration > 1s) }", None),
        (False, "{ traceDuration != 1s }", None),
        (False, '{ rootName = "x" }', None),
        (False, '{ .a || rootServiceName != "x" }', None),
        (False, "{ rootName != nil }", None),
        (False, "{ name = rootName }", None),
        (False, "{ duration > traceDuration / 2 }", None),
        (False, "{ .a }", "{ .b }"),
        (False, "{ .a }", "{ traceDuration > 1s }"),
        (False, "{ .a }", "{ .b } > { .c }"),
        (False, "{ .a } !> { .b }", None),
        (False, "({ .a } !~ { .b }) > { .c }", None),
        (False, "{ .a } | count() < 5", None),
        (False, "{ .a } | count() = 5", None),
        (False, "{ .a } | sum(.x) > 5", None),
        (False, "{ .a } | avg(.x) > 5", None),
        (False, "{ .a } | max(.x) < 5", None),
        (False, "{ .a } | max(.x * traceDuration) > 5", None),
        (False, "{ !(traceDuration > 1s) } > { .b }", None),
        (False, '{ rootName = "x" } > { .b }', None),
    ],
)  # fmt: skip
def test_monotone(monotone: bool, match: str, unless: str | None) -> None:
    assert rule(match, unless).monotone == (monotone,)


def test_monotone_is_said_of_each_rule() -> None:
    texts = ["{ .a }", "{ traceDuration < 1s }", "{ .a } !> { .b }", "{}"]
    assert compile_rules([(parse(text), None) for text in texts]).monotone == (True, False, False, True)


def _depth(program: tuple[int, ...]) -> int:
    depth = most = 0
    for token in program:
        depth += -1 if token in (AND, OR) else 0 if token == NOT else 1
        most = max(most, depth)
    return most


def _filled(start: str, part: str, joint: str, end: str) -> str:
    count = (MAX_BYTES - len(start) - len(end)) // (len(part) + len(joint)) - 1
    return start + joint.join([part] * count) + end


LARGE = {
    "sums": "{ " + "(" * 99 + ".a" + " + 1)" * 99 + " = 2 }",
    "sums to the right": "{ " + "(1 + " * 99 + ".a" + ")" * 99 + " = 2 }",
    "signs": "{ " + "-" * 99 + ".a = 2 }",
    "powers": "{ " + " ^ ".join([".a"] * 150) + " = 2 }",
    "relations": " > ".join(f"{{ .a{i} }}" for i in range(190)),
    "relations to the right": "({ .a } >> " * 99 + "{ .b }" + ")" * 99,
    "pipelines": "(" * 99 + "{ .a }" + " | count() > 1)" * 99,
    "stages": _filled("", "{ .a = .b }", " | ", ""),
    "spansets": _filled("({ .x } || ", "{ .a = .b }", " && ", ") > { .c }"),
    "comparisons": _filled("{ ", ".a + 1 = .b", " || ", " }"),
    "conditions": _filled("{ ", "(.a = 1) = .b", " && ", " }"),
    "deferred": _filled("{ ", "(name = rootName || .a && traceDuration > 1s)", " && ", " }"),
    "deferred braces": " > ".join(["{ name = rootName && (.a || traceDuration > 1s) }"] * 190),
    "products": _filled("", "{ (.a || traceDuration > 1) && (.b || traceDuration > 2) && (.c || !.d) }", " && ", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_large_expressions_compile_in_time_and_fit_the_stack(name: str) -> None:
    started = time.process_time()
    compiled = rule(LARGE[name])
    assert time.process_time() - started < 5
    for program in (*compiled.filters, *compiled.programs, *(query.guard for query in compiled.queries)):
        assert _depth(program) <= MAX_STACK
    for comparison in compiled.comparisons:
        for term in (comparison.left, comparison.right):
            depth = most = 0
            for part in term:
                depth += 0 if part is Arith.NEG else -1 if isinstance(part, Arith) else 1
                most = max(most, depth)
            assert depth == 1
            assert most <= MAX_TERM_STACK


def test_ten_thousand_queries_compile_in_time_and_are_shared() -> None:
    kinds = [
        "{{ .service = {0} }} > {{ .a = .b + {0} }}",
        "{{ .service = {0} }} | count() > {0}",
        "{{ .service = {0} && duration > traceDuration / {0} }}",
        "{{ (.a = {0}) = .b && event.x = {0} }}",
    ]
    rules = [(parse(kinds[i % 4].format(i // 4 + 1)), None) for i in range(2000)]
    started = time.process_time()
    compiled = compile_rules(rules * 5)
    assert time.process_time() - started < 5
    assert len(compiled.programs) == 10_000
    assert len(compiled.queries) == 1500
