"""Hypothesis strategies for TraceQL, as text, and for traces that it is about.

Keys and values of both sides come from the same small pools, so that expressions
hold now and then.
"""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql.parse import parse
from tests.support.reference import Seen
from tests.support.strategies import TRACE_IDS

# What is repeated is what should meet often.
KEY_POOL = ["a", "a", "a", "a", "a", "n-1", "n-1", "service.name"]
STRING_POOL = ["a", "a", "b", "", "é", "500", "a\nb"]
INT_POOL = [0, 1, 2, 3, 5, 1, 2, 3, 5, -1, -2, 500, 2**53 + 1, 2**63 - 1, -(2**63)]
FLOAT_POOL = [0.5, 1.0, 1.5, 2.5, 0.0, -0.0, 500.0, 2.0**53, float("nan"), float("inf"), float("-inf")]
NUMBERS = ["0", "1", "2", "3", "1", "2", "3", "-1", "0.5", "1.5", "2.5", "500", "1ns", "2ns"]
WIDE_NUMBERS = ["1e3", "1s", "maxInt", "minInt", "9007199254740993", "1e19"]
DURATIONS = ["0s", "1ns", "2ns", "3ns", "1s", "2s", "-1ns", "1", "0.5", "maxInt"]
MOMENTS = [1, 2, 3, 4, 6, 9, 0, 10**9, 10**9 + 1, 2 * 10**9]
LINKED_IDS = [bytes(7) + bytes([n]) for n in (1, 2, 9)]

# Of integers with more bits, hypothesis draws few large ones.
uniform = st.integers(0, 2**24 - 1).map(Random)


# Traces


class _Spans:
    """Random, not strategies of strategies: what hypothesis draws of those is nearly always small or repeated."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def chance(self, one_in: int) -> bool:
        return self.random.randrange(one_in) == 0

    def scalar(self) -> AnyValue:
        kind = self.random.randrange(8)
        if kind < 4:
            return AnyValue(int_value=self.random.choice(INT_POOL))
        if kind == 4:
            return AnyValue(double_value=self.random.choice(FLOAT_POOL))
        if kind == 5:
            return AnyValue(bool_value=self.chance(2))
        return AnyValue(string_value=self.random.choice(STRING_POOL))

    def value(self) -> AnyValue:
        if self.chance(7):
            return self.array([self.scalar() for _ in range(self.random.randrange(4))])
        if self.chance(20):
            return self.random.choice([AnyValue(), AnyValue(bytes_value=b"a"), self.array([self.array([])])])
        return self.scalar()

    @staticmethod
    def array(elements: list[AnyValue]) -> AnyValue:
        return AnyValue(array_value=ArrayValue(values=elements))

    def attributes(self) -> list[KeyValue]:
        return [
            KeyValue(key=self.random.choice([*KEY_POOL, ""]), value=self.value())
            for _ in range(self.random.choice([0, 1, 2, 2, 3, 4]))
        ]

    def name(self) -> str:
        return self.random.choice(STRING_POOL)

    def moment(self) -> int:
        return self.random.choice(MOMENTS)

    def span(self) -> Span:
        random = self.random
        start, end = self.moment(), self.moment()
        if not self.chance(4):
            start, end = sorted((start, end))
        span = Span(
            name=self.name(),
            kind=random.randrange(6),  # type: ignore[arg-type]
            start_time_unix_nano=start,
            end_time_unix_nano=end,
            attributes=self.attributes(),
            flags=random.choice([0, 0x100, 0x300, 0x300]),
        )
        for _ in range(random.choice([0, 0, 1, 2, 3])):
            span.events.add(time_unix_nano=self.moment(), name=self.name(), attributes=self.attributes())
        for _ in range(random.choice([0, 0, 1, 2])):
            trace_id, span_id = random.choice(TRACE_IDS), random.choice(LINKED_IDS)
            span.links.add(trace_id=trace_id, span_id=span_id, attributes=self.attributes())
        if self.chance(2):
            span.status.CopyFrom(Status(message=self.name(), code=random.randrange(3)))  # type: ignore[arg-type]
        return span

    def copy(self, one: Seen) -> Seen:
        """Something under the same id: the same, or another state of it. Name, start, parent and flags stay, which say
        what is root and where everybody stands."""
        if self.chance(2):
            return one
        other = self.span()
        span = Span()
        span.CopyFrom(one.span)
        for field in ("attributes", "events", "links", "status", "end_time_unix_nano", "kind"):
            span.ClearField(field)  # type: ignore[arg-type]
        other.ClearField("name")
        other.ClearField("start_time_unix_nano")
        other.ClearField("flags")
        span.MergeFrom(other)
        return one._replace(span=span)

    def trace(self, size: int) -> list[Seen]:
        random = self.random
        trace_id = random.choice(TRACE_IDS)
        envelopes = [
            (
                Resource(attributes=self.attributes()),
                InstrumentationScope(name=self.name(), version=self.name(), attributes=self.attributes()),
            )
            for _ in range(2)
        ]
        ids = [bytes(7) + bytes([n]) for n in range(1, size + 1)]
        found = []
        for n, span_id in enumerate(ids):
            span = self.span()
            rootless = self.chance(8)
            parents = [b"", bytes(8), bytes(7) + b"\xff", *ids] if rootless or n == 0 else ids[:n]
            span.parent_span_id = b"" if n == 0 and not rootless else random.choice(parents)
            span.trace_id, span.span_id = trace_id, span_id
            found.append(Seen(*random.choice(envelopes), span))
        found += [self.copy(one) for one in found if self.chance(6)]
        return random.sample(found, len(found))


def traces() -> st.SearchStrategy[list[Seen]]:
    """Spans of one trace, in order of arrival: trees, mostly, but several roots or none, parents that never come and
    cycles as well. Some arrive twice, unchanged or in another state."""
    return st.builds(lambda random, size: _Spans(random).trace(size), uniform, st.integers(1, 7))


# Expressions


def quoted(text: str) -> str:
    """As a constant."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


