"""Compiles the conditions between braces into formulas over a span, and numbers what those ask.

Meaning, where Tempo's documentation leaves it open (decided after its code, and where that is odd the plain thing):

missing      What is missing makes a comparison false, `!=` too, and so its inverse true. `!.x` alone is x = false and
             `!!.x` is x = true: false where x is missing. An intrinsic is never missing, save of the root, of events
             and links, and durations: a start of 0, or an end before it, is no time to reckon with.
keys         A key that is there twice has two values: a comparison with a constant (a bare attribute, too) holds if it
             holds of any, with `!=` as well; `= nil` if all are missing. Arithmetic, and a comparison of two fields,
             read the last.
comparisons  Two values: numbers with numbers (int with int exactly, else as doubles; NaN only differs), strings with
             strings as bytes, booleans with booleans (`=` and `!=` only). Anything else is false. An array on one side:
             `=` and the orders hold for any comparable element, `!=` if there are comparable ones and all differ; an
             array on both: false.
conditions   `(.a = 1) = .b`: both true or both false; with `!=`, one of each. A condition is always one of them, `!.x`
             too: false where x is missing. A bare attribute may be missing, or no boolean: false then.
arithmetic   Of numbers only; anything else makes it missing. Two integers give an integer: `/` goes towards zero, `%`
             has the sign of the left side, a divisor of 0 gives a missing value; `^` is exact, and with a negative
             exponent what an integer division by the power would give. What does not fit 64 bits is done in doubles
             instead. With a double on either side, and for durations (of span, trace and event, and constants), it is
             done in doubles as C does: x / 0 is infinite or NaN.
events       All conditions of one pair of braces hold for one event, and one link; without any, for one whose fields
             are all missing.
ids          `=` and `!=` with a constant: in any case; of a trace, with or without leading zeros.

Terms need `MAX_TERM_STACK` values at a time at most.
"""

from __future__ import annotations

from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql import formulas
from sampler_proxy.traceql.ast import (
    Arithmetic,
    Attribute,
    Comparison,
    Field,
    Intrinsic,
    Literal,
    Logical,
    Name,
    Negative,
    Not,
    Scope,
    Type,
)
from sampler_proxy.traceql.formulas import COMPARISON, CONDITION, DEFERRED, TRACE_CONDITION, Formula, join
from sampler_proxy.traceql.program import (
    AND,
    FALSE,
    FIRST_TRACE_FIELD,
    OR,
    TRUE,
    Arith,
    Condition,
    Constant,
    Kind,
    Op,
    Slot,
    Term,
)
from sampler_proxy.traceql.program import Comparison as Compared
from sampler_proxy.traceql.program import Field as Read

MAX_TERM_STACK = 256  # more than parse.MAX_DEPTH, and no value takes more than one level

