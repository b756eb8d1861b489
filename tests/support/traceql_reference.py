"""What a TraceQL expression selects, said over the syntax tree and official protobuf objects: slow and obvious.

Shares nothing with the plan compiler or the native side. What values, roots and times are is said in `reference`; the
rest, where Tempo's documentation leaves room:

spans       Distinct by span id, in order of first arrival. Braces look at every arrival, each by itself, and one that
            fulfils them is enough; the first says which span is the parent; aggregates read the last.
keys        Of an attribute that is there several times, any value may fulfil a comparison with a constant or condition;
            `= nil` wants all missing. Where two fields are compared, and in arithmetic, the last counts.
braces      Hold for a span if they hold for some pair of one event and one link of it; where it has none of either,
            that is tried once as missing.
bare        `{ x }` is x = true and `!x` is x = false, both false where x is missing; `!!x` is x = true again.
compare     A missing side, or types that do not compare, make a comparison false, != and !~ too. Numbers: ints exactly,
            else as doubles. One side an array: != if there are comparable elements and all differ, the others if any
            element does it; two arrays never.
arithmetic  Ints stay ints (/ goes towards zero, % has the sign of the left side) unless the result needs more than 64
            bits; division by the int zero is missing. All else is done in doubles as C does it, durations in
            nanoseconds. What is no number makes the result missing.
structure   Relations are those of the whole trace as far as it has arrived. Nobody is related to itself; a walk to the
            root ends where a parent is missing or a cycle closes. Roots are each other's siblings; who misses
            its parent has none. A negated operator
            selects those of the right side to which none of the left is related: all, if there is none.
aggregates  Over the values that are numbers, without NaN; without any, nothing is selected. Ints (durations too) add up
            exactly, else doubles are added in order of arrival. A span's value of an event or link is the first number.
ids         `=` and `!=` ignore the case of a constant, and leading zeros missing in a trace id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy.traceql import ast
from sampler_proxy.traceql.ast import Name, Scope, Type
from sampler_proxy.traceql.program import Op
from tests.support import reference
from tests.support.reference import Seen

MIN_INT, MAX_INT = -(2**63), 2**63 - 1


class Bound(NamedTuple):
    """Where the fields between one pair of braces are read."""

    one: Seen
    event: Span.Event | None
    link: Span.Link | None
    trace: Sequence[Seen]


def selects(expression: ast.Expression, trace: Sequence[Seen]) -> bool:
    return bool(selected_spans(expression, trace))


def selected_spans(expression: ast.Expression, trace: Sequence[Seen]) -> list[Seen]:
    """In no particular order."""
    plain = all(isinstance(node, ast.Filter | ast.SpansetLogical) for node in _spansets(expression.root))
    return _Trace(trace, arrivals=plain).select(expression.root, list(trace) if plain else distinct(trace))


def distinct(trace: Sequence[Seen]) -> list[Seen]:
    first: dict[bytes, Seen] = {}
    for one in trace:
        first.setdefault(one.span.span_id, one)
    return list(first.values())


def _spansets(root: ast.Spanset) -> Iterator[ast.Spanset]:
    yield root
    if not isinstance(root, ast.Filter | ast.Aggregate):
        for child in ast.children(root):
            yield from _spansets(child)  # type: ignore[arg-type]


# Spansets


class _Trace:
    def __init__(self, trace: Sequence[Seen], *, arrivals: bool) -> None:
        """`arrivals`: spans are what arrived, not what is distinct."""
        self.trace = trace
        self.arrivals = arrivals
        self.by_id = {one.span.span_id: one for one in distinct(trace)}

    def select(self, node: ast.Spanset, spans: list[Seen]) -> list[Seen]:
        """Those of `spans` that the node selects."""
        match node:
            case ast.Filter():
                return [
                    one
                    for one in spans
                    if any(
                        holds(node.condition, bound)
                        for copy in self.copies(one)
                        for bound in bindings(copy, self.trace)
                    )
                ]
            case ast.SpansetLogical():
                parts = [self.select(operand, spans) for operand in node.operands]
                if node.op == "&&" and not all(parts):
                    return []
                return [one for one in spans if any(one is other for part in parts for other in part)]
            case ast.Structural():
                left, right = self.select(node.left, spans), self.select(node.right, spans)
                related = self.relation(node.op.removeprefix("!"))
                negated = node.op.startswith("!")
                return [r for r in right if any(related(x, r) for x in left) != negated]
            case ast.Aggregate():
                return spans if spans and self.aggregate_holds(node, spans) else []
            case ast.Pipeline():
                for stage in node.stages:
                    spans = self.select(stage, spans)
                return spans

    def copies(self, one: Seen) -> list[Seen]:
        """All that arrived under the id of a span."""
        if self.arrivals:
            return [one]
        return [other for other in self.trace if other.span.span_id == one.span.span_id]

    def relation(self, op: str) -> Callable[[Seen, Seen], bool]:
        """Of a span of the left side and one of the right side."""
        return {
            ">": lambda x, r: self.is_parent(x, r),
            "<": lambda x, r: self.is_parent(r, x),
            ">>": lambda x, r: any(x is ancestor for ancestor in self.ancestors(r)),
            "<<": lambda x, r: any(r is ancestor for ancestor in self.ancestors(x)),
            "~": lambda x, r: (
                x is not r and parent_id(x) == parent_id(r) and (parent_id(r) == b"" or parent_id(r) in self.by_id)
            ),
        }[op]

    def is_parent(self, one: Seen, of: Seen) -> bool:
        return one is not of and one.span.span_id == parent_id(of)

    def ancestors(self, one: Seen) -> list[Seen]:
        """From the parent up."""
        found: list[Seen] = []
        current = self.by_id.get(parent_id(one))
        while current is not None and current is not one and not any(current is other for other in found):
            found.append(current)
            current = self.by_id.get(parent_id(current))
        return found

    def aggregate_holds(self, node: ast.Aggregate, spans: list[Seen]) -> bool:
        if node.argument is None:
            return compare(node.op, len(spans), node.value.value)
        values = [value for one in spans if (value := self.number_of(node.argument, one)) is not None]
        values = [value for value in values if not math.isnan(value)]
        return bool(values) and compare(node.op, aggregate(node.function, values), node.value.value)

    def number_of(self, argument: ast.Field, one: Seen) -> int | float | None:
        return next(
            (n for bound in bindings(self.copies(one)[-1], self.trace) if is_number(n := value(argument, bound))), None
        )


def aggregate(function: str, values: list[int | float]) -> int | float:
    if function in ("min", "max"):
        best = values[0]
        for candidate in values[1:]:
            if compare(Op.LT if function == "min" else Op.GT, candidate, best):
                best = candidate
        return best
    total: int | float
    if all(isinstance(number, int) for number in values):
        total = in_64_bits(sum(values))
    else:
        total = 0.0
        for number in values:
            total += float(number)
    return total if function == "sum" else float(total) / len(values)


def parent_id(one: Seen) -> bytes:
    """Empty for a root."""
    return one.span.parent_span_id if reference.has_parent(one.span) else b""


# Fields


def bindings(one: Seen, trace: Sequence[Seen]) -> Iterator[Bound]:
    for event in one.span.events or [None]:
        for link in one.span.links or [None]:
            yield Bound(one, event, link, trace)


def holds(node: ast.Field, bound: Bound) -> bool:
    match node:
        case ast.Literal():
            return node.value is True
        case ast.Attribute():
            return any(compare(Op.EQ, found, True) for found in values(node, bound))
        case ast.Not():
            wanted, operand = False, node.operand
            while isinstance(operand, ast.Not):
                wanted, operand = not wanted, operand.operand
            if isinstance(operand, ast.Attribute):
                return any(compare(Op.EQ, found, wanted) for found in values(operand, bound))
            return holds(operand, bound) == wanted
        case ast.Logical():
            results = [holds(operand, bound) for operand in node.operands]
            return all(results) if node.op == "&&" else any(results)
        case ast.Comparison():
            return comparison_holds(node, bound)
    raise AssertionError(f"{node.type} is no condition")


def comparison_holds(node: ast.Comparison, bound: Bound) -> bool:
    if node.right is None:
        found = values(node.left, bound)
        return all(one is None for one in found) if node.op is Op.IS_NIL else any(one is not None for one in found)
    if is_constant(node.right) and not is_constant(node.left):
        lefts, right = values(node.left, bound), value(node.right, bound)
        return any(compare_sides(node, left, right) for left in lefts)
    if is_constant(node.left):
        return any(compare_sides(node, value(node.left, bound), right) for right in values(node.right, bound))
    return compare_sides(node, value(node.left, bound), value(node.right, bound))


def is_constant(node: ast.Field) -> bool:
    """Tell whether a side is a constant, or itself a condition."""
    return isinstance(node, ast.Literal | ast.Comparison | ast.Logical | ast.Not)


def compare_sides(node: ast.Comparison, left: Any, right: Any) -> bool:
    if isinstance(node.left, ast.Intrinsic) and isinstance(node.right, ast.Literal) and node.op in (Op.EQ, Op.NE):
        if node.left.name in (Name.SPAN_ID, Name.PARENT_ID, Name.LINK_SPAN_ID):
            right = right.lower()
        elif node.left.name in (Name.TRACE_ID, Name.LINK_TRACE_ID):
            right = right.lower().rjust(32, b"0")
    return compare(node.op, left, right)


def compare(op: Op, left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return False
    pairs = [(x, y) for x in listed(left) for y in listed(right) if comparable(op, x, y)]
    results = [compare_scalars(op, x, y) for x, y in pairs]
    if op in (Op.NE, Op.NOT_MATCH):
        return bool(results) and all(results)
    return any(results)


def listed(side: Any) -> list[Any]:
    return side if isinstance(side, list) else [side]


def comparable(op: Op, left: Any, right: Any) -> bool:
    if isinstance(right, ast.Regex):
        return isinstance(left, bytes)
    if isinstance(left, bool) and isinstance(right, bool):
        return op in (Op.EQ, Op.NE)
    return (isinstance(left, bytes) and isinstance(right, bytes)) or (is_number(left) and is_number(right))


def compare_scalars(op: Op, left: Any, right: Any) -> bool:
    if isinstance(right, ast.Regex):
        return right(left) == (op is Op.MATCH)
    if isinstance(left, float) or isinstance(right, float):
        left, right = float(left), float(right)
    return reference.ORDERS[op](left, right)


def is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def value(node: ast.Field, bound: Bound) -> Any:
    """As `reference.plain`; None where it is missing."""
    match node:
        case ast.Literal():
            return node.value
        case ast.Attribute():
            return attribute(node, bound)
        case ast.Intrinsic():
            return intrinsic(node.name, bound)
        case ast.Arithmetic():
            left, right = operand(node.left, bound), operand(node.right, bound)
            return None if left is None or right is None else arithmetic(node.op, left, right)
        case ast.Negative():
            only = operand(node.operand, bound)
            return only if only is None else in_64_bits(-only)
    return holds(node, bound)


def values(node: ast.Field, bound: Bound) -> list[Any]:
    """All that an attribute holds, never nothing; of anything else its one value."""
    if not isinstance(node, ast.Attribute):
        return [value(node, bound)]
    one = bound.one
    holders: dict[Scope, tuple[Any, ...]] = {
        Scope.ANY: (one.span, one.resource),
        Scope.SPAN: (one.span,),
        Scope.RESOURCE: (one.resource,),
        Scope.INSTRUMENTATION: (one.scope,),
        Scope.EVENT: (bound.event,),
        Scope.LINK: (bound.link,),
    }
    for holder in holders[node.scope]:
        found = reference.all_values(holder.attributes, node.key) if holder is not None else []
        if found:
            return [reference.plain(one) for one in found]
    return [None]


def attribute(node: ast.Attribute, bound: Bound) -> Any:
    return values(node, bound)[-1]


def intrinsic(name: Name, bound: Bound) -> Any:
    one, span, event, link = bound.one, bound.one.span, bound.event, bound.link
    if name in (Name.ROOT_NAME, Name.ROOT_SERVICE):
        root = reference.root(bound.trace)
        if root is None or name is Name.ROOT_SERVICE:
            return reference.root_service(bound.trace)
        return root.span.name.encode()
    return {
        Name.NAME: lambda: span.name.encode(),
        Name.STATUS: lambda: int(span.status.code),
        Name.STATUS_MESSAGE: lambda: span.status.message.encode(),
        Name.KIND: lambda: int(span.kind),
        Name.DURATION: lambda: reference.duration(span),
        Name.SPAN_ID: lambda: span.span_id.hex().encode(),
        Name.PARENT_ID: lambda: parent_id(one).hex().encode(),
        Name.NESTED_SET_PARENT: lambda: -1 if one in reference.roots(bound.trace) else 0,
        Name.TRACE_DURATION: lambda: reference.trace_duration(bound.trace),
        Name.ROOT_DURATION: lambda: reference.root_duration(bound.trace),
        Name.TRACE_ID: lambda: span.trace_id.hex().encode(),
        Name.EVENT_NAME: lambda: event.name.encode() if event is not None else None,
        Name.EVENT_TIME: lambda: since_start(event, span) if event is not None else None,
        Name.LINK_TRACE_ID: lambda: link.trace_id.hex().encode() if link is not None else None,
        Name.LINK_SPAN_ID: lambda: link.span_id.hex().encode() if link is not None else None,
        Name.SCOPE_NAME: lambda: one.scope.name.encode(),
        Name.SCOPE_VERSION: lambda: one.scope.version.encode(),
    }[name]()


def since_start(event: Span.Event, span: Span) -> int | None:
    """Missing where one of the times was never set."""
    if event.time_unix_nano == 0 or span.start_time_unix_nano == 0:
        return None
    return event.time_unix_nano - span.start_time_unix_nano


# Arithmetic


def operand(node: ast.Field, bound: Bound) -> int | float | None:
    """A number to reckon with; None if it is none."""
    found = value(node, bound)
    if not is_number(found):
        return None
    return float(found) if node.type is Type.DURATION else found


def in_64_bits(result: int | float) -> int | float:
    return result if isinstance(result, float) or MIN_INT <= result <= MAX_INT else float(result)


def arithmetic(op: str, left: int | float, right: int | float) -> int | float | None:
    if isinstance(left, int) and isinstance(right, int):
        return integers(op, left, right)
    return doubles(op, float(left), float(right))


def integers(op: str, left: int, right: int) -> int | float | None:
    match op:
        case "+" | "-" | "*":
            exact = {"+": left + right, "-": left - right, "*": left * right}[op]
            return exact if MIN_INT <= exact <= MAX_INT else doubles(op, float(left), float(right))
        case "/" | "%" if right == 0:
            return None
        case "/":
            return in_64_bits(abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1))
        case "%":
            return abs(left) % abs(right) * (-1 if left < 0 else 1)
    if left in (-1, 0, 1):
        return None if left == 0 and right < 0 else left ** (abs(right) if abs(right) < 2 else 2 + right % 2)
    if right < 0:
        return 0
    exact = left ** min(right, 64)
    return exact if MIN_INT <= exact <= MAX_INT else doubles(op, float(left), float(right))


def doubles(op: str, left: float, right: float) -> float:
    """As C does it: infinities and NaN instead of errors."""
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            if right != 0:
                return left / right
            undefined = left == 0 or math.isnan(left)
            return math.nan if undefined else math.copysign(math.inf, left) * math.copysign(1, right)
        case "%":
            try:
                return math.fmod(left, right)
            except ValueError:
                return math.nan
    odd = math.fmod(right, 2) in (1, -1) if math.isfinite(right) else False
    try:
        return math.pow(left, right)
    except OverflowError:
        return -math.inf if left < 0 and odd else math.inf
    except ValueError:  # a negative power of zero, or a broken one of what is negative
        if left != 0:
            return math.nan
        return math.copysign(math.inf, left) if odd else math.inf