SCOPES = [*["span."] * 5, *["."] * 3, *["event."] * 3, "link.", "resource.", "instrumentation."]
PATTERNS = ["a", "a|b", ".*", "[0-9]+", "", "a.b", "é", "(?i)A.*"]
ORDERS = ["=", "=", "!=", "!=", "!=", "<", "<=", ">", ">="]
STRING_INTRINSICS = [
    *("name", "event:name", "name", "event:name", "statusMessage", "rootName", "rootServiceName"),
    *("instrumentation:name", "instrumentation:version", "trace:rootName"),
]
DURATION_INTRINSICS = ["duration", "event:timeSinceStart", "duration", "traceDuration", "rootDuration"]
OPERATORS = ["&&", "||", ">", ">>", "<", "<<", "~", ">", ">>", "<", "<<", "~", "!>", "!>>", "!<", "!<<", "!~"]


class _Writer:
    def __init__(self, random: Random) -> None:
        self.random = random

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def attribute(self) -> str:
        return str(self.pick(*SCOPES)) + str(self.pick(*KEY_POOL))

    def number(self) -> str:
        return str(self.pick(*NUMBERS, *NUMBERS, *WIDE_NUMBERS))

    def string(self) -> str:
        return quoted(self.pick(*STRING_POOL))

    def constant(self) -> str:
        return self.pick(self.number, self.number, self.string)()

    def term(self, depth: int) -> str:
        """Something that may be a number."""
        if depth == 0:
            return self.pick(
                self.attribute, self.attribute, self.number, lambda: str(self.pick(*DURATION_INTRINSICS))
            )()
        if self.random.randrange(6) == 0:
            return f"-({self.term(depth - 1)})"
        return f"({self.term(depth - 1)} {self.pick(*'++--**//%^')} {self.term(self.random.randrange(depth))})"

    def comparison(self) -> str:
        order, equality = self.pick(*ORDERS), self.pick("=", "!=")
        shape = self.random.randrange(20)
        if shape < 4:
            return f"{self.attribute()} {order} {self.constant()}"
        if shape < 8:
            return f"{self.term(self.pick(1, 1, 2))} {order} {self.term(self.pick(0, 0, 1))}"
        if shape < 10:
            return f"{self.attribute()} {order} {self.attribute()}"
        return str(
            [
                lambda: f"{self.constant()} {order} {self.attribute()}",
                lambda: f"{self.attribute()} {equality} {self.pick('true', 'false', 'nil', 'nil')}",
                lambda: f"{self.attribute()} {self.pick('=~', '!~')} {quoted(self.pick(*PATTERNS))}",
                lambda: f"{self.attribute()} {order} {self.pick(*STRING_INTRINSICS, *DURATION_INTRINSICS)}",
                lambda: f"{self.pick(*STRING_INTRINSICS)} {order} {self.pick(self.string(), *STRING_INTRINSICS)}",
                lambda: f"{self.pick(*STRING_INTRINSICS)} {self.pick('=~', '!~')} {quoted(self.pick(*PATTERNS))}",
                lambda: f"{self.pick(*DURATION_INTRINSICS)} {order} {self.pick(*DURATIONS)}",
                lambda: self.pick(*STATUS_AND_KIND),
                lambda: self.pick(*IDS, *NOT_NIL),
                lambda: self.pick("", "!", "!!") + self.attribute(),
            ][shape - 10]()
        )

    def condition(self, depth: int) -> str:
        if depth == 0:
            return self.pick("true", "false") if self.random.randrange(25) == 0 else self.comparison()
        left, right = self.condition(depth - 1), self.condition(self.random.randrange(depth))
        return str(
            self.pick(
                f"({left}) && ({right})",
                f"({left}) && ({right})",
                f"({left}) || ({right})",
                f"!({left})",
                f"({left}) {self.pick('=', '!=')} ({self.pick(right, self.attribute())})",
                f"({left}) {self.pick('&& ({}) ||', '|| ({}) &&').format(right)} ({self.comparison()})",
            )
        )

    def braces(self) -> str:
        if self.random.randrange(6) == 0:
            return str(self.pick("{}", "{ name != `b` }"))
        return f"{{ {self.condition(self.pick(0, 0, 1, 1, 2))} }}"

    def aggregate(self) -> str:
        if self.random.randrange(2):
            return f"count() {self.pick(*ORDERS)} {self.pick('0', '1', '2', '3', '1', '2', '3', '1.5', '1ns')}"
        function, argument = self.pick("min", "max", "avg", "sum"), self.term(self.pick(0, 0, 1))
        return f"{function}({argument}) {self.pick(*ORDERS)} {self.number()}"

    def stage(self, depth: int) -> str:
        return self.aggregate() if self.random.randrange(2) else f"({self.spanset(depth)})"

    def spanset(self, depth: int) -> str:
        if depth == 0:
            return self.braces()
        left = self.spanset(depth - 1)
        shape = self.random.randrange(6)
        if shape == 0:
            return f"{self.stage(0)} | {self.stage(depth - 1)}"
        if shape == 1:
            return f"({left}) | {self.stage(depth - 1)}"
        joined = f"({left}) {self.pick(*OPERATORS)} ({self.spanset(self.random.randrange(depth))})"
        return joined if shape < 5 else f"{joined} | {self.stage(0)}"


STATUS_AND_KIND = ["status = error", "status != ok", "status = unset", "kind = client", "kind != server", "kind = kind"]
NOT_NIL = [f"{name} != nil" for name in ("event:name", "link:spanID", "rootName", "traceDuration", "name")]
IDS = [
    *("nestedSetParent < 0", "nestedSetParent = -1", "nestedSetParent >= 0"),
    *('span:id = "0000000000000001"', 'span:id > "0000000000000002"', 'span:parentID = ""', "span:id != link:spanID"),
    *('link:spanID != "0000000000000001"', "span:parentID = link:spanID", 'trace:id = "1"', "link:traceID = trace:id"),
    f'link:traceID = "{TRACE_IDS[0].hex().upper()}"',
]


def _expression(random: Random, depth: int) -> str:
    """The few that the parser refuses, such as constants that divide by zero, are left out."""
    while True:
        text = _Writer(random).spanset(depth)
        try:
            parse(text)
        except TraceQLError:
            continue
        return text


def expressions(count: int) -> st.SearchStrategy[list[str]]:
    return st.builds(
        lambda random: [_expression(random, random.choice([0, 0, 1, 1, 2])) for _ in range(count)], uniform
    )
