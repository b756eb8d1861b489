"""Finds what a rule set says but probably does not mean: remarks for `check`, none of which stops a configuration.

    - a rule that is never reached, because an earlier one matches every trace that the rule matches. Only the text is
      compared: the same conditions, or more of them joined by `&&`, or fewer by `||`;
    - a rule that no trace can match;
    - `&&` and `||` mixed without parentheses;
    - durations compared with a number without a unit, which counts nanoseconds;
    - a key that the conventions make an integer, compared with a text, or a boolean with either;
    - a regular expression that is a plain word, or anchored at one end: it must match the whole value;
    - two values excluded by `||`, of which any value excludes one, or demanded by `&&`;
    - attributes that look like a name from the semantic conventions and are not, or are not where they stand.

Takes expressions that compile. Time is linear in the rules, so that ten thousand of them take a second or so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal as OneOf
from typing import NamedTuple

from sampler_proxy.traceql.ast import (
    Aggregate,
    Attribute,
    Comparison,
    Expression,
    Field,
    Intrinsic,
    Literal,
    Logical,
    Name,
    Regex,
    Remark,
    Scope,
    Type,
    walk,
)
from sampler_proxy.traceql.compiler import Compiler
from sampler_proxy.traceql.formulas import FILTER, Formula, Program, emit, index_of, sort_of
from sampler_proxy.traceql.parse import warnings
from sampler_proxy.traceql.program import FALSE, NOT, OR, TRUE, Op
from sampler_proxy.traceql.semconv import BOOLEANS, INTEGERS, advise

Part = OneOf["match", "unless"]


class Hint(NamedTuple):
    """A remark on one rule."""

    rule: int  # its index
    part: Part
    offset: int  # in the text of the part; 0 where the rule has no such part
    message: str


def lint(
    rules: Sequence[tuple[str, Expression | None, Expression | None]], compiler: Compiler | None = None
) -> list[Hint]:
    """Return remarks, in the order of the text, on rules, each (name, `match`, `unless`), in the order of the file.

    `compiler`: one that has compiled the expressions already, so that nothing is compiled twice.
    """
    found = []
    reach = _Reach(compiler or Compiler())  # one that has compiled the expressions already need not do so again
    advice = _Advice()
    for number, (name, match, unless) in enumerate(rules):
        unreached = reach.next(name, match, unless)
        if unreached is not None:
            found.append(Hint(number, unreached[0], 0, unreached[1]))
        parts: tuple[tuple[Part, Expression | None], ...] = (("match", match), ("unless", unless))
        for part, expression in parts:
            if expression is not None:
                remarks = sorted([*warnings(expression), *advice.about(expression)])
                found += [Hint(number, part, offset, message) for offset, message in remarks]
    return found


class _Reach:
    """Finds rules that are never reached: goes down the rules and records which traces each of them takes."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._all: str | None = None  # the rule that matches every trace
        # Formulas over a trace, written out -> the rule that takes those traces.
        self._traces: dict[Program, str] = {}
        # Formulas over a span, written out -> the rule that takes traces with such a span.
        self._spans: dict[Program, str] = {}

    def next(self, name: str, match: Expression | None, unless: Expression | None) -> tuple[Part, str] | None:
        """Add the next rule; return what is wrong with it, and in which part, if no trace gets to it."""
        if self._all is not None:
            return "match", f"this rule is never reached: {self._all} before it matches every trace"
        formula = self._compiler.rule(match, unless)
        if formula == FALSE:
            if self._compiler.rule(match, None) == FALSE:
                return "match", "no trace can match this: for traces that have no such span, put the span into unless"
            return "unless", "no trace can match this rule: unless holds wherever match does"
        earlier = self._taken_by(formula)
        if earlier is not None:
            return "match", f"this rule is never reached: {earlier} before it matches every trace that this one matches"
        self._take(formula, name)
        return None

    def _taken_by(self, formula: Formula) -> str | None:
        """Return an earlier rule that takes every trace of which the formula holds."""
        earlier = self._traces.get(emit(formula))
        if earlier is None and isinstance(formula, int) and formula >= 0 and sort_of(formula) == FILTER:
            return self._span_taken_by(self._compiler.queries.filter_formulas[index_of(formula)])
        return earlier or _by_parts(formula, self._taken_by)

    def _span_taken_by(self, formula: Formula) -> str | None:
        return self._spans.get(emit(formula)) or _by_parts(formula, self._span_taken_by)

    def _take(self, formula: Formula, name: str) -> None:
        if formula == TRUE:
            self._all = name
        for part in _alternatives(formula):
            self._traces.setdefault(emit(part), name)
            if isinstance(part, int) and part >= 0 and sort_of(part) == FILTER:
                for span in _alternatives(self._compiler.queries.filter_formulas[index_of(part)]):
                    self._spans.setdefault(emit(span), name)


