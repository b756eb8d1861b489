"""Compiles what needs the spans of a trace side by side into queries: their nodes, their guards, their monotony.

A node selects some of the spans it is given, and a query holds of a trace if its root selects any of all its spans
(`rules.trace_matcher` evaluates them). Spans are distinct by span id, and stand in order of their first arrival.
Meaning, decided after Tempo's code:

Copies      Of spans with one id all are asked what they match, each by itself, and one is enough; the first says which
            span is its parent; aggregates count the id once, and take the values of the last.

Select      Those of the input for which the filter holds. Each one binds events and links anew.
Spansets    The spans that any of the parts select; with AND none, if one of the parts selects none.
Pipeline    Each stage gets what the stage before selected, the first the whole input; none: none.
Structural  Both sides get the input. Of the right side those spans that have a related span on the left; with `!`,
            those that have none, so all of them if the left side is empty. Relations are those of the whole trace as
            far as it has arrived, also by way of spans that are not in the input. No span is related to itself.
              >   left is the parent of right: its span id is right's parent id      <   left is a child of right
              >>  left is met on the way up from right, which ends where a parent has not arrived or where a span
                  comes up again                                                     <<  right is met so from left
              ~   they have the same parent id, whether or not that span arrived; roots are siblings of each other
Aggregate   The whole input if its value compares so with the constant, else none; of no spans, none.
            count() is their number. The others look at the spans for which the argument is a number other than NaN and
            leave out the rest; if none is left, none is selected. Where it reads events or links, a span's value is
            that of the first (event, link), in their order, for which it is a number. The sum of integers (durations
            are such, when the argument is nothing else) is exact, or the nearest double if it needs more than 64 bits;
            otherwise doubles are added in order of arrival. avg is that sum, as a double, by the number of values. Of
            equal minima or maxima the first stands.

A span that matches a filter is found by the scan, a span twice under one id too; so a guard may hold where its query
does not, never the other way round.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from sampler_proxy.traceql import ast, formulas
from sampler_proxy.traceql.fields import Fields, constant, reads_trace, term
from sampler_proxy.traceql.formulas import (
    DEFERRED,
    FILTER,
    QUERY,
    TRACE_CONDITION,
    Braces,
    Formula,
    Program,
    TooManySplits,
    join,
    sort_of,
)
from sampler_proxy.traceql.program import (
    AND,
    FALSE,
    NOT,
    OR,
    TRUE,
    Aggregate,
    Condition,
    Node,
    Op,
    Pipeline,
    Query,
    Select,
    Spansets,
)
from sampler_proxy.traceql.program import Field as Read
from sampler_proxy.traceql.program import Structural as Related


class _Guarded(NamedTuple):
    node: Node
    guard: Formula  # over a trace; necessary for the node to select anything


class Queries:
    """Compiles spansets into filters and queries over the conditions of `fields`, equal ones once; their operands are
    those of `formulas`.

    May raise `TraceQLError`.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self.filters: dict[Program, int] = {}
        self.filter_formulas: list[Formula] = []  # from which each filter was written
        self.queries: dict[Query, int] = {}

    def formula(self, node: ast.Spanset) -> Formula:
        """Return the formula over a trace that this selects any span of it. What the scan can answer needs no query."""
        if isinstance(node, ast.SpansetLogical):
            parts = []
            for operand in node.operands:
                parts.append(self.formula(operand))
            return join(AND if node.op == "&&" else OR, parts)
        if isinstance(node, ast.Filter):
            condition = self._fields.formula(node.condition)
            if DEFERRED not in formulas.sorts(condition):
                with contextlib.suppress(TooManySplits):
                    return Braces(self._exists).exists(condition)
        found = self._node(node)
        if found is None:
            return FALSE
        query = Query(formulas.emit(found.guard), found.node)
        return formulas.operand(self.queries.setdefault(query, len(self.queries)), QUERY)

    def filter(self, formula: Formula) -> int:
        """Return the number of the filter for a formula over a span."""
        program = formulas.emit(formula)
        if program not in self.filters:
            self.filters[program] = len(self.filters)
            self.filter_formulas.append(formula)
        return self.filters[program]

    def _exists(self, formula: Formula) -> Formula:
        return formulas.operand(self.filter(formula), FILTER)

    def _node(self, node: ast.Spanset) -> _Guarded | None:
        """Compile a node; None where it can select no span."""
        match node:
            case ast.Filter():
                condition = self._fields.formula(node.condition)
                if condition == FALSE:
                    return None
                return _Guarded(Select(self.filter(condition)), self._guard(condition))
            case ast.SpansetLogical():
                return self._spansets(node)
            case ast.Structural():
                return self._structural(node)
            case ast.Pipeline():
                stages = []
                for stage in node.stages:
                    found = self._node(stage)
                    if found is None:
                        return None
                    stages.append(found)
                # A later stage selects some of the spans that it would select of all, so that it guards too.
                return _Guarded(Pipeline(tuple(item.node for item in stages)), join(AND, [s.guard for s in stages]))
            case ast.Aggregate():
                if _never(node):
                    return None
                argument = None if node.argument is None else term(node.argument)
                return _Guarded(Aggregate(node.function, argument, node.op, constant(node.value)), TRUE)

    def _spansets(self, node: ast.SpansetLogical) -> _Guarded | None:
        operator = AND if node.op == "&&" else OR
        parts = []
        for operand in node.operands:
            found = self._node(operand)
            if found is not None:
                parts.append(found)
            elif operator == AND:
                return None
        if len(parts) < 2:
            return parts[0] if parts else None
        return _Guarded(
            Spansets(operator, tuple(part.node for part in parts)), join(operator, [part.guard for part in parts])
        )

    def _structural(self, node: ast.Structural) -> _Guarded | None:
        negated = node.op[0] == "!"
        left, right = self._node(node.left), self._node(node.right)
        if right is None or left is None:
            return right if negated else None
        guard = right.guard if negated else join(AND, [left.guard, right.guard])
        return _Guarded(Related(node.op, left.node, right.node), guard)

    def _guard(self, condition: Formula) -> Formula:
        necessary = formulas.without(condition, frozenset({DEFERRED}))
        try:
            return Braces(self._exists).exists(necessary)
        except TooManySplits:  # then from the spans alone
            return Braces(self._exists).exists(formulas.without(condition, frozenset({DEFERRED, TRACE_CONDITION})))


