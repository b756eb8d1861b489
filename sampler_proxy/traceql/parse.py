"""Parses text into a syntax tree: accepts the TraceQL that can select a trace, checked for types, refuses all else.

The only exception is `errors.TraceQLError`, whose offset is a character of the text (its length where something is
missing at the end). Time and memory are linear in the text, which may have 64 KiB; there is no recursion here, and the
tree is at most `MAX_DEPTH` deep. Nothing that Tempo would understand is ignored: what cannot select a trace, or is not
supported, is refused by name.

The parser (LALR, by lark) is built once and keeps no state between calls: any thread may call.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import lark

from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql import literals, other_words
from sampler_proxy.traceql.ast import Expression, Logical, Name, Remark, Spanset, SpansetLogical, walk
from sampler_proxy.traceql.build import Builder, at, meant, nearest
from sampler_proxy.traceql.literals import shorten
from sampler_proxy.traceql.semconv import scoped

MAX_BYTES = 64 * 1024
MAX_NESTING = 100  # parentheses and prefix operators round one place
MAX_DEPTH = 200  # of the tree: in each parenthesis there may be a logical operator and a comparison

_AGGREGATES = ("count", "min", "max", "avg", "sum")
_METRICS = {
    *("rate", "compare", "topk", "bottomk", "count_over_time", "min_over_time", "max_over_time", "avg_over_time"),
    *("sum_over_time", "quantile_over_time", "histogram_over_time"),
}
_OTHER_STAGES = {"by", "select", "coalesce"}

_CLOSERS = {"LPAR": "RPAR", "LBRACE": "RBRACE"}
_SYMBOLS = {"RPAR": ")", "RBRACE": "}"}
_OPERAND_ENDS = {"RPAR", "RBRACE", "ATTRIBUTE", "SCOPED", "WORD", "NUMBER", "STRING", "RAW_STRING"}
_UNION = re.compile(r"&(>>|<<|>|<|~)")
_COMMA_IN_NUMBER = re.compile(r"(?<=[0-9]),(?=[0-9])")
_INTRINSICS = {name.value for name in Name}
_ENGLISH = {"and": "&&", "or": "||", "not": "!"}
_MISSPELT = {"==": "=", "<>": "!=", "=>": ">=", "=<": "<="}
_OF_SPANSETS = {  # operators of spansets that are not ones of conditions -> what is meant inside of braces
    "SIBLING": "write =~ to compare with a regular expression",
    "VBAR": "write || for or",
}
_NOT_NEGATED = "a set of spans cannot be negated: negate inside the braces, or put it into unless"


def parse(text: str) -> Expression:
    """Parse an expression. Raises `TraceQLError` and nothing else."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise TraceQLError("half of a surrogate pair is not a character", error.start) from None
    if size > MAX_BYTES:
        raise TraceQLError(
            f"this expression has {size} bytes, and {MAX_BYTES} are allowed: split it into several rules", 0
        )
    root = _run(text)
    for node, depth in walk(root):
        if depth > MAX_DEPTH:
            raise TraceQLError("this is nested too deeply: split it into several rules", node.start)
    return Expression(text, root)


def warnings(expression: Expression) -> list[Remark]:
    """Find `&&` and `||` mixed without parentheses, which is allowed but may surprise, in the order of the text."""
    message = "&& and || have the same precedence, left to right: use parentheses to say which goes first"
    nodes = (node for node, _ in walk(expression.root) if isinstance(node, Logical | SpansetLogical))
    return sorted(Remark(node.mixed, message) for node in nodes if node.mixed is not None)


def tokens_of(text: str) -> Iterator[lark.Token]:
    """Yield the tokens of an expression that `parse` accepts."""
    return _parser().lex(text)


@functools.cache
def _parser() -> lark.Lark:
    # The basic lexer, like Tempo's: a token is the same everywhere, so that a misplaced one can be named.
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return lark.Lark(grammar, parser="lalr", lexer="basic", transformer=Builder())


def _run(text: str) -> Spanset:
    """Feed the parser token by token, to bound the nesting and to say where the text is wrong."""
    state = _parser().parse_interactive(text)
    position = _Position(text)
    try:
        for token in state.lexer_thread.lex(state.parser_state):  # type: ignore[no-untyped-call]
            position.enter(token)
            state.feed_token(token)
            position.leave(token)
        result: Spanset = state.feed_eof()  # type: ignore[no-untyped-call]
    except lark.UnexpectedCharacters as error:
        position.refuse_character(error.pos_in_stream or 0)
    except lark.UnexpectedToken as error:
        position.refuse_token(error.token)
    return result


