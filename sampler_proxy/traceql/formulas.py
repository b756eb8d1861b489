"""Joins, simplifies and splits formulas over operands, and writes them out as programs. Knows nothing of TraceQL.

A formula is TRUE, FALSE, an operand (>= 0), or an operator with its parts. The last two bits of an operand are its
sort, the others an index among operands of that sort. The operands of a formula over a span are conditions, comparisons
and, of the trace that the span is in, trace conditions and deferred comparisons. Those of a formula over a trace are
filters ("some span matches"), trace conditions, and queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sampler_proxy.traceql.program import AND, FALSE, NOT, OR, TRUE

Formula = int | tuple[int, tuple["Formula", ...]]
Program = tuple[int, ...]

# Sorts over a span; the odd ones change with the trace.
CONDITION, TRACE_CONDITION, COMPARISON, DEFERRED = 0, 1, 2, 3
# Sorts over a trace, beside TRACE_CONDITION.
FILTER, QUERY = 0, 3

MAX_STACK = 32  # values; `emit` orders operands so that the need grows with the logarithm of the length
MAX_SPLITS = 32  # in one pair of braces: each may become a filter, which is a bit of every fragment
MAX_PRODUCT = 8192  # operators and operands, where conditions are compared with each other

_SPAN, _TRACE = 1, 2


def operand(index: int, sort: int) -> int:
    return index << 2 | sort


def index_of(number: int) -> int:
    return number >> 2


def sort_of(number: int) -> int:
    return number & 3


def join(operator: int, parts: Sequence[Formula]) -> Formula:
    """Join `parts` by AND or OR: flattened, without neutral constants and repetitions."""
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


def inverse(formula: Formula) -> Formula:
    """Negate a formula by a NOT before it."""
    if formula in (TRUE, FALSE):
        return FALSE if formula == TRUE else TRUE
    return (NOT, (formula,))


def excluded(formula: Formula) -> Formula:
    """Return what must not hold where the formula does: the negated parts of an outermost AND, joined by OR."""
    parts = formula[1] if isinstance(formula, tuple) and formula[0] == AND else (formula,)
    return join(OR, [part[1][0] for part in parts if isinstance(part, tuple) and part[0] == NOT])


def pushed_inverse(formula: Formula) -> Formula:
    """Negate a formula in negation normal form (NOT before operands only) by De Morgan's laws; the result is in it."""
    if isinstance(formula, int):
        return inverse(formula)
    if formula[0] == NOT:
        return formula[1][0]
    parts = []
    for part in formula[1]:
        parts.append(pushed_inverse(part))
    return join(AND if formula[0] == OR else OR, parts)


def size(formula: Formula) -> int:
    """Count the operators and operands of a formula."""
    if isinstance(formula, int):
        return 1
    total = len(formula[1])
    for part in formula[1]:
        total += size(part)
    return total


def sorts(formula: Formula) -> set[int]:
    """Return the sorts of a formula's operands."""
    return {sort_of(token) for token in emit(formula) if token >= 0}


def without(formula: Formula, unwanted: frozenset[int]) -> Formula:
    """Weaken a formula over a span: what follows from the formula whatever operands of these sorts are."""
    if isinstance(formula, int):
        return TRUE if formula >= 0 and sort_of(formula) in unwanted else formula
    if formula[0] == NOT:
        return TRUE if without(formula[1][0], unwanted) == TRUE else formula
    parts = []
    for part in formula[1]:
        parts.append(without(part, unwanted))
    return join(formula[0], parts)


class TooManySplits(Exception):
    """Braces need more than MAX_SPLITS splits. Never leaves the compiler: the braces become a query instead."""


class Braces:
    """Turns the formula of one pair of braces, over a span, into the formula over a trace that such a span exists.

    The formula has no deferred comparisons. Trace conditions are pulled out of it: "there is" distributes over `||`, a
    trace condition can be drawn out of `&&`, and whatever still mixes span and trace is multiplied out (by the
    distributive law) or split by cases on one trace condition (Shannon's expansion). `filter` takes the rest, formulas
    over a span alone.
    """

    def __init__(self, filter: Callable[[Formula], Formula]) -> None:
        self._filter = filter
        self._splits = 0

    def exists(self, formula: Formula) -> Formula:
        """Return the formula over a trace. May raise TooManySplits."""
        reads = _reads(formula)
        if reads == _SPAN:
            return self._filter(formula)
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
            for part in (join(OR, rest), *mixed):
                alone.append(self.exists(part))
            return join(OR, alone)
        if alone:
            alone.append(self.exists(join(AND, rest + mixed)))
            return join(AND, alone)
        if len(mixed) == 1:
            return self._multiply(join(AND, rest), mixed[0])
        return self._split(formula, _first_of_trace(mixed[0]))

    def _multiply(self, factor: Formula, alternatives: Formula) -> Formula:
        """Multiply out: x && (y || z) is x && y || x && z."""
        assert isinstance(alternatives, tuple)
        of_span: list[Formula] = []
        others: list[Formula] = []
        for part in alternatives[1]:
            (of_span if _reads(part) == _SPAN else others).append(part)
        products = []
        for part in (join(OR, of_span), *others):
            self._count_split()
            products.append(self.exists(join(AND, [factor, part])))
        return join(OR, products)

    def _split(self, formula: Formula, by: int) -> Formula:
        """Split by cases, the trace condition holds or not (Shannon's expansion)."""
        self._count_split()
        cases = []
        for value, holds in ((TRUE, by), (FALSE, (NOT, (by,)))):
            cases.append(join(AND, [holds, self.exists(_substitute(formula, by, value))]))
        return join(OR, cases)

    def _count_split(self) -> None:
        self._splits += 1
        if self._splits > MAX_SPLITS:
            raise TooManySplits


def _reads(formula: Formula) -> int:
    """Tell what a formula over a span reads: _SPAN, _TRACE, both, or 0."""
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


def _substitute(formula: Formula, number: int, value: int) -> Formula:
    if isinstance(formula, int):
        return value if formula == number else formula
    if formula[0] == NOT:
        return inverse(_substitute(formula[1][0], number, value))
    parts = []
    for part in formula[1]:
        parts.append(_substitute(part, number, value))
    return join(formula[0], parts)


def emit(formula: Formula) -> Program:
    """Write a formula out as a postfix program."""
    return _emit_part(formula)[1]


def _emit_part(formula: Formula) -> tuple[int, Program]:
    """Return the values that evaluation holds at a time, negative so that the largest sorts first, and the program.

    The order of operands is Sethi and Ullman's: the part that needs most comes first, so that a stack of logarithmic
    depth is enough. Otherwise the order says nothing about the text, so that equal filters come out equal however they
    were written.
    """
    if isinstance(formula, int):
        return -1, (formula,)
    operator, operands = formula
    parts = []
    for part in operands:
        parts.append(_emit_part(part))
    if operator == NOT:
        return parts[0][0], (*parts[0][1], NOT)
    parts.sort()
    program = list(parts[0][1])
    for _, code in parts[1:]:
        program += code
        program.append(operator)
    return min(parts[0][0], parts[1][0] - 1), tuple(program)


def operands_of(programs: Iterable[Program]) -> list[int]:
    """Return all operands of some programs, sorted, each once."""
    return sorted({token for program in programs for token in program if token >= 0})


def renumbered(program: Program, numbers: dict[int, int]) -> Program:
    """Replace operands by their new numbers; operands without one stay."""
    return tuple([numbers.get(token, token) for token in program])
