"""Compiles syntax trees into what the scan must find out about each span, and how a rule is decided from that.

A rule holds or does not hold of a whole trace. Its questions about spans become *filters*, programs over span
conditions; the scan leaves one bit for each, "some span of this fragment matches", and fragments are joined by or. Its
questions about the trace become *trace conditions*. Whatever relates spans to each other, counts them, or compares them
with their trace becomes *queries*, evaluated at decision time over the spans of those traces that pass a guard made of
bits and trace conditions; so does a pair of braces that mixes too much of span and trace to be taken apart into
filters. The programs of the rules are made of all three.

The meaning of expressions is written down in `fields` (between braces) and `queries` (outside). The result is run by
the room `rules`: `plan.Plan` and `span_matcher` answer filters, `trace_matcher` evaluates queries, `rule_set` decides.

Pure functions; the only exception is `errors.TraceQLError`, for expressions that would become too large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sampler_proxy.traceql import formulas
from sampler_proxy.traceql.ast import Expression, Field
from sampler_proxy.traceql.fields import MAX_TERM_STACK, Fields
from sampler_proxy.traceql.formulas import (
    COMPARISON,
    CONDITION,
    DEFERRED,
    FILTER,
    MAX_STACK,
    QUERY,
    TRACE_CONDITION,
    Formula,
    Program,
    emit,
    inverse,
    join,
)
from sampler_proxy.traceql.program import (
    AND,
    FALSE,
    TRUE,
    Aggregate,
    Comparison,
    Condition,
    Node,
    Pipeline,
    Query,
    Select,
    Spansets,
)
from sampler_proxy.traceql.program import Structural as Related
from sampler_proxy.traceql.queries import Growth, Queries

__all__ = ["MAX_STACK", "MAX_TERM_STACK", "Compiled", "Compiler", "compile_rules", "compile_selection"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Compiled:
    """The questions of a rule set. Equal conditions, comparisons, filters and queries are there once. Programs are
    postfix, as `program` says; evaluating one never needs more than `MAX_STACK` values at a time.

    In `filters` operands number `conditions`, then `comparisons`, then `trace_conditions`; NOT follows operands only.
    Only the filters in `deferred` read the trace: no bit of a fragment answers those, and only queries (and selections)
    use them.

    In `programs`, one for each rule, and in guards operand 2i is "some span of the trace matches `filters[i]`" and
    operand 2j + 1 is the j-th of `trace_conditions`, then (in programs only) `queries`.

    `monotone`, for each rule: once its program is true of a trace, it stays true whatever more arrives.

    `late`, for each rule: spans that come after the decision on their trace, with the times remembered of it, can tell
    that the rule holds; save where its program in `exclusions` (`unless`, and what is negated otherwise) was true of
    the trace. (FALSE,): nothing is excluded.
    """

    conditions: tuple[Condition, ...]
    comparisons: tuple[Comparison, ...]
    trace_conditions: tuple[Condition, ...]
    filters: tuple[Program, ...]
    deferred: frozenset[int]
    queries: tuple[Query, ...]
    programs: tuple[Program, ...]
    monotone: tuple[bool, ...]
    late: tuple[bool, ...]
    exclusions: tuple[Program, ...]


def compile_rules(rules: Sequence[tuple[Expression | None, Expression | None]]) -> Compiled:
    """Compile `match` and `unless` of each rule; a rule without `match` matches every trace.

    Raises `TraceQLError`, which does not say which rule it belongs to: compile each rule alone to know.
    """
    compiler = Compiler()
    return compiler.finish([compiler.rule(match, unless) for match, unless in rules])


def compile_selection(conditions: Sequence[Field]) -> Compiled:
    """Compile conditions between braces: the i-th becomes `filters[i]`, deferred and equal ones too; no programs."""
    compiler = Compiler()
    selected = [compiler.select(condition) for condition in conditions]
    return compiler.finish([], selected)


class Compiler:
    """Compiles rules over shared tables. In the tables operands are those of `formulas`; `finish` numbers them anew."""

    def __init__(self) -> None:
        self.fields = Fields()
        self.queries = Queries(self.fields)
        self._formulas: dict[int, tuple[Expression, Formula]] = {}  # by the expression's id(); kept alive by the pair

    def rule(self, match: Expression | None, unless: Expression | None) -> Formula:
        """Return the rule's formula over a trace: `match` and not `unless`."""
        matches = TRUE if match is None else self.formula(match)
        excluded = FALSE if unless is None else self.formula(unless)
        return join(AND, [matches, inverse(excluded)])

    def formula(self, expression: Expression) -> Formula:
        """Compile an expression, over a trace; the same object a second time costs nothing. Raises `TraceQLError`."""
        known = self._formulas.get(id(expression))
        if known is None:
            known = self._formulas[id(expression)] = (expression, self.queries.formula(expression.root))
        return known[1]

    def select(self, condition: Field) -> int:
        """Compile a condition between braces: the number of its filter, for `finish`. Raises `TraceQLError`."""
        return self.queries.filter(self.fields.formula(condition))

    def reads_trace(self, filter: int) -> bool:
        """Tell whether a filter has to be asked with the whole trace at hand."""
        return _reads_trace(list(self.queries.filters)[filter])

    def finish(self, rules: Sequence[Formula], selected: Sequence[int] | None = None) -> Compiled:
        """Number and write out all that the rules use; conditions that simplification made superfluous are left out, so
        that the scan looks for nothing in vain."""
        growth = Growth(self.fields, self.queries)
        programs = [emit(formula) for formula in rules]
        of_rules = _Used(programs)
        all_queries, all_filters = list(self.queries.queries), list(self.queries.filters)
        queries = [all_queries[index] for index in of_rules[QUERY]]
        of_traces = _Used([*programs, *(query.guard for query in queries)])
        chosen = {*of_traces[FILTER], *(index for query in queries for index in selects(query.root))}
        kept = sorted(chosen) if selected is None else list(selected)
        filters = [all_filters[index] for index in kept]
        of_spans = _Used(filters)
        comparisons = sorted({*of_spans[COMPARISON], *of_spans[DEFERRED]})
        trace = sorted({*of_traces[TRACE_CONDITION], *of_spans[TRACE_CONDITION]})

        new_filters = {old: new for new, old in enumerate(kept)}
        first, second = len(of_spans[CONDITION]), len(of_spans[CONDITION]) + len(comparisons)
        in_filters = {
            **_numbers(of_spans[CONDITION], CONDITION, 0, 1),
            **_numbers(comparisons, COMPARISON, first, 1),
            **_numbers(comparisons, DEFERRED, first, 1),
            **_numbers(trace, TRACE_CONDITION, second, 1),
        }
        in_programs = {
            **_numbers(kept, FILTER, 0, 2),
            **_numbers(trace, TRACE_CONDITION, 1, 2),
            **_numbers(of_rules[QUERY], QUERY, 2 * len(trace) + 1, 2),
        }
        return Compiled(
            _picked(self.fields.conditions, of_spans[CONDITION]),
            _picked(self.fields.comparisons, comparisons),
            _picked(self.fields.trace_conditions, trace),
            tuple(formulas.renumbered(program, in_filters) for program in filters),
            frozenset(number for number, program in enumerate(filters) if _reads_trace(program)),
            tuple(
                Query(formulas.renumbered(query.guard, in_programs), _renumbered(query.root, new_filters))
                for query in queries
            ),
            tuple(formulas.renumbered(program, in_programs) for program in programs),
            tuple(growth.monotone(formula) for formula in rules),
            tuple(growth.told_late(formula) for formula in rules),
            tuple(formulas.renumbered(emit(formulas.excluded(formula)), in_programs) for formula in rules),
        )