class _Position:
    """The parser's position in the text, as far as nesting and good messages need to know it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._previous: lark.Token | None = None  # the last token that the parser took
        # Of each open parenthesis or brace: the token that will close it, and the base and function round it.
        self._open: list[tuple[str, int, str | None]] = []
        self._level = self._base = 0  # nesting here; the same without the prefix operators right before
        self._function: str | None = None  # of the aggregate that this stage is

    @property
    def _in_braces(self) -> bool:
        return any(closer == "RBRACE" for closer, _, _ in self._open)

    def enter(self, token: lark.Token) -> None:
        """Check brackets and nesting, before the parser takes the token."""
        if token.type == "LPAR":
            self._level += 1
            if self._previous is not None and self._previous.type == "WORD":
                self._check_call(self._previous)
        elif token.type in _SYMBOLS:
            if not self._open:
                raise TraceQLError(f"nothing is open that this {token} could close", at(token))
            if self._open[-1][0] != token.type:
                raise TraceQLError(f"{_SYMBOLS[self._open[-1][0]]} is missing before this {token}", at(token))
        elif token.type == "NOT" or (token.type == "MINUS" and not self._after_operand):
            self._level += 1
        else:
            self._level = self._base
        if self._level > MAX_NESTING:
            raise TraceQLError(f"this is nested more than {MAX_NESTING} deep: split it into several rules", at(token))

    def leave(self, token: lark.Token) -> None:
        """Move on behind a token that the parser has taken."""
        if token.type in _CLOSERS:
            call = self._previous is not None and self._previous.type == "WORD"
            self._open.append((_CLOSERS[token.type], self._base, self._function))
            self._base = self._level
            self._function = self._function if call else None
        elif token.type in _SYMBOLS:
            _, self._base, self._function = self._open.pop()
            self._level = self._base
        elif token.type == "VBAR":
            self._function = None
        self._previous = token

    @property
    def _after_operand(self) -> bool:
        return self._previous is not None and self._previous.type in _OPERAND_ENDS

    def _check_call(self, word: lark.Token) -> None:
        instead = other_words.function(word)
        hint = f": {instead}" if instead else nearest(word, _AGGREGATES) or ": there are count, min, max, avg and sum"
        message = f"unknown function {shorten(word)}{hint}"
        if word in _METRICS:
            message = (
                f"{word}() computes a metric and selects no traces: leave it out, or use count, min, max, avg or sum"
            )
        elif word in _OTHER_STAGES:
            message = f"{word}() is not supported: leave it out"
        elif word == "with":
            message = "hints, with(...), are not supported: leave them out"
        elif word in _AGGREGATES:
            if self._in_braces:
                message = f"{word}() stands behind the braces, as in {{ ... }} | {word}(...) > 2"
            elif self._function is None:
                self._function = str(word)
                return
            else:
                message = "one aggregate is compared with one number, as in count() > 2"
        raise TraceQLError(message, at(word))

    def refuse_character(self, offset: int) -> NoReturn:
        """Say why no token starts here."""
        character = self._text[offset]
        if character == '"':
            message = "this string is not closed on its line"
        elif character == "`":
            message = "this string is not closed"
        elif character == "'":
            message = "strings stand in double quotes, or in back quotes"
        elif character == "[" and self._previous is not None and self._previous.type == "WORD":
            message = "an attribute is written with dots, as in span.http.route: leave the brackets out"
        elif character == ".":
            message = 'a key must follow the dot, as in span.http.route or span."a key with spaces"'
        elif character == "&":
            union = _UNION.match(self._text, offset)
            message = (
                f"&{union[1]} is not supported: {union[1]} selects the same traces" if union else "write && for and"
            )
        elif _COMMA_IN_NUMBER.match(self._text, offset):
            message = "a number has no comma: write 1500, or 1.5 for a fraction"
        elif (instead := other_words.character(character)) is not None:
            message = instead
        elif character.isspace():
            message = f"write a plain space instead of this character (U+{ord(character):04X})"
        else:
            message = f"unexpected character {character!a}"
        if self._outside_after_word():
            self._refuse_bare_condition()
        raise TraceQLError(message, offset)

    def refuse_token(self, token: lark.Token) -> NoReturn:
        """Say why this token cannot stand here."""
        previous = self._previous
        if token.type == "$END":
            raise TraceQLError(self._what_is_missing(), len(self._text))
        if previous is not None:
            self._refuse_pair(previous, token)
        word = str(token)
        if self._after_operand and (instead := self._instead_of(token)):
            message = instead
        elif word.lower() in _ENGLISH:
            message = f"write {_ENGLISH[word.lower()]} instead of {word}"
        elif word == "with":
            message = "hints, with(...), are not supported: leave them out"
        elif previous is not None and previous.type in ("MATCH", "NOT_MATCH"):
            message = f"a regular expression in quotes must stand to the right of {previous}"
        elif token.type == "TIMES" and not self._after_operand:
            message = "write {} for every trace"
        elif self._in_braces and self._after_operand:
            message = f"unexpected {shorten(word)}: an operator such as = or && is expected here, or the closing }}"
        elif self._in_braces:
            message = (
                f"unexpected {shorten(word)}: an attribute such as span.x, an intrinsic or a constant is expected here"
            )
        elif self._function is not None:
            message = self._about_aggregate(token)
        else:
            message = self._about_spansets(token)
        raise TraceQLError(message, at(token))

    def _instead_of(self, token: lark.Token) -> str | None:
        """Return what is written instead of a token that stands where an operator is expected; None: unknown."""
        previous = self._previous
        if not self._in_braces or previous is None:
            return None
        if token.type in _OF_SPANSETS:
            return _OF_SPANSETS[token.type]
        if token.type != "WORD":
            return None
        if previous.type == "NUMBER" and literals.is_number(previous + token):
            return f"write {shorten(previous + token)} without a space"
        instead = other_words.operator(token)
        if instead is None and previous.type == "ATTRIBUTE" and token.lower() not in _ENGLISH:
            return f"unexpected {shorten(token)}: an operator is expected here, or a key with spaces stands in quotes"
        return instead

    def _refuse_pair(self, previous: lark.Token, token: lark.Token) -> None:
        """Refuse a token where the one before is to blame."""
        both = previous + token if previous.end_pos == at(token) else ""
        if both in _MISSPELT:
            raise TraceQLError(f"there is no operator {both}: write {_MISSPELT[both]}", at(previous))
        if self._in_braces and previous.type == "WORD":
            if both and token.type == "ATTRIBUTE":
                scopes = ("span", "resource", "event", "link", "instrumentation", "metadata")
                scope = previous.lower()
                if (intrinsic := both.replace(".", ":", 1)) in _INTRINSICS:
                    hint = f": did you mean {intrinsic}?"
                elif (known := meant(both)) is not None:
                    hint = known
                elif other_words.SCOPES.get(scope) == "span":
                    hint = f": {scoped(shorten(token[1:]))}"
                elif scope in other_words.SCOPES:
                    hint = f": did you mean {other_words.SCOPES[scope]}?"
                else:
                    hint = nearest(scope, scopes) or f": {scoped(shorten(both))}"
                raise TraceQLError(f"unknown scope {shorten(previous)}{hint}", at(previous))
            if previous.lower() in _ENGLISH:
                raise TraceQLError(f"write {_ENGLISH[previous.lower()]} instead of {previous}", at(previous))

    def _about_aggregate(self, token: lark.Token) -> str:
        if token.type == "LBRACE":
            return f"spans stand before the aggregate, as in {{ ... }} | {self._function}(...) > 2"
        if token.type in ("AND", "OR"):
            return f"put pipelines into parentheses to combine them: ({{ ... }} | count() > 2) {token} {{ ... }}"
        return f"unexpected {shorten(token)}: one aggregate is compared with one number, as in count() > 2"

    def _about_spansets(self, token: lark.Token) -> str:
        if self._outside_after_word():
            self._refuse_bare_condition()
        if token.type == "NOT":
            return _NOT_NEGATED
        if token in _AGGREGATES:
            return f"{token}() stands behind |, as in {{ ... }} | {token}(...) > 2"
        if token.lower() in ("unless", "except", "without"):
            return f"{shorten(token)} is no part of an expression: write it as the key unless of the rule"
        if self._after_operand:
            return f"unexpected {shorten(token)}: &&, ||, a structural operator or | is expected here"
        if token.type in ("NUMBER", "STRING", "RAW_STRING"):
            return (
                "conditions stand in braces, as in { duration > 1s }; an aggregate comes before its number: count() > 2"
            )
        return f"unexpected {shorten(token)}: conditions stand in braces, as in {{ status = error }}"

    def _outside_after_word(self) -> bool:
        if self._in_braces or self._function is not None:
            return False
        return self._previous is not None and self._previous.type == "WORD"

    def _refuse_bare_condition(self) -> NoReturn:
        assert self._previous is not None
        if self._previous in _AGGREGATES:
            example = "count() > 2" if self._previous == "count" else f"{self._previous}(duration) > 1s"
            raise TraceQLError(
                f"write {self._previous} with parentheses, as in {{ ... }} | {example}", at(self._previous)
            )
        if self._previous.lower() == "not":
            raise TraceQLError(_NOT_NEGATED, at(self._previous))
        message = (
            f"{shorten(self._previous)} is no set of spans: conditions stand in braces, as in {{ status = error }}"
        )
        raise TraceQLError(message, at(self._previous))

    def _what_is_missing(self) -> str:
        if self._previous is None:
            return "the expression is empty: write {} for every trace"
        if not self._after_operand:
            return f"something is missing after {shorten(self._previous)}"
        if self._open:
            return f"{_SYMBOLS[self._open[-1][0]]} is missing"
        if self._outside_after_word():
            self._refuse_bare_condition()
        return f"{self._function}() must be compared with a number, as in count() > 2"