class Growth:
    """Finds formulas over a trace that a part of the trace can tell.

    Monotone ones: once true, they stay true whatever more of the trace arrives.

    Spans do not change, so that filters, and selections by them, only grow; so do `traceDuration >`, `count() >` and
    the relations without `!`. The root, however, may be another span tomorrow; and of a span that comes again the last
    copy's values stand, so that even a maximum may shrink.

    Those that late spans tell: true of these spans by themselves, they are true of the trace. That is more: the times
    of the trace are remembered with its decision, so that they are known; and a root that comes late is its root.
    """

    def __init__(self, fields: Fields, queries: Queries) -> None:
        self._trace_conditions = list(fields.trace_conditions)
        self._filters = list(queries.filters)
        self._queries = list(queries.queries)

    def monotone(self, formula: Formula, positive: bool = True) -> bool:
        """Tell whether the formula, or (not `positive`) its negation, is monotone."""
        if isinstance(formula, tuple):
            if formula[0] == NOT:
                positive = not positive
            return all(self.monotone(part, positive) for part in formula[1])
        if formula < 0:
            return True
        index, sort = formulas.index_of(formula), sort_of(formula)
        if sort == TRACE_CONDITION:
            return _condition_grows(self._trace_conditions[index], positive)
        return positive and (sort == FILTER or self._grows(self._queries[index].root, late=False))

    def told_late(self, formula: Formula) -> bool:
        """Tell whether late spans can tell that a rule holds, as far as what it excludes is known to be absent."""
        if isinstance(formula, int):
            return formula < 0 or self._operand_told_late(formula, True)
        if formula[0] == NOT:  # excluded: the caller's to look at
            return True
        if formula[0] == AND:
            return all(self.told_late(part) for part in formula[1])
        return all(self._alternative_told_late(part) for part in formula[1])

    def _alternative_told_late(self, formula: Formula) -> bool:
        if isinstance(formula, tuple):
            if formula[0] == NOT:
                return self._operand_told_late(formula[1][0], False)
            return all(self._alternative_told_late(part) for part in formula[1])
        return formula < 0 or self._operand_told_late(formula, True)

    def _operand_told_late(self, formula: Formula, positive: bool) -> bool:
        if not isinstance(formula, int):
            return False
        index, sort = formulas.index_of(formula), sort_of(formula)
        if sort == TRACE_CONDITION:
            return _told_late(self._trace_conditions[index], positive)
        return positive and (sort == FILTER or self._grows(self._queries[index].root, late=True))

    def _grows(self, node: Node, late: bool) -> bool:
        match node:
            case Select():
                return self._filter_grows(self._filters[node.filter], late)
            case Spansets():
                return all(self._grows(part, late) for part in node.parts)
            case Pipeline():
                return all(self._grows(stage, late) for stage in node.stages)
            case Related():
                return node.op[0] != "!" and self._grows(node.left, late) and self._grows(node.right, late)
            case Aggregate():
                if node.argument is not None and reads_trace(node.argument):
                    return False
                orders = {"count": (Op.GT, Op.GE)}
                if late:  # no copy has come after these spans
                    orders |= {"max": (Op.GT, Op.GE), "min": (Op.LT, Op.LE)}
                return node.op in orders.get(node.function, ())

    def _filter_grows(self, program: Program, late: bool) -> bool:
        for place, token in enumerate(program):
            if token < 0:
                continue
            positive = program[place + 1 : place + 2] != (NOT,)
            if sort_of(token) == DEFERRED and not (late and positive):
                return False
            if sort_of(token) == TRACE_CONDITION:
                grows = _told_late if late else _condition_grows
                if not grows(self._trace_conditions[formulas.index_of(token)], positive):
                    return False
        return True


def _never(node: ast.Aggregate) -> bool:
    """Tell whether this compares count() so that it never holds: a number of spans is at least 1."""
    value = node.value.value
    assert isinstance(value, int | float)
    if node.function != "count":
        return False
    return (value < 1 and node.op in (Op.EQ, Op.LE)) or (value <= 1 and node.op is Op.LT)


def _condition_grows(condition: Condition, positive: bool) -> bool:
    if condition.field is Read.TRACE_ID:
        return True  # never changes
    return positive and condition.field is Read.TRACE_DURATION and condition.op in (Op.GT, Op.GE)


def _told_late(condition: Condition, positive: bool) -> bool:
    """Tell whether late spans and the remembered times of their trace tell that a condition holds. Without a root among
    them nothing is known of it: not that it is missing, either."""
    if condition.field in (Read.TRACE_ID, Read.TRACE_DURATION):
        return True
    return positive and condition.op is not Op.IS_NIL
