"""Syntax trees -> what the scan must find out about each span, and how a rule is decided from that.

A rule holds or does not hold of a whole trace. What it asks of spans becomes *filters*, programs over span conditions;
the scan leaves one bit for each, "some span of this fragment matches", and fragments are joined by or. What it asks of
the trace becomes *trace conditions*. Both are what the programs of the rules are made of.

The step between the two: a pair of braces says "there is a span such that ...", and may mix both. `_Braces.exists`
pulls what is of the trace out of it: it distributes over `||`, a trace condition can be drawn out of `&&`, and what
still mixes is multiplied out or split by cases on one trace condition (Shannon). How often is bounded.

Pure functions; the only exception is `errors.TraceQLError`, for what is TraceQL but cannot be a rule yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..conditions import AND, FALSE, FIRST_TRACE_FIELD, NOT, OR, TRUE, Condition, Kind, Op
from ..conditions import Field as Read
from ..errors import TraceQLError
from .ast import (
    Aggregate,
    Attribute,
    Comparison,
    Expression,
    Field,
    Filter,
    Intrinsic,
    Literal,
    Logical,
    Name,
    Not,
    Pipeline,
    Scope,
    Spanset,
    SpansetLogical,
    Structural,
    Type,
)

MAX_STACK = 32  # operands are ordered so that the need grows with the logarithm of the length
MAX_SPLITS = 256  # in one pair of braces


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a rule set asks. Equal conditions and filters are there once. Programs are postfix, as `conditions` says;
    evaluating one never needs more than `MAX_STACK` values at a time.

    In `filters` operand i is `conditions[i]`. In `programs`, one for each rule, operand 2i is "some span of the trace
    matches `filters[i]`" and operand 2j + 1 is "`trace_conditions[j]` holds of the trace".
    """

    conditions: tuple[Condition, ...]
    filters: tuple[tuple[int, ...], ...]
    trace_conditions: tuple[Condition, ...]
    programs: tuple[tuple[int, ...], ...]


def compile_rules(rules: Sequence[tuple[Expression | None, Expression | None]]) -> Compiled:
    """`match` and `unless` of each rule; a rule without `match` matches every trace.

    To know which rule an error belongs to, compile that rule alone.
    """
    compiler = _Compiler()
    programs = [compiler.rule(match, unless) for match, unless in rules]
    return compiler.finish(programs)


# A formula is TRUE, FALSE, an operand (>= 0), or an operator with its parts. Operands are even for span conditions (in
# a formula over a span) or filters (in one over a trace), and odd for trace conditions in both.
Formula = int | tuple[int, tuple["Formula", ...]]

_SPAN, _TRACE = 1, 2

_ATTRIBUTES = {
    Scope.SPAN: Read.SPAN_ATTRIBUTE,
    Scope.RESOURCE: Read.RESOURCE_ATTRIBUTE,
    Scope.INSTRUMENTATION: Read.SCOPE_ATTRIBUTE,
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
    Name.SCOPE_NAME: Read.SCOPE_NAME,
    Name.SCOPE_VERSION: Read.SCOPE_VERSION,
    Name.TRACE_DURATION: Read.TRACE_DURATION,
    Name.ROOT_NAME: Read.ROOT_NAME,
    Name.ROOT_SERVICE: Read.ROOT_SERVICE,
    Name.TRACE_ID: Read.TRACE_ID,
}
_MAY_BE_MISSING = {Read.TRACE_DURATION, Read.ROOT_NAME, Read.ROOT_SERVICE}
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