_ATTRIBUTES = {
    Scope.SPAN: Read.SPAN_ATTRIBUTE,
    Scope.RESOURCE: Read.RESOURCE_ATTRIBUTE,
    Scope.INSTRUMENTATION: Read.SCOPE_ATTRIBUTE,
    Scope.EVENT: Read.EVENT_ATTRIBUTE,
    Scope.LINK: Read.LINK_ATTRIBUTE,
    Scope.ANY: Read.ANY_ATTRIBUTE,
}
_INTRINSICS = {
    Name.NAME: Read.NAME,
    Name.STATUS: Read.STATUS,
    Name.STATUS_MESSAGE: Read.STATUS_MESSAGE,
    Name.KIND: Read.KIND,
    Name.DURATION: Read.DURATION,
    Name.SPAN_ID: Read.SPAN_ID,
    Name.PARENT_ID: Read.PARENT_ID,
    Name.NESTED_SET_PARENT: Read.NESTED_SET_PARENT,
    Name.SCOPE_NAME: Read.SCOPE_NAME,
    Name.SCOPE_VERSION: Read.SCOPE_VERSION,
    Name.EVENT_NAME: Read.EVENT_NAME,
    Name.EVENT_TIME: Read.EVENT_TIME,
    Name.LINK_TRACE_ID: Read.LINK_TRACE_ID,
    Name.LINK_SPAN_ID: Read.LINK_SPAN_ID,
    Name.TRACE_DURATION: Read.TRACE_DURATION,
    Name.ROOT_NAME: Read.ROOT_NAME,
    Name.ROOT_SERVICE: Read.ROOT_SERVICE,
    Name.ROOT_DURATION: Read.ROOT_DURATION,
    Name.TRACE_ID: Read.TRACE_ID,
}
_MAY_BE_MISSING = {
    *(Read.DURATION, Read.TRACE_DURATION, Read.ROOT_NAME, Read.ROOT_SERVICE, Read.ROOT_DURATION),
    *(Read.EVENT_NAME, Read.EVENT_TIME, Read.LINK_TRACE_ID, Read.LINK_SPAN_ID),
}
_OF_THE_WHOLE = Slot(Read.NESTED_SET_PARENT, b"")  # whether a span is a root depends on the others
_TRACE_IDS = {Read.TRACE_ID, Read.LINK_TRACE_ID}
_IDS = _TRACE_IDS | {Read.SPAN_ID, Read.PARENT_ID, Read.LINK_SPAN_ID}
_KINDS = {
    Type.STRING: Kind.STRING,
    Type.INT: Kind.INT,
    Type.DURATION: Kind.INT,
    Type.STATUS: Kind.INT,
    Type.KIND: Kind.INT,
    Type.FLOAT: Kind.FLOAT,
    Type.BOOL: Kind.BOOL,
    Type.REGEX: Kind.REGEX,
}
_ARITHMETIC = {"+": Arith.ADD, "-": Arith.SUB, "*": Arith.MUL, "/": Arith.DIV, "%": Arith.MOD, "^": Arith.POW}


