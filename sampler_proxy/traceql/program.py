"""Defines the vocabulary between the rule language and the machine: which field, which comparison, which constant.

`compiler` writes these; the room `rules` reads them: `plan.Plan` lays them out for the scan, `span_matcher.SpanMatcher`
answers conditions and filters span by span, `trace_matcher` evaluates queries, `rule_set.RuleSet` runs the programs of
rules. A `Condition` is true or false of one span (or of one trace, for the trace fields); a value that is missing, or
has a type that the constant cannot be compared with, makes it false whatever the operator, `IS_NIL` apart.

Programs over conditions are postfix lists of integers: n >= 0 pushes operand n, the negative numbers are the constants
below.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

AND, OR, NOT, TRUE, FALSE = -1, -2, -3, -4, -5


class Field(IntEnum):
    """The places where a value is read. The names that end in ATTRIBUTE have a key."""

    SPAN_ATTRIBUTE = 0
    RESOURCE_ATTRIBUTE = 1
    SCOPE_ATTRIBUTE = 2  # TraceQL's instrumentation.
    ANY_ATTRIBUTE = 3  # unscoped: the span's, where it has the key, else the resource's
    NAME = 4
    STATUS = 5
    STATUS_MESSAGE = 6
    KIND = 7
    DURATION = 8  # nanoseconds; missing where the start is 0, or the end lies before the start
    SPAN_ID = 9  # as lower-case hex text
    PARENT_ID = 10  # as lower-case hex text; empty for a root
    SCOPE_NAME = 11
    SCOPE_VERSION = 12
    NESTED_SET_PARENT = 13  # -1 for a root, which the rest of the trace tells; 0 for any other span
    EVENT_NAME = 16
    EVENT_TIME = 17  # nanoseconds since the start of the span, negative if the event is older; missing if either is 0
    EVENT_ATTRIBUTE = 18
    LINK_TRACE_ID = 20  # as lower-case hex text
    LINK_SPAN_ID = 21  # as lower-case hex text
    LINK_ATTRIBUTE = 22
    # Of the trace, known at decision time only:
    TRACE_DURATION = 32
    ROOT_NAME = 33
    ROOT_SERVICE = 34
    TRACE_ID = 35  # as lower-case hex text
    ROOT_DURATION = 36  # nanoseconds; of a trace without a root that of the trace


FIRST_TRACE_FIELD = Field.TRACE_DURATION


class Op(IntEnum):
    EQ = 0
    NE = 1
    LT = 2
    LE = 3
    GT = 4
    GE = 5
    MATCH = 6  # the constant is a callable bytes -> bool, which matches the whole value (`ast.Regex`)
    NOT_MATCH = 7
    IS_NIL = 8  # no constant
    NOT_NIL = 9  # no constant


class Kind(IntEnum):
    """The type of the constant. Integers compare with doubles and the other way round; nothing else crosses types."""

    NONE = 0
    STRING = 1  # bytes, UTF-8
    INT = 2  # 64 bits, signed; durations (ns), status codes and span kinds (as OTLP numbers them) too
    FLOAT = 3
    BOOL = 4
    REGEX = 5  # Callable[[bytes], bool]


class Condition(NamedTuple):
    """A comparison of one field with a constant."""

    field: Field
    key: bytes  # of the attribute; empty otherwise
    op: Op
    kind: Kind
    value: bytes | int | float | bool | Callable[[bytes], bool] | None


class Arith(IntEnum):
    """The operators of a term."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MOD = 4
    POW = 5
    NEG = 6  # of one value; the others take two


class Slot(NamedTuple):
    """A value read from a span, one of its events or links, its resource, its scope, or the trace."""

    field: Field
    key: bytes  # of the attribute; empty otherwise


class Constant(NamedTuple):
    kind: Kind  # INT or FLOAT
    value: int | float


Term = tuple[Slot | Constant | Arith, ...]  # postfix


class Comparison(NamedTuple):
    """A condition both sides of which must be evaluated: at least one has arithmetic, or both are slots."""

    op: Op  # EQ NE LT LE GT GE
    left: Term
    right: Term


class Select(NamedTuple):
    """The spans for which a filter holds."""

    filter: int


class Spansets(NamedTuple):
    """The spans that any part selects; AND: none of them unless every part selects some."""

    op: int  # AND, OR
    parts: tuple[Node, ...]


class Structural(NamedTuple):
    """The spans of the right side that have (with `!`: have not) a related span on the left side."""

    op: str  # > >> < << ~ !> !>> !< !<< !~
    left: Node
    right: Node


class Aggregate(NamedTuple):
    """All spans of the input, or none."""

    function: str  # count min max avg sum
    argument: Term | None  # None for count
    op: Op  # EQ NE LT LE GT GE
    constant: Constant


class Pipeline(NamedTuple):
    """Stages, each over the spans that the stage before selected."""

    stages: tuple[Node, ...]


Node = Select | Spansets | Structural | Aggregate | Pipeline


class Query(NamedTuple):
    """A question that needs the spans of the trace again: it holds if `root` selects any of them."""

    guard: tuple[int, ...]  # a program over a trace, without queries; where the guard is false, so is the query
    root: Node