class _Compiler:
    def __init__(self) -> None:
        self.conditions: dict[Condition, int] = {}
        self.filters: dict[tuple[int, ...], int] = {}
        self.trace_conditions: dict[Condition, int] = {}

    def rule(self, match: Expression | None, unless: Expression | None) -> tuple[int, ...]:
        matches = TRUE if match is None else self._spanset(match.root)
        excluded = FALSE if unless is None else self._spanset(unless.root)
        return _emit(_join(AND, [matches, _inverse(excluded)]), 0)

    def _spanset(self, node: Spanset) -> Formula:
        """Over a trace: whether this selects any span of it."""
        match node:
            case Filter():
                return _Braces(self, node.start).exists(self._condition(node.condition, False))
            case SpansetLogical():
                parts = []
                for operand in node.operands:
                    parts.append(self._spanset(operand))
                return _join(AND if node.op == "&&" else OR, parts)
            case Structural():
                raise _unsupported(f"the structural operator {node.op}", node.right.start)
            case Aggregate():
                raise _unsupported(f"{node.function}()", node.start)
            case Pipeline():
                raise _unsupported("pipelines", node.stages[1].start)

    def _condition(self, node: Field, inverted: bool) -> Formula:
        """Over a span, NOT only before operands. What is missing makes a comparison false, and so its inverse true."""
        match node:
            case Literal():
                return TRUE if node.value != inverted else FALSE
            case Attribute():
                return self._truth(node, True, inverted)
            case Not():
                return self._not(node, inverted)
            case Logical():
                parts = []
                for operand in node.operands:
                    parts.append(self._condition(operand, inverted))
                return _join(AND if (node.op == "&&") != inverted else OR, parts)
            case Comparison():
                return self._comparison(node, inverted)
            case _:
                raise _unsupported("arithmetic on what a span says", node.start)

    def _not(self, node: Not, inverted: bool) -> Formula:
        """Of a bare attribute, `!x` is x = false and `!!x` is x = true, both false where x is missing (in Tempo such
        spans are not even looked at); of anything else it is plain."""
        value = True
        operand: Field = node
        while isinstance(operand, Not):
            operand, value = operand.operand, not value
        if isinstance(operand, Attribute):
            return self._truth(operand, value, inverted)
        return self._condition(operand, inverted == value)

    def _truth(self, node: Attribute, value: bool, inverted: bool) -> Formula:
        field, key = _place(node)
        return self._operand(Condition(field, key, Op.EQ, Kind.BOOL, value), inverted)

    def _comparison(self, node: Comparison, inverted: bool) -> Formula:
        if not isinstance(node.left, Attribute | Intrinsic):
            what = "comparing conditions" if node.left.type is Type.BOOL else "arithmetic on what a span says"
            raise _unsupported(what, node.left.start)
        field, key = _place(node.left)
        if node.right is None:
            if node.op is Op.NOT_NIL and isinstance(node.left, Intrinsic) and field not in _MAY_BE_MISSING:
                return FALSE if inverted else TRUE
            return self._operand(Condition(field, key, node.op, Kind.NONE, None), inverted)
        if not isinstance(node.right, Literal):
            raise _unsupported("comparing what a span says with something else that it says", node.right.start)
        value = node.right.value
        if isinstance(value, bytes) and node.op in (Op.EQ, Op.NE):
            # Ids are read as lower-case hex; Tempo's own trace ids come without their leading zeros.
            if field in (Read.TRACE_ID, Read.SPAN_ID, Read.PARENT_ID):
                value = value.lower()
            if field is Read.TRACE_ID:
                value = value.rjust(32, b"0")
        return self._operand(Condition(field, key, node.op, _KINDS[node.right.type], value), inverted)

    def _operand(self, condition: Condition, inverted: bool) -> Formula:
        if condition.field >= FIRST_TRACE_FIELD:
            operand = 2 * self.trace_conditions.setdefault(condition, len(self.trace_conditions)) + 1
        else:
            operand = 2 * self.conditions.setdefault(condition, len(self.conditions))
        return (NOT, (operand,)) if inverted else operand

    def filter(self, formula: Formula) -> Formula:
        return 2 * self.filters.setdefault(_emit(formula, 1), len(self.filters))

    def finish(self, programs: list[tuple[int, ...]]) -> Compiled:
        """Leaves out what simplification made superfluous, so that the scan looks for nothing in vain."""
        operands = _operands(programs)
        kept_filters = [operand >> 1 for operand in operands if not operand & 1]
        kept_trace = [operand >> 1 for operand in operands if operand & 1]
        all_filters = list(self.filters)
        filters = [all_filters[index] for index in kept_filters]
        kept = _operands(filters)
        conditions, trace_conditions = list(self.conditions), list(self.trace_conditions)
        numbers = {2 * old: 2 * new for new, old in enumerate(kept_filters)}
        numbers |= {2 * old + 1: 2 * new + 1 for new, old in enumerate(kept_trace)}
        return Compiled(
            tuple(conditions[index] for index in kept),
            _renumbered(filters, {old: new for new, old in enumerate(kept)}),
            tuple(trace_conditions[index] for index in kept_trace),
            _renumbered(programs, numbers),
        )