class Fields:
    """Compiles conditions into formulas in negation normal form (NOT before operands only), and numbers the conditions
    and comparisons that are their operands, equal ones once.

    May raise `TraceQLError`.
    """

    def __init__(self) -> None:
        self.conditions: dict[Condition, int] = {}
        self.trace_conditions: dict[Condition, int] = {}
        self.comparisons: dict[Compared, int] = {}

    def formula(self, node: Field, inverted: bool = False) -> Formula:
        """Return the formula of a condition over a span, or of its negation."""
        match node:
            case Literal():
                return TRUE if node.value != inverted else FALSE
            case Attribute():
                return self._truth(node, Op.EQ, True, inverted)
            case Not():
                return self._not(node, inverted)
            case Logical():
                parts = []
                for operand in node.operands:
                    parts.append(self.formula(operand, inverted))
                return join(AND if (node.op == "&&") != inverted else OR, parts)
            case Comparison():
                return self._comparison(node, inverted)
            case _:
                raise AssertionError("parse leaves conditions only where a condition is needed")

    def _not(self, node: Not, inverted: bool) -> Formula:
        value = True
        innermost: Field = node
        while isinstance(innermost, Not):
            innermost, value = innermost.operand, not value
        if isinstance(innermost, Attribute):
            return self._truth(innermost, Op.EQ, value, inverted)
        return self.formula(innermost, inverted == value)

    def _truth(self, node: Attribute, op: Op, value: bool, inverted: bool) -> Formula:
        field, key = source_of(node)
        return self._condition(Condition(field, key, op, Kind.BOOL, value), inverted)

    def _comparison(self, node: Comparison, inverted: bool) -> Formula:
        left, right = node.left, node.right
        if isinstance(left, Attribute | Intrinsic):
            if right is None:
                return self._nil(left, node.op, inverted)
            if isinstance(right, Literal) and source_of(left) != _OF_THE_WHOLE:
                return self._constant(left, node.op, right, inverted)
        assert right is not None
        if Type.BOOL in (left.type, right.type):
            return self._equivalence(node, left, right, inverted)
        compared = Compared(node.op, term(left), term(right))
        sort = DEFERRED if reads_trace(compared.left) or reads_trace(compared.right) else COMPARISON
        number = formulas.operand(self.comparisons.setdefault(compared, len(self.comparisons)), sort)
        return formulas.inverse(number) if inverted else number

    def _nil(self, node: Attribute | Intrinsic, op: Op, inverted: bool) -> Formula:
        field, key = source_of(node)
        if op is Op.NOT_NIL and isinstance(node, Intrinsic) and field not in _MAY_BE_MISSING:
            return FALSE if inverted else TRUE
        return self._condition(Condition(field, key, op, Kind.NONE, None), inverted)

    def _constant(self, node: Attribute | Intrinsic, op: Op, literal: Literal, inverted: bool) -> Formula:
        field, key = source_of(node)
        value = literal.value
        if isinstance(value, bytes) and field in _IDS and op in (Op.EQ, Op.NE):
            value = value.lower()  # ids are read as lower-case hex
            if field in _TRACE_IDS:  # Tempo's own come without their leading zeros
                value = value.rjust(32, b"0")
        return self._condition(Condition(field, key, op, _KINDS[literal.type], value), inverted)

    def _equivalence(self, node: Comparison, left: Field, right: Field, inverted: bool) -> Formula:
        """Compare conditions: `=` is left && right || !left && !right. At least one side is a condition; the other may
        be a bare attribute.

        Each side occurs twice in the result, so that nesting doubles it: hence the bound.
        """
        if isinstance(left, Attribute):
            left, right = right, left
        holds = self.formula(left)
        if isinstance(right, Attribute):  # by `!=` itself: on arrays `!= true` is not the same as `= false`
            yes, no = (self._truth(right, node.op, value, False) for value in (True, False))
        else:
            yes = self.formula(right)
            no = formulas.pushed_inverse(yes)
            if node.op is Op.NE:
                yes, no = no, yes
        fails = formulas.pushed_inverse(holds)
        result = join(OR, [join(AND, [holds, yes]), join(AND, [fails, no])])
        if formulas.size(result) > formulas.MAX_PRODUCT:
            raise TraceQLError("too much is compared with true or false here: write it with &&, || and !", node.start)
        return formulas.pushed_inverse(result) if inverted else result

    def _condition(self, condition: Condition, inverted: bool) -> Formula:
        of_trace = condition.field >= FIRST_TRACE_FIELD
        table = self.trace_conditions if of_trace else self.conditions
        number = formulas.operand(table.setdefault(condition, len(table)), TRACE_CONDITION if of_trace else CONDITION)
        return formulas.inverse(number) if inverted else number


def source_of(node: Attribute | Intrinsic) -> tuple[Read, bytes]:
    """Return the field, and the key in it, that an attribute or intrinsic is read from."""
    if isinstance(node, Attribute):
        return _ATTRIBUTES[node.scope], node.key
    return _INTRINSICS[node.name], b""


def reads_trace(term: Term) -> bool:
    """Tell whether a term reads a value of the trace, or one of a span that the rest of the trace decides."""
    return any(isinstance(part, Slot) and (part.field >= FIRST_TRACE_FIELD or part == _OF_THE_WHOLE) for part in term)


def constant(literal: Literal) -> Constant:
    """Return the constant of a number or duration."""
    assert isinstance(literal.value, int | float)
    return Constant(_KINDS[literal.type], literal.value)


def term(node: Field) -> Term:
    """Compile a value (not a condition) into a postfix term."""
    if isinstance(node, Literal):
        return (constant(node),)
    parts: list[Slot | Constant | Arith] = []
    _append_term(parts, node)
    return tuple(parts)


def _append_term(parts: list[Slot | Constant | Arith], node: Field) -> None:
    match node:
        case Attribute() | Intrinsic():
            parts.append(Slot(*source_of(node)))
        case Literal():  # in arithmetic
            value = constant(node)
            parts.append(Constant(Kind.FLOAT, float(value.value)) if node.type is Type.DURATION else value)
        case Negative():
            _append_term(parts, node.operand)
            parts.append(Arith.NEG)
        case Arithmetic():
            _append_term(parts, node.left)
            _append_term(parts, node.right)
            parts.append(_ARITHMETIC[node.op])
        case _:
            raise AssertionError("parse leaves numbers only where a number is needed")