def _by_parts(formula: Formula, taken_by: Callable[[Formula], str | None]) -> str | None:
    """Look at the parts of a formula: with `&&` one part must be taken, with `||` each."""
    if isinstance(formula, int) or formula[0] == NOT:
        return None
    found = None
    for part in formula[1]:
        found = taken_by(part)
        if (found is None) == (formula[0] == OR):
            break
    return found


def _alternatives(formula: Formula) -> tuple[Formula, ...]:
    if isinstance(formula, tuple) and formula[0] == OR:
        return (formula, *formula[1])
    return (formula,)


class _Advice:
    """Remarks about attributes and numbers without a unit. What `advise` says is cached by attribute: rules name the
    same ones again and again."""

    def __init__(self) -> None:
        self._known: dict[tuple[Scope, bytes], str | None] = {}

    def about(self, expression: Expression) -> Iterator[Remark]:
        for node, _ in walk(expression.root):
            if isinstance(node, Comparison | Aggregate) and _without_unit(node):
                yield Remark(
                    node.start, "a number without a unit counts nanoseconds here: write 5s, 5ms, or 5ns if so meant"
                )
            if isinstance(node, Comparison):
                for message in (_text_for_number(node), _part_of_value(node)):
                    if message is not None:
                        yield Remark(node.start, message)
            if isinstance(node, Logical):
                yield from _wrong_connective(node)
            if isinstance(node, Attribute):
                key = (node.scope, node.key)
                if key not in self._known:
                    self._known[key] = advise(node.scope, node.key.decode())
                message = self._known[key]
                if message is not None:
                    yield Remark(node.start, message)


def _text_for_number(node: Comparison) -> str | None:
    """Return what is wrong where a key that is an integer is compared with a text."""
    for attribute, constant in ((node.left, node.right), (node.right, node.left)):
        if not (isinstance(attribute, Attribute) and isinstance(constant, Literal)):
            continue
        name = attribute.key.decode()
        if name in INTEGERS and constant.type in (Type.STRING, Type.REGEX):
            return f"{name} is a number, and never equal to a text: write it without quotes, as in >= 500"
        if name in BOOLEANS and constant.type is not Type.BOOL:
            return f"{name} is true or false, and never equal to anything else: write = true, without quotes"
    return None


def _wrong_connective(node: Logical) -> Iterator[Remark]:
    """Find two values that are excluded by `||`, or demanded by `&&`, where one of the two always or never holds."""
    ops = (Op.NE, Op.NOT_MATCH) if node.op == "||" else (Op.EQ,)
    first: dict[tuple[Op, Scope | Name, bytes], object] = {}
    for part in node.operands:
        if not (isinstance(part, Comparison) and part.op in ops and isinstance(part.right, Literal)):
            continue
        if isinstance(part.left, Attribute):
            field: tuple[Op, Scope | Name, bytes] = (part.op, part.left.scope, part.left.key)
        elif isinstance(part.left, Intrinsic):
            field = (part.op, part.left.name, b"")
        else:
            continue
        if first.setdefault(field, part.right.value) == part.right.value:
            continue
        if node.op == "||":
            yield Remark(part.start, "every value differs from one of these two: write && to exclude both")
        else:
            yield Remark(part.start, "one value never equals both of these: write || for either")
        return


def _part_of_value(node: Comparison) -> str | None:
    """Return what is wrong where a regular expression seems to look for a part of a value."""
    if node.op not in (Op.MATCH, Op.NOT_MATCH) or not isinstance(node.right, Literal):
        return None
    pattern = node.right.value
    if not isinstance(pattern, Regex) or not pattern.pattern:
        return None
    begins, ends = pattern.pattern.startswith(b"^"), pattern.pattern.endswith(b"$")
    word = pattern.pattern.removeprefix(b"^").removesuffix(b"$")
    if (begins and ends) or any(character in _META for character in word):
        return None
    text = word.decode()
    wanted = f"{'' if begins else '.*'}{text}{'' if ends else '.*'}"
    return f'a regular expression matches the whole value: write "{wanted}" for a part of it'


_META = rb"\.+*?()|[]{}^$"


def _without_unit(node: Comparison | Aggregate) -> bool:
    """Tell whether a duration is compared with a plain number other than 0."""
    if isinstance(node, Aggregate):
        duration: Field | None = node.argument  # none of count()
        constant: Field | None = node.value
    else:
        duration, constant = node.left, node.right
    if not (isinstance(duration, Intrinsic) and duration.type is Type.DURATION and isinstance(constant, Literal)):
        return False
    return constant.type in (Type.INT, Type.FLOAT) and constant.value != 0