class _Braces:
    """One pair of braces: from a formula over a span to that over a trace which says that there is such a span."""

    def __init__(self, compiler: _Compiler, start: int) -> None:
        self._compiler = compiler
        self._start = start
        self._splits = 0

    def exists(self, formula: Formula) -> Formula:
        reads = _reads(formula)
        if reads == _SPAN:
            return self._compiler.filter(formula)
        if reads != _SPAN | _TRACE:
            return formula  # of the trace alone, or constant: a trace always has a span
        assert isinstance(formula, tuple)
        operator, parts = formula
        alone: list[Formula] = []
        mixed: list[Formula] = []
        rest: list[Formula] = []
        for part in parts:
            sort = _reads(part)
            (alone if sort == _TRACE else rest if sort == _SPAN else mixed).append(part)
        if operator == OR:
            for part in (_join(OR, rest), *mixed):
                alone.append(self.exists(part))
            return _join(OR, alone)
        if alone:
            alone.append(self.exists(_join(AND, rest + mixed)))
            return _join(AND, alone)
        if len(mixed) == 1:
            return self._multiply(_join(AND, rest), mixed[0])
        return self._split(formula, _first_of_trace(mixed[0]))

    def _multiply(self, factor: Formula, alternatives: Formula) -> Formula:
        """x && (y || z) is x && y || x && z."""
        assert isinstance(alternatives, tuple)
        of_span: list[Formula] = []
        others: list[Formula] = []
        for part in alternatives[1]:
            (of_span if _reads(part) == _SPAN else others).append(part)
        products = []
        for part in (_join(OR, of_span), *others):
            self._count()
            products.append(self.exists(_join(AND, [factor, part])))
        return _join(OR, products)

    def _split(self, formula: Formula, operand: int) -> Formula:
        """By cases: the trace condition holds, or it does not."""
        self._count()
        cases = []
        for value, holds in ((TRUE, operand), (FALSE, (NOT, (operand,)))):
            cases.append(_join(AND, [holds, self.exists(_substitute(formula, operand, value))]))
        return _join(OR, cases)

    def _count(self) -> None:
        self._splits += 1
        if self._splits > MAX_SPLITS:
            message = "these braces mix too many conditions on span and trace: give the trace braces of its own"
            raise TraceQLError(message, self._start)


def _place(node: Attribute | Intrinsic) -> tuple[Read, bytes]:
    if isinstance(node, Attribute):
        if node.scope not in _ATTRIBUTES:
            raise _unsupported(f"{node.scope.value} attributes", node.start)
        return _ATTRIBUTES[node.scope], node.key
    if node.name not in _INTRINSICS:
        raise _unsupported(node.name.value, node.start)
    return _INTRINSICS[node.name], b""


def _unsupported(what: str, offset: int) -> TraceQLError:
    return TraceQLError(f"not supported yet in rules: {what}", offset)


def _inverse(formula: Formula) -> Formula:
    if formula in (TRUE, FALSE):
        return FALSE if formula == TRUE else TRUE
    return (NOT, (formula,))


def _join(operator: int, parts: Sequence[Formula]) -> Formula:
    """`parts` under AND or OR, flat, without constants and repetitions."""
    neutral, final = (TRUE, FALSE) if operator == AND else (FALSE, TRUE)
    flat: dict[Formula, None] = {}
    for part in parts:
        if part == final:
            return final
        if isinstance(part, tuple) and part[0] == operator:
            flat.update(dict.fromkeys(part[1]))
        elif part != neutral:
            flat[part] = None
    if len(flat) < 2:
        return next(iter(flat), neutral)
    return (operator, tuple(flat))


def _reads(formula: Formula) -> int:
    """What a formula over a span reads: _SPAN, _TRACE, both, or 0."""
    if isinstance(formula, int):
        return 0 if formula < 0 else _TRACE if formula & 1 else _SPAN
    found = 0
    for part in formula[1]:
        found |= _reads(part)
        if found == _SPAN | _TRACE:
            break
    return found


def _first_of_trace(formula: Formula) -> int:
    while isinstance(formula, tuple):
        for part in formula[1]:
            if _reads(part) & _TRACE:
                formula = part
                break
    return formula


def _substitute(formula: Formula, operand: int, value: int) -> Formula:
    if isinstance(formula, int):
        return value if formula == operand else formula
    if formula[0] == NOT:
        return _inverse(_substitute(formula[1][0], operand, value))
    parts = []
    for part in formula[1]:
        parts.append(_substitute(part, operand, value))
    return _join(formula[0], parts)


def _emit(formula: Formula, shift: int) -> tuple[int, ...]:
    return _emit_part(formula, shift)[1]


def _emit_part(formula: Formula, shift: int) -> tuple[int, tuple[int, ...]]:
    """How many values evaluation holds at a time, negative so that it sorts, and the program.

    What needs most comes first, so that a stack of logarithmic depth is enough. Otherwise the order says nothing about
    the text, so that equal filters come out equal however they were written.
    """
    if isinstance(formula, int):
        return -1, (formula >> shift if formula >= 0 else formula,)
    operator, operands = formula
    parts = []
    for operand in operands:
        parts.append(_emit_part(operand, shift))
    if operator == NOT:
        return parts[0][0], (*parts[0][1], NOT)
    parts.sort()
    program = list(parts[0][1])
    for _, part in parts[1:]:
        program += part
        program.append(operator)
    return min(parts[0][0], parts[1][0] - 1), tuple(program)


def _operands(programs: Iterable[tuple[int, ...]]) -> list[int]:
    return sorted({token for program in programs for token in program if token >= 0})


def _renumbered(programs: Iterable[tuple[int, ...]], numbers: dict[int, int]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(numbers.get(token, token) for token in program) for program in programs)
