"""Defines the syntax tree of a rule, as `parse` leaves it: typed, checked and in a normal form.

Every node knows where its text starts (`start`, in characters from 0; in parentheses, inside them). The normal form:
arithmetic, comparisons and `!` over constants are folded; the constant of a comparison stands on the right; `x = nil`
and `x != nil` are `IS_NIL` and `NOT_NIL` without a right side; a condition compared with `true` or `false` is the
condition, or its `Not`; a chain of `&&`, or of `||`, is one node. So a `Comparison` has a `Literal` on its right, or
else needs both sides evaluated.

The tree is shallow (`parse.MAX_DEPTH`), so code that walks it may recurse, at one or two frames a level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, NamedTuple

import re2

from sampler_proxy.traceql.program import Op


class Type(Enum):
    """The type of a field or constant; the value is its name in messages. That of an attribute is known on a span only:
    ANY."""

    ANY = "an attribute"
    NIL = "nil"
    BOOL = "a boolean"
    INT = "a number"
    FLOAT = "a decimal number"
    DURATION = "a duration"
    STRING = "a string"
    REGEX = "a regular expression"
    STATUS = "a status"
    KIND = "a span kind"


NUMERIC = frozenset({Type.INT, Type.FLOAT, Type.DURATION})


class Scope(Enum):
    """The place where an attribute is looked up; the value is its spelling."""

    SPAN = "span."
    RESOURCE = "resource."
    EVENT = "event."
    LINK = "link."
    INSTRUMENTATION = "instrumentation."
    ANY = "."  # the span's, where it has the key, else the resource's


METADATA = "metadata."
"""A scope of ours: what spans came with (otlp/metadata.py), attributes of the resource with this prefix. Names of
headers have no upper case."""


class Name(Enum):
    """The intrinsics; the value is the scoped spelling."""

    NAME = "span:name"
    STATUS = "span:status"
    STATUS_MESSAGE = "span:statusMessage"
    KIND = "span:kind"
    DURATION = "span:duration"
    SPAN_ID = "span:id"
    PARENT_ID = "span:parentID"
    NESTED_SET_PARENT = "nestedSetParent"  # as Tempo numbers spans: -1 for a root
    TRACE_DURATION = "trace:duration"
    TRACE_ID = "trace:id"
    ROOT_NAME = "trace:rootName"
    ROOT_SERVICE = "trace:rootService"
    ROOT_DURATION = "trace:rootDuration"  # ours: Tempo has none
    EVENT_NAME = "event:name"
    EVENT_TIME = "event:timeSinceStart"
    LINK_TRACE_ID = "link:traceID"
    LINK_SPAN_ID = "link:spanID"
    SCOPE_NAME = "instrumentation:name"
    SCOPE_VERSION = "instrumentation:version"

    @property
    def type(self) -> Type:
        return _INTRINSIC_TYPES.get(self, Type.STRING)


_INTRINSIC_TYPES = {
    Name.STATUS: Type.STATUS,
    Name.KIND: Type.KIND,
    Name.DURATION: Type.DURATION,
    Name.TRACE_DURATION: Type.DURATION,
    Name.ROOT_DURATION: Type.DURATION,
    Name.NESTED_SET_PARENT: Type.INT,
    Name.EVENT_TIME: Type.DURATION,
}


@dataclass(frozen=True, slots=True)
class Regex:
    """A compiled pattern, anchored at both ends; the dot matches line breaks. Two are equal if their patterns are.

    RE2 runs in time linear in the value. Where a value is not UTF-8, no pattern matches the bytes that are not.
    """

    pattern: bytes
    _match: Callable[[bytes], object] = field(compare=False, repr=False)

    @classmethod
    def compile(cls, pattern: bytes) -> Regex:
        """Compile a pattern. Raises `re2.error`."""
        return cls(pattern, re2.compile(pattern, _RE2_OPTIONS).fullmatch)

    def __call__(self, value: bytes) -> bool:
        return self._match(value) is not None


_RE2_OPTIONS = re2.Options()
_RE2_OPTIONS.dot_nl = True
_RE2_OPTIONS.never_capture = True  # groups are never read, and without them RE2 stays on its fast path
_RE2_OPTIONS.log_errors = False  # a bad pattern is reported as a TraceQLError, not on stderr


# Fields: what stands between braces.


@dataclass(frozen=True, slots=True)
class Literal:
    """STRING: bytes. INT, DURATION (ns), STATUS and KIND (OTLP's numbers): int of 64 bits. NIL: None."""

    start: int
    type: Type
    value: bytes | int | float | bool | Regex | None


@dataclass(frozen=True, slots=True)
class Attribute:
    start: int
    scope: Scope
    key: bytes
    type: ClassVar[Type] = Type.ANY


@dataclass(frozen=True, slots=True)
class Intrinsic:
    start: int
    name: Name

    @property
    def type(self) -> Type:
        return self.name.type


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`op` is one of `+ - * / % ^`; both sides are numeric or attributes, and at least one is not a constant."""

    start: int
    op: str
    left: Field
    right: Field
    type: ClassVar[Type] = Type.FLOAT


@dataclass(frozen=True, slots=True)
class Negative:
    """The unary minus of something that is not a constant."""

    start: int
    operand: Field
    type: ClassVar[Type] = Type.FLOAT


@dataclass(frozen=True, slots=True)
class Comparison:
    start: int
    op: Op
    left: Field
    right: Field | None
    type: ClassVar[Type] = Type.BOOL


@dataclass(frozen=True, slots=True)
class Not:
    """`!`. Of a bare attribute it holds where the attribute is false (not where it is missing); of anything else, where
    that does not hold."""

    start: int
    operand: Field
    type: ClassVar[Type] = Type.BOOL


@dataclass(frozen=True, slots=True)
class Logical:
    """`op` is `&&` or `||`, over two or more conditions or bare attributes.

    `mixed` is the offset of the operator at which a chain without parentheses first changes from one to the other.
    """

    start: int
    op: str
    operands: tuple[Field, ...]
    mixed: int | None = None
    type: ClassVar[Type] = Type.BOOL


Field = Literal | Attribute | Intrinsic | Arithmetic | Negative | Comparison | Not | Logical


# Spansets: what selects spans of a trace. A trace is selected when the outermost spanset is not empty.


@dataclass(frozen=True, slots=True)
class Filter:
    """`{ condition }`: the spans for which the condition holds. `{}` has the literal true."""

    start: int
    condition: Field


@dataclass(frozen=True, slots=True)
class SpansetLogical:
    """The spans that any operand selects; `&&`: none of them unless every operand selects some."""

    start: int
    op: str
    operands: tuple[Spanset, ...]
    mixed: int | None = None


@dataclass(frozen=True, slots=True)
class Structural:
    """The spans of the right side that are a child (`>`), descendant (`>>`), parent (`<`), ancestor (`<<`) or sibling
    (`~`) of a span of the left side; with `!` before the operator, the spans that are not."""

    start: int
    op: str
    left: Spanset
    right: Spanset


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`function(argument) op value`: all spans that the stage before selected (of the first stage: all spans), or none.

    `function` is `count` (without argument), `min`, `max`, `avg` or `sum`; `value` is numeric.
    """

    start: int
    function: str
    argument: Field | None
    op: Op
    value: Literal


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Two or more stages, each over the spans that the stage before selected."""

    start: int
    stages: tuple[Spanset, ...]


Spanset = Filter | SpansetLogical | Structural | Aggregate | Pipeline
Node = Field | Spanset


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed `match` or `unless`."""

    text: str
    root: Spanset


class Remark(NamedTuple):
    """A warning about an expression: something that is allowed but may not mean what its writer thinks."""

    offset: int
    message: str


def children(node: Node) -> tuple[Node, ...]:
    """Return the direct parts of a node, in the order of the text."""
    match node:
        case Logical() | SpansetLogical():
            return node.operands
        case Arithmetic() | Structural():
            return (node.left, node.right)
        case Comparison():
            return (node.left,) if node.right is None else (node.left, node.right)
        case Negative() | Not():
            return (node.operand,)
        case Filter():
            return (node.condition,)
        case Aggregate():
            return (node.value,) if node.argument is None else (node.argument, node.value)
        case Pipeline():
            return node.stages
        case _:
            return ()


def walk(root: Node) -> Iterator[tuple[Node, int]]:
    """Yield every node with its depth (of the root: 1) in the order of the text. Iterative: a stack, no recursion."""
    pending = [(root, 1)]
    while pending:
        node, depth = pending.pop()
        yield node, depth
        pending.extend((child, depth + 1) for child in reversed(children(node)))
