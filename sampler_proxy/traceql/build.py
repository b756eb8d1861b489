"""Builds the syntax tree from below, a method for each rule of `grammar.lark`; checks types, folds constants.

Types are those of TraceQL: numbers, durations and decimals compare with each other; nothing else crosses types; the
type of an attribute is known only on a span. What could never hold is refused, with what to write instead.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable
from typing import Any

import lark
import re2

from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql import literals, other_words
from sampler_proxy.traceql.ast import (
    METADATA,
    NUMERIC,
    Aggregate,
    Arithmetic,
    Attribute,
    Comparison,
    Field,
    Filter,
    Intrinsic,
    Literal,
    Logical,
    Name,
    Negative,
    Not,
    Pipeline,
    Regex,
    Scope,
    Spanset,
    SpansetLogical,
    Structural,
    Type,
    walk,
)
from sampler_proxy.traceql.program import Op

_OPS = {"=": Op.EQ, "!=": Op.NE, "<": Op.LT, "<=": Op.LE, ">": Op.GT, ">=": Op.GE, "=~": Op.MATCH, "!~": Op.NOT_MATCH}
_EQUALITY = (Op.EQ, Op.NE)
_MATCHING = (Op.MATCH, Op.NOT_MATCH)
_FLIPPED = {Op.LT: Op.GT, Op.LE: Op.GE, Op.GT: Op.LT, Op.GE: Op.LE}
_FOLD: dict[Op, Any] = {
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.GE: operator.ge,
}

_WORDS: dict[str, tuple[Type, bool | int | None]] = {
    "true": (Type.BOOL, True),
    "false": (Type.BOOL, False),
    "nil": (Type.NIL, None),
    "minInt": (Type.INT, literals.MIN_INT),
    "maxInt": (Type.INT, literals.MAX_INT),
    "unset": (Type.STATUS, 0),
    "ok": (Type.STATUS, 1),
    "error": (Type.STATUS, 2),
    "unspecified": (Type.KIND, 0),
    "internal": (Type.KIND, 1),
    "server": (Type.KIND, 2),
    "client": (Type.KIND, 3),
    "producer": (Type.KIND, 4),
    "consumer": (Type.KIND, 5),
}
_UNSCOPED = {
    "name": Name.NAME,
    "status": Name.STATUS,
    "statusMessage": Name.STATUS_MESSAGE,
    "kind": Name.KIND,
    "duration": Name.DURATION,
    "rootName": Name.ROOT_NAME,
    "rootServiceName": Name.ROOT_SERVICE,
    "rootDuration": Name.ROOT_DURATION,
    "traceDuration": Name.TRACE_DURATION,
    "nestedSetParent": Name.NESTED_SET_PARENT,
}
_SCOPED = {name.value: name for name in Name if ":" in name.value}
_ROOT = "a root is { nestedSetParent < 0 }"
# Comparisons of nestedSetParent that hold of all roots (-1), or of all other spans (0 and more).
_OF_ROOTS = {(Op.LT, 0), (Op.LE, -1), (Op.EQ, -1), (Op.NE, -1), (Op.GT, -1), (Op.GE, 0)}
_RELATED = "relate spans by operators such as { ... } >> { ... }"
_UNSUPPORTED = {  # word -> what to write instead
    "parent": _ROOT,
    "nestedSetLeft": _RELATED,
    "nestedSetRight": _RELATED,
    "childCount": "leave it out",
    "span:childCount": "leave it out",
}

_HOW_TO_WRITE = {
    Type.BOOL: "write true or false",
    Type.INT: "write a number",
    Type.FLOAT: "write a number",
    Type.DURATION: "write a duration such as 100ms or 1h30m",
    Type.STRING: "write a string in double quotes",
    Type.STATUS: "write error, ok or unset, without quotes",
    Type.KIND: "write server, client, producer, consumer, internal or unspecified, without quotes",
}

_SCOPE = re.compile(r"[a-z]*\.")
_QUOTED_PART = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_SPACES = re.compile(r"[ \t\r\n]+")


def at(token: lark.Token) -> int:
    """Return a token's offset in the text, in characters."""
    assert token.start_pos is not None
    return token.start_pos


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the known word that is most like an unknown one, as the end of a message; "" where none is like it."""
    if len(word) > 64:
        return ""
    known = list(known)
    match = difflib.get_close_matches(word, known, 1, 0.7)
    match = match or [one for one in known if one.lower() == word.lower()]
    return f": did you mean {match[0]}?" if match else ""


_PLAIN = {other_words.plain(name): name for name in (*_WORDS, *_SCOPED, *_UNSCOPED)}


def meant(word: str) -> str | None:
    """Say what a word means that differs in case and separators only, or is another language's, as the end of a
    message; None: nobody knows."""
    known = _PLAIN.get(other_words.plain(other_words.without_prefix(word)))
    if known is not None:
        return f": did you mean {known}?"
    instead = other_words.name_or_value(word)
    return instead and f": write {instead}"


class Builder(lark.Transformer[lark.Token, Spanset]):
    """Makes nodes: a method for each rule of the grammar, called with the rule's parts (in a chain: operand, token,
    operand, ...)."""

    def attribute(self, parts: list[lark.Token]) -> Attribute:
        token = parts[0]
        scope = _SCOPE.match(token)
        assert scope is not None
        if scope[0] == "parent.":
            raise TraceQLError(
                "attributes of the parent are not supported: relate spans by { ... } > { ... }", at(token)
            )
        key = _QUOTED_PART.sub(lambda part: _ESCAPED.sub(r"\1", part[1]), token[scope.end() :])
        if not key:
            raise TraceQLError("this key is empty", at(token) + scope.end())
        if scope[0] == METADATA:
            return Attribute(at(token), Scope.RESOURCE, (METADATA + key.lower()).encode())
        return Attribute(at(token), Scope(scope[0]), key.encode())

    def scoped(self, parts: list[lark.Token]) -> Intrinsic:
        word = _SPACES.sub("", parts[0])
        if word in _SCOPED:
            return Intrinsic(at(parts[0]), _SCOPED[word])
        if word in _UNSUPPORTED:
            raise TraceQLError(f"{word} is not supported: {_UNSUPPORTED[word]}", at(parts[0]))
        name, _, value = word.partition(":")
        hint = f": write {name} = {value}" if name in _UNSCOPED and value else meant(word) or nearest(word, _SCOPED)
        raise TraceQLError(f"unknown intrinsic {literals.shorten(word)}{hint}", at(parts[0]))

    def word(self, parts: list[lark.Token]) -> Literal | Intrinsic:
        word, start = str(parts[0]), at(parts[0])
        if word in _WORDS:
            return Literal(start, *_WORDS[word])
        if word in _UNSCOPED:
            return Intrinsic(start, _UNSCOPED[word])
        if word in _UNSUPPORTED:
            raise TraceQLError(f"{word} is not supported: {_UNSUPPORTED[word]}", start)
        hint = meant(word) or nearest(word, (*_UNSCOPED, *_WORDS))
        hint = hint or ": text is written in double quotes, an attribute with a scope or a dot, as in span.x or .x"
        raise TraceQLError(f"unknown word {literals.shorten(word)}{hint}", start)

    def number(self, parts: list[lark.Token]) -> Literal:
        return literals.number(str(parts[0]), at(parts[0]))

    def string(self, parts: list[lark.Token]) -> Literal:
        return Literal(at(parts[0]), Type.STRING, literals.quoted(str(parts[0]), at(parts[0])))

    def power(self, parts: list[Any]) -> Field:
        result: Field = parts[-1]
        for operand in reversed(parts[:-1:2]):
            result = _arithmetic("^", operand, result)
        return result

    tail = power

    def sum(self, parts: list[Any]) -> Field:
        result: Field = parts[0]
        for op, operand in zip(parts[1::2], parts[2::2], strict=True):
            result = _arithmetic(str(op), result, operand)
        return result

    term = sum

    def negation(self, parts: list[Any]) -> Field:
        start, operand = at(parts[0]), parts[1]
        _require_number(operand)
        return literals.negate(operand, start) if isinstance(operand, Literal) else Negative(start, operand)

    def inversion(self, parts: list[Any]) -> Field:
        _require_condition(parts[1], "! stands before a condition, in parentheses where it is a comparison")
        return _inverse(parts[1], at(parts[0]))

    def comparison(self, parts: list[Any]) -> Field:
        result: Field = parts[0]
        for op, operand in zip(parts[1::2], parts[2::2], strict=True):
            result = _compare(result, op, operand)
        return result

    def logical(self, parts: list[Any]) -> Field:
        if len(parts) == 1:
            return parts[0]  # type: ignore[no-any-return]
        for operand in parts[::2]:
            _require_condition(operand, "&& and || join conditions")
        return _chain(parts, Logical)  # type: ignore[no-any-return]

    def filter(self, parts: list[Any]) -> Filter:
        brace, condition = parts
        if condition is None:
            condition = Literal(at(brace), Type.BOOL, True)
        _require_condition(condition, "braces hold a condition")
        return Filter(at(brace), condition)

    def structural(self, parts: list[Any]) -> Spanset:
        result: Spanset = parts[0]
        for op, operand in zip(parts[1::2], parts[2::2], strict=True):
            result = Structural(result.start, str(op), result, operand)
        return result

    def spansets(self, parts: list[Any]) -> Spanset:
        return parts[0] if len(parts) == 1 else _chain(parts, SpansetLogical)  # type: ignore[no-any-return]

    def aggregate_filter(self, parts: list[Any]) -> Aggregate:
        function, argument, op, value = parts
        if function == "count":
            if argument is not None:
                raise TraceQLError(
                    "count() counts spans: put what they must be into the braces before it", argument.start
                )
        elif argument is None:
            raise TraceQLError(f"{function}() of what? write {function}(duration) or {function}(span.x)", at(function))
        else:
            _require_number(argument)
            _check_nested_set(argument, _OPS[op], None)
            if isinstance(argument, Literal):
                raise TraceQLError(
                    f"{function} of a constant: write {function}(duration) or {function}(span.x)", argument.start
                )
        if not isinstance(value, Literal) or value.type not in NUMERIC:
            raise TraceQLError("an aggregate is compared with a number or a duration", value.start)
        return Aggregate(at(function), str(function), argument, _OPS[op], value)

    def pipeline(self, parts: list[Any]) -> Spanset:
        return parts[0] if len(parts) == 1 else Pipeline(parts[0].start, tuple(parts))

    def start(self, parts: list[Any]) -> Spanset:
        return parts[0]  # type: ignore[no-any-return]


def _require_number(field: Field) -> None:
    if field.type not in NUMERIC and field.type is not Type.ANY:
        raise TraceQLError(f"a number is needed here, and this is {field.type.value}", field.start)


def _require_condition(field: Field, why: str) -> None:
    if field.type not in (Type.BOOL, Type.ANY):
        raise TraceQLError(
            f"{why}, and this is {field.type.value}: write a comparison, such as {_example(field)}", field.start
        )


def _example(field: Field) -> str:
    """Write a comparison in which a field without one may have been meant."""
    if field.type not in (Type.STATUS, Type.KIND):
        return "duration > 1s"
    name = "status" if field.type is Type.STATUS else "kind"
    known = field.value if isinstance(field, Literal) else _WORDS["error" if field.type is Type.STATUS else "server"][1]
    return f"{name} = {next(word for word, one in _WORDS.items() if one == (field.type, known))}"


def _chain(parts: list[Any], node: Any) -> Any:
    """Group a chain from left to right, equal operators in one node: `a && b && c || d` -> or(and(a, b, c), d)."""
    start, op, operands = parts[0].start, str(parts[1]), [parts[0]]
    switch = mixed = None  # offsets: of the first change of operator in this chain; the same, for the node it is in
    for token, operand in zip(parts[1::2], parts[2::2], strict=True):
        if token != op:
            operands, op = [node(start, op, tuple(operands), mixed)], str(token)
            mixed = at(token) if switch is None else None
            switch = at(token)
        operands.append(operand)
    return node(start, op, tuple(operands), mixed)


def _arithmetic(op: str, left: Field, right: Field) -> Field:
    _require_number(left)
    _require_number(right)
    if isinstance(left, Literal) and isinstance(right, Literal):
        return literals.arithmetic(op, left, right)
    return Arithmetic(left.start, op, left, right)


def _inverse(condition: Field, start: int) -> Field:
    if isinstance(condition, Literal):
        return Literal(start, Type.BOOL, not condition.value)
    return Not(start, condition)


def _compare(left: Field, token: lark.Token, right: Field) -> Field:
    op, start = _OPS[token], left.start
    if Type.NIL in (left.type, right.type):
        return _compare_nil(left, op, token, right)
    if op in _MATCHING:
        return _match(left, op, token, right)
    if isinstance(left, Literal) and not isinstance(right, Literal):
        left, right, op = right, left, _FLIPPED.get(op, op)
    _check_types(left, op, token, right)
    if isinstance(left, Literal) and isinstance(right, Literal):
        return Literal(start, Type.BOOL, bool(_FOLD[op](left.value, right.value)))
    _check_nested_set(left, op, right)
    if left.type is Type.BOOL and isinstance(right, Literal):
        return left if right.value == (op is Op.EQ) else _inverse(left, start)
    return Comparison(start, op, left, right)


def _check_types(left: Field, op: Op, token: lark.Token, right: Field) -> None:
    types = {left.type, right.type}
    if Type.ANY in types:
        for field in (left, right):
            if field.type in (Type.STATUS, Type.KIND):
                raise TraceQLError(
                    f"no attribute is {field.type.value}: write {_example(field)}, or a string in quotes", field.start
                )
    elif len(types) == 2 and not types <= NUMERIC:
        for field in (left, right):
            if isinstance(left, Literal) and isinstance(right, Literal) and field.type in (Type.STATUS, Type.KIND):
                raise TraceQLError(f"these are constants, and never equal: write {_example(field)}", left.start)
        raise TraceQLError(f"this is compared with {left.type.value}: {_HOW_TO_WRITE[left.type]}", right.start)
    ordered = {Type.BOOL, Type.STATUS, Type.KIND} & types
    if ordered and op not in _EQUALITY:
        raise TraceQLError(f"{ordered.pop().value} is compared by = and != only", at(token))


def _check_nested_set(left: Field, op: Op, right: Field | None) -> None:
    """Refuse what nestedSetParent says beside whether a span is a root: other numbers are those of Tempo's store."""
    number = right.value if isinstance(right, Literal) else None
    for field in (left, right):
        if (
            field is not None
            and _numbers_spans(field)
            and (not isinstance(left, Intrinsic) or (op, number) not in _OF_ROOTS)
        ):
            raise TraceQLError(
                "only whether a span is a root is known: write nestedSetParent < 0, or >= 0", field.start
            )