class _Used:
    """The operands of programs: by sort, their indices in order."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self._indices: dict[int, list[int]] = {}
        for number in formulas.operands_of(programs):
            self._indices.setdefault(formulas.sort_of(number), []).append(formulas.index_of(number))

    def __getitem__(self, sort: int) -> list[int]:
        return self._indices.get(sort, [])


def _numbers(indices: Sequence[int], sort: int, first: int, step: int) -> dict[int, int]:
    return {formulas.operand(old, sort): first + step * new for new, old in enumerate(indices)}


def _picked(table: Iterable[_T], indices: Sequence[int]) -> tuple[_T, ...]:
    items = list(table)
    return tuple(items[index] for index in indices)


def _reads_trace(program: Program) -> bool:
    return any(token >= 0 and formulas.sort_of(token) in (TRACE_CONDITION, DEFERRED) for token in program)


def selects(node: Node) -> Iterator[int]:
    """Yield the filters of a query."""
    pending = [node]
    while pending:
        match pending.pop():
            case Select(index):
                yield index
            case Spansets(_, parts) | Pipeline(parts):
                pending.extend(parts)
            case Related(_, left, right):
                pending += (left, right)


def _renumbered(node: Node, filters: dict[int, int]) -> Node:
    match node:
        case Select(index):
            return Select(filters[index])
        case Spansets(operator, parts):
            return Spansets(operator, tuple([_renumbered(part, filters) for part in parts]))
        case Related(op, left, right):
            return Related(op, _renumbered(left, filters), _renumbered(right, filters))
        case Pipeline(stages):
            return Pipeline(tuple([_renumbered(stage, filters) for stage in stages]))
        case Aggregate():
            return node