def _numbers_spans(field: Field) -> bool:
    return field.type in NUMERIC and any(
        isinstance(node, Intrinsic) and node.name is Name.NESTED_SET_PARENT for node, _ in walk(field)
    )


_MAY_BE_MISSING = {Name.TRACE_DURATION, Name.ROOT_NAME, Name.ROOT_SERVICE, Name.ROOT_DURATION}


def _compare_nil(left: Field, op: Op, token: lark.Token, right: Field) -> Field:
    if op not in _EQUALITY:
        raise TraceQLError("nil is compared by = and != only", at(token))
    field = right if left.type is Type.NIL else left
    if field.type is Type.NIL:  # as in Tempo: nil equals no value and differs from none
        return Literal(left.start, Type.BOOL, False)
    if isinstance(field, Intrinsic) and op is Op.EQ:
        name = field.name.value
        instead = f"write !({name} != nil)" if field.name in _MAY_BE_MISSING else "leave this out"
        if field.name is Name.NESTED_SET_PARENT:
            instead = "write nestedSetParent < 0 for roots"
        if field.name is Name.PARENT_ID:
            instead = f'write {name} = "", or nestedSetParent < 0 for roots'
        raise TraceQLError(f"an intrinsic is never nil: {instead}", field.start)
    if not isinstance(field, Attribute | Intrinsic):
        raise TraceQLError("only an attribute can be nil", field.start)
    return Comparison(left.start, Op.IS_NIL if op is Op.EQ else Op.NOT_NIL, field, None)


_IN_RE2 = (  # part of RE2's reason -> what to write instead
    ("repetition operator", ": write .* for any text"),
    ("perl operator", ": it does not look ahead or behind, use another condition or unless"),
)


def _match(left: Field, op: Op, token: lark.Token, right: Field) -> Field:
    if not (isinstance(right, Literal) and isinstance(right.value, bytes)):
        raise TraceQLError(f"a regular expression in quotes must stand to the right of {token}", right.start)
    if left.type not in (Type.STRING, Type.ANY):
        raise TraceQLError(f"{token} looks at strings, and this is {left.type.value}", left.start)
    try:
        regex = Regex.compile(right.value)
    except re2.error as error:
        reason = error.args[0]
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        hint = next((instead for sign, instead in _IN_RE2 if sign in text), "")
        message = f"not a regular expression (RE2 syntax): {literals.shorten(text)}{hint}"
        raise TraceQLError(message, right.start) from None
    if isinstance(left, Literal):
        assert isinstance(left.value, bytes)
        return Literal(left.start, Type.BOOL, regex(left.value) == (op is Op.MATCH))
    return Comparison(left.start, op, left, Literal(right.start, Type.REGEX, regex))
